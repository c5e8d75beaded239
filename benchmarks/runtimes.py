"""``python -m benchmarks.runtimes``: which runtimes read the exported files, at which ``export.opset``.

Two networks with made-up weights, a DARTS cell with all operations of S5 and a NAS-Bench-201 cell, are written by the
exporter at several opsets, in float32 and in int8. Each runtime is installed into a folder of its own, by uv or npm,
and runs every file. The table has the largest difference from the answers of this project's ONNX Runtime.

Needs uv, the Pythons that RUNTIMES names, node and npm, and a package index. Minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
import torch

from models.images.deploy import Deployed
from models.images.genotype import from_json
from models.images.task import found_network
from models.training.seeds import generator
from stages.images.data import ImageCard
from stages.images.export.int8 import quantize
from stages.images.export.onnx_file import write_graph

OPSETS = (13, 15, 17, 18, 19, 20, 21, 23)
SHAPE, IMAGES = (32, 32, 3), 64
_EDGES = (
    "sep_conv_3x3",
    "max_pool_3x3",
    "dil_conv_5x5",
    "avg_pool_3x3",
    "sep_conv_5x5",
    "skip_connect",
    "dil_conv_3x3",
)
_CELL = [[_EDGES[edge % len(_EDGES)], source] for edge, source in enumerate((0, 1, 0, 2, 1, 3, 2, 4))]
_OTHER = [[_EDGES[-1 - edge % len(_EDGES)], source] for edge, (_, source) in enumerate(_CELL)]
NETWORKS: Mapping[str, Mapping[str, object]] = {
    "darts": {
        "space": "darts",
        "normal": _CELL,
        "normal_concat": [2, 3, 4, 5],
        "reduce": _OTHER,
        "reduce_concat": [2, 3, 4, 5],
    },
    "nasbench201": {
        "space": "nasbench201",
        "arch_str": "|nor_conv_3x3~0|+|avg_pool_3x3~0|nor_conv_1x1~1|+|skip_connect~0|nor_conv_3x3~1|avg_pool_3x3~2|",
    },
}
_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Runtime:
    """A version of a runtime, and the Python that its packages need; with ``npm``, node instead."""

    package: str
    version: str  # empty: the newest
    python: str = "3.11"
    numpy: str = "numpy"


RUNTIMES = (
    *(Runtime("onnxruntime", version, "3.9", "numpy<2") for version in (
        "1.7.0", "1.8.1", "1.10.0", "1.12.1", "1.13.1", "1.14.1", "1.15.1", "1.16.3", "1.17.3", "1.18.1",
    )),
    Runtime("onnxruntime", "1.20.1"),
    Runtime("onnxruntime", ""),
    Runtime("openvino", "2023.0.2", "3.9", "numpy<2"),
    Runtime("openvino", ""),
    Runtime("onnxruntime-web", "1.18.0", "npm"),
    Runtime("onnxruntime-web", "", "npm"),
)  # fmt: skip


def deployed(genotype: Mapping[str, object]) -> Deployed:
    """A network in evaluation mode with made-up weights, scales and statistics."""
    network = found_network(
        from_json(genotype), SHAPE, 10, seed=0, channels=8, cells=5, stages=3, auxiliary=False
    )
    draws = generator(0, "runtimes")
    with torch.no_grad():
        for tensor in network.state_dict().values():
            if tensor.dim() == 1:
                tensor.copy_(torch.rand(tensor.shape, generator=draws) + 0.5)
    return Deployed(network, (0.5, 0.4, 0.3), (0.25, 0.2, 0.3)).eval()


def write(folder: Path) -> None:
    """Writes all files and the answers that this project's ONNX Runtime gives."""
    images = np.random.default_rng(0).integers(0, 256, (IMAGES, *SHAPE), dtype=np.uint8)
    card = ImageCard.model_construct(image_shape=SHAPE)
    answers = {}
    for name, genotype in NETWORKS.items():
        network = deployed(genotype)
        for opset in OPSETS:
            float32 = folder / f"{name}-float32-{opset}.onnx"
            int8 = folder / f"{name}-int8-{opset}.onnx"
            write_graph(network, card, opset, float32)
            quantize(float32, images, int8)
            for path in (float32, int8):
                session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
                answers[path.stem] = np.asarray(session.run(["probabilities"], {"image": images})[0])
    np.savez(folder / "expected.npz", images=images, **answers)
    listed = {name: answer.tolist() for name, answer in answers.items()}
    content = {"shape": images.shape, "images": images.tolist(), "answers": listed}
    (folder / "expected.json").write_text(json.dumps(content))


