"""Makes tiny ONNX files that forecast series, without torch, and tables for them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

HOUR = {"unit": "seconds", "count": 3600}
GENOTYPE: dict[str, Any] = {
    "space": "two-input",
    "nodes": [
        {"left": ["sigmoid", 1], "right": ["tanh", 0], "combiner": "product"},
        {"left": ["identity", 0], "right": ["identity", 2], "combiner": "sum"},
    ],
}


def network(
    targets: Sequence[str] = ("load", "price"),
    covariates: Sequence[str] = ("wind",),
    lookback: int = 4,
    horizon: int = 3,
    repeats: int = 0,
    metadata: Mapping[str, str] | None = None,
    **series: Any,
) -> onnx.ModelProto:
    """Makes a network that lets each target go on as it went from the first row to the last.

    With ``repeats``, the network also multiplies a large matrix that many times per series, which makes it slow.
    """
    nodes, constants = _drift(len(targets), lookback, horizon, "quick" if repeats else "forecast")
    if repeats:
        slow_nodes, slow_constants = _slow(repeats)
        nodes, constants = nodes + slow_nodes, constants | slow_constants
    variables = len(targets) + len(covariates)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "drift",
        [value("series", TensorProto.FLOAT, ["batch", lookback, variables])],
        [value("forecast", TensorProto.FLOAT, ["batch", horizon, len(targets)])],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    about = {
        "targets": list(targets),
        "covariates": list(covariates),
        "lookback": lookback,
        "horizon": horizon,
        "step": HOUR,
        "zone": None,
        "time": "time",
        **series,
    }
    properties = {"task": "forecasting", "series": json.dumps(about), "genotype": json.dumps(GENOTYPE)}
    helper.set_model_props(model, {**properties, **(metadata or {})})
    onnx.checker.check_model(model)
    return model


Part = tuple[list[onnx.NodeProto], dict[str, NDArray[Any]]]


def _drift(targets: int, lookback: int, horizon: int, output: str) -> Part:
    """Nodes and constants that forecast."""
    constants = {
        "last": np.array(lookback - 1, np.int64),
        "first": np.array(0, np.int64),
        "targets": np.arange(targets),
        "ahead": (np.arange(1, horizon + 1, dtype=np.float32) / max(lookback - 1, 1)).reshape(1, horizon, 1),
        "time": np.array([1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", ["series", "targets"], ["own"], axis=2),
        helper.make_node("Gather", ["own", "last"], ["end"], axis=1),
        helper.make_node("Gather", ["own", "first"], ["start"], axis=1),
        helper.make_node("Sub", ["end", "start"], ["rise"]),
        helper.make_node("Unsqueeze", ["rise", "time"], ["slope"]),
        helper.make_node("Unsqueeze", ["end", "time"], ["level"]),
        helper.make_node("Mul", ["slope", "ahead"], ["drift"]),
        helper.make_node("Add", ["level", "drift"], [output]),
    ]
    return nodes, constants


def _slow(repeats: int) -> Part:
    """Nodes and constants that slowly turn ``quick`` into ``forecast`` with the same values."""
    constants = {
        "wide": np.ones((1, 400, 400), np.float32),
        "slow": np.full((400, 400), 1e-9, np.float32),
        "axes": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", ["series", "axes"], ["mean"], keepdims=1),
        helper.make_node("Mul", ["mean", "wide"], ["grid0"]),
        *(helper.make_node("MatMul", [f"grid{n}", "slow"], [f"grid{n + 1}"]) for n in range(repeats)),
        helper.make_node("ReduceMean", [f"grid{repeats}", "axes"], ["tiny"], keepdims=1),
        helper.make_node("Sub", ["tiny", "tiny"], ["nothing"]),
        helper.make_node("Add", ["quick", "nothing"], ["forecast"]),
    ]
    return nodes, constants


def write(path: Path, **options: Any) -> Path:
    """Writes ``network(**options)`` to a file."""
    onnx.save(network(**options), path)
    return path


def forecast(values: NDArray[np.float32], targets: int, horizon: int) -> NDArray[np.float64]:
    """What the network should answer to (look-back, variables): (horizon, targets)."""
    own = values[:, :targets].astype(float)
    return own[-1] + np.arange(1, horizon + 1)[:, None] * (own[-1] - own[0]) / max(len(own) - 1, 1)


def write_known(model: Path, **content: Any) -> Path:
    """Writes known.json beside a file, as the stage export does."""
    path = model.with_name("known.json")
    sha256 = hashlib.sha256(model.read_bytes()).hexdigest()
    path.write_text(json.dumps({"model_sha256": sha256, **content}))
    return path


NAMES = ("load", "price", "wind")
TIMES = ("2026-03-01T22:00", "2026-03-01T23:00", "2026-03-02T00:00", "2026-03-02T01:00")
VALUES = ((1.5, 10, 3), (2.5, 9, 4), (2.25, 8.5, 5), (3, 7, -6))


def rows(count: int = 4, times: bool = True) -> list[dict[str, Any]]:
    """The last rows of a good series for the network, as JSON has them."""
    return [
        {**({"time": time} if times else {}), **dict(zip(NAMES, values, strict=True))}
        for time, values in zip(TIMES[-count:], VALUES[-count:], strict=True)
    ]


def table(lines: Sequence[Mapping[str, Any]] | None = None) -> bytes:
    """The same as CSV."""
    given = rows() if lines is None else lines
    return "\n".join([",".join(given[0]), *(",".join(map(str, row.values())) for row in given), ""]).encode()
