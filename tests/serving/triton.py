"""Asks a server with Triton's client, which another project wrote."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from numpy.typing import NDArray

Arrays = Mapping[str, NDArray[Any]]
_NUMPY = {"tensor(float)": "float32", "tensor(double)": "float64"}


@contextmanager
def client(url: str) -> Iterator[Any]:
    """Triton's client of a server; skips where it is not installed."""
    triton = pytest.importorskip(
        "tritonclient.http", reason="tritonclient is not installed: make .venv/ready"
    )
    opened = triton.InferenceServerClient(url.removeprefix("http://"))
    try:
        yield opened
    finally:
        opened.close()


def infer(opened: Any, model: str, feeds: Arrays, binary: bool, outputs: list[str], **options: Any) -> Arrays:
    """The outputs of these names; JSON has no float16, so that travels as bytes in any case."""
    triton = import_module("tritonclient.http")
    type_of = import_module("tritonclient.utils").np_to_triton_dtype
    inputs = []
    for name, value in feeds.items():
        inputs.append(triton.InferInput(name, list(value.shape), type_of(value.dtype)))
        inputs[-1].set_data_from_numpy(value, binary_data=binary or value.dtype == np.float16)
    wanted = [triton.InferRequestedOutput(name, binary_data=binary) for name in outputs]
    answer = opened.infer(model, inputs, outputs=wanted, **options)
    return {name: answer.as_numpy(name) for name in outputs}


def made_up(session: onnxruntime.InferenceSession, rng: np.random.Generator, **sizes: int) -> Arrays:
    """Random inputs of a network. ``sizes`` gives the open ones by their names; others are 3."""
    feeds = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else sizes.get(size, 3) for size in value.shape]
        kind = np.dtype(_NUMPY.get(value.type, value.type[len("tensor(") : -1]))
        numbers = rng.standard_normal(shape) if kind.kind == "f" else rng.integers(0, 2, shape)
        if kind.kind in "iu":
            numbers = rng.integers(0, 100, shape)
        feeds[value.name] = numbers.astype(kind)
    return feeds


def assert_equals_onnxruntime(url: str, file: Path, **sizes: int) -> None:
    """Every output of the served file is that of ONNX Runtime, bit for bit, in JSON and as bytes."""
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    outputs = [value.name for value in session.get_outputs()]
    feeds = made_up(session, np.random.default_rng(0), **sizes)
    expected = {name: np.asarray(session.run([name], dict(feeds))[0]) for name in outputs}
    with client(url) as opened:
        for binary in (False, True):
            found = infer(opened, file.stem, feeds, binary, outputs)
            for name, value in expected.items():
                assert found[name].dtype == value.dtype
                assert found[name].shape == value.shape
                assert found[name].tobytes() == value.tobytes(), (name, binary)