def _said(command: Sequence[str | Path], **options: str | Path) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False, **options)  # pyright: ignore
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no output"])[-1])
    return done.stdout


def asked(runtime: Runtime, files: Path, place: Path) -> tuple[str, dict[str, float | str]]:
    """Installs a runtime in ``place`` and returns its version and what it said about the files."""
    wanted = f"{runtime.package}=={runtime.version}" if runtime.version else runtime.package
    if runtime.python == "npm":
        place.mkdir()
        wanted = f"{runtime.package}@{runtime.version or 'latest'}"
        _said(["npm", "install", "--silent", "--no-audit", "--no-fund", "--prefix", place, wanted])
        shutil.copy(_HERE / "_runtime_probe.mjs", place)
        manifest = json.loads((place / "node_modules" / runtime.package / "package.json").read_text())
        return manifest["version"], json.loads(_said(["node", place / "_runtime_probe.mjs", files]))
    python = place / "bin" / "python"
    _said(["uv", "venv", "--quiet", "--no-python-downloads", "--python", runtime.python, place])
    _said(["uv", "pip", "install", "--quiet", "--python", python, wanted, runtime.numpy])
    which = f"import importlib.metadata as m; print(m.version({runtime.package!r}))"
    version = _said([python, "-c", which]).strip()
    return version, json.loads(_said([python, _HERE / "_runtime_probe.py", runtime.package, files]))


def table(results: Mapping[str, Mapping[str, float | str]], precision: str) -> list[str]:
    """Markdown: a row per runtime, a column per opset. Of both networks, the larger difference counts."""
    lines = [
        "| runtime | " + " | ".join(map(str, OPSETS)) + " |",
        "|---|" + "---|" * len(OPSETS),
    ]
    for runtime, found in results.items():
        cells = []
        for opset in OPSETS:
            values = [found[f"{name}-{precision}-{opset}"] for name in NETWORKS]
            numbers = [value for value in values if isinstance(value, float | int)]
            cells.append(f"{max(numbers):.0e}" if len(numbers) == len(values) else "refused")
        lines.append(f"| {runtime} | " + " | ".join(cells) + " |")
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runtimes", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/runtimes.md"))
    out = parser.parse_args().out
    results, refusals = {}, {}
    with tempfile.TemporaryDirectory(prefix="msdarts-runtimes-") as folder:
        files = Path(folder) / "files"
        files.mkdir()
        write(files)
        for number, runtime in enumerate(RUNTIMES):
            try:
                version, found = asked(runtime, files, Path(folder) / str(number))
            except RuntimeError as error:
                print(f"{runtime.package} {runtime.version}: not tried ({error})", file=sys.stderr)
                continue
            label = f"{runtime.package} {version}"
            results[label] = found
            refusals[label] = [value for value in found.values() if isinstance(value, str)]
            print(
                f"{label}: {sum(not isinstance(value, str) for value in found.values())} of {len(found)} files"
            )
    lines = [
        "# Which runtimes read the exported files",
        "",
        f"`python -m benchmarks.runtimes`, {platform.system()} {platform.machine()}, {os.cpu_count()} cores. Columns:"
        f" `export.opset`. Numbers: the largest difference of a probability from onnxruntime {onnxruntime.__version__},",
        f"over {IMAGES} random images and two networks with made-up weights (seed 0), n = 1.",
        *("", "## float32", "", *table(results, "float32"), "", "## int8", "", *table(results, "int8")),
        *("", "## In the words of those that refused", ""),
        *(f"- {label}: {words[0]}" for label, words in refusals.items() if words),
    ]
    out.write_text("\n".join(lines) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
