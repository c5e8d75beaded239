"""How long the networks of a comparison take for one image, with ONNX Runtime, which also serves registered networks.

Weights do not matter for the time, so every network is exported with fresh ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stages.images.comparison import built, deployed_of
from stages.images.data import read_card, read_split
from stages.images.export.latency import latencies as measured
from stages.images.export.onnx_file import write_graph
from stages.images.exported import with_onnx
from stages.images.params import Params

_THREADS = 1


def measured_with() -> str:
    return "ONNX Runtime on one thread"


def latencies(params: Params, networks: Mapping[str, Mapping[str, Any]]) -> Mapping[str, float]:
    card, answers = read_card(), {}
    with tempfile.TemporaryDirectory() as folder:
        for number, (name, network) in enumerate(networks.items()):
            path = Path(folder) / f"{number}.onnx"
            write_graph(deployed_of(built(params, network)), card, params.export.opset, path)
            answers[name] = with_onnx(path, _THREADS)
        images = read_split("test")[0]
        taken = measured(answers, images, params.export.latency_repeats, sizes=(1,))
    return {name: times["batch_1"] for name, times in taken.items()}
