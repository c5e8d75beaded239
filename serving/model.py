"""Loads a network and checks it against the contract of ``model.onnx``.

Input ``image``: uint8 (batch, height, width, channels), where all but the batch are fixed. Output
``probabilities``: float32 (batch, classes). The graph contains whatever normalization the network needs.

A network with neither of these names is one of another task. It takes no pictures, only tensors.
"""

from __future__ import annotations

import hashlib
import json
import math
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serving.arrays import ALL_BITS, Images, Probabilities
from serving.errors import ModelError
from serving.known import KNOWN, NOTHING, Known, read_known
from serving.signature import Tensor, signature

# Metadata of files from before their origin was moved into the registry's tags.
_OLD_ORIGIN = ("git_commit", "run_id", "data_sha256")


@dataclass(frozen=True)
class Origin:
    """What is known about where a network comes from: run ids, commit, hash of the data."""

    known: Mapping[str, str]  # empty if nothing is known
    source: str  # who says so, or why nothing is known


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded network that keeps the contract. It is immutable and equal only to itself.

    Without ``shape`` it takes no pictures, and has no class names.
    """

    name: str
    version: str
    sha256: str  # of the file
    identity: str  # what a registry knows the version by; for a file, its hash
    shape: tuple[int, int, int] | None  # height, width, channels
    class_names: tuple[str, ...]
    genotype: Mapping[str, Any]  # empty if the file has none
    pixel_scale: tuple[
        float, float
    ]  # which values become 0 and 255 in pictures of more than 8 bits per channel
    precision: str  # of the convolutions; float32 unless the file says otherwise
    metadata: Mapping[str, str]  # of the file, as written
    origin: Origin
    known: Known  # how sure it has to be, what it has learned from, and pictures to try
    session: onnxruntime.InferenceSession
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    turn: threading.Lock = field(default_factory=threading.Lock)  # one inference at a time has all threads

    def predict(self, images: Images) -> Probabilities:
        """Returns the probabilities (batch, classes) of uint8 images (batch, *shape)."""
        with self.turn:
            return _run(self.session, images)

    def compute(self, feeds: Mapping[str, NDArray[Any]], names: Sequence[str]) -> list[NDArray[Any]]:
        """Returns the outputs of these names for all inputs. Whatever ONNX Runtime raises is raised."""
        with self.turn:
            return [np.asarray(value) for value in self.session.run(list(names), dict(feeds))]


def read_file(path: Path, threads: int) -> Model:
    """Loads a file. The file's name is the model's name, and the start of its SHA-256 is the version."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror})") from None
    known = read_known(path.with_name(KNOWN), content)
    return load(content, path.stem, sha256_of(content)[:12], threads, known=known)


def sha256_of(content: bytes) -> str:
    """As ``sha256sum`` prints it."""
    return hashlib.sha256(content).hexdigest()


def load(
    content: bytes,
    name: str,
    version: str,
    threads: int,
    origin: Origin | None = None,
    identity: str | None = None,
    known: Known = NOTHING,
) -> Model:
    """Loads the bytes of an ONNX file. Raises ModelError unless the model keeps the contract and answers.

    ``origin`` is what a registry knows about the file's origin; None without a registry. ``identity``: see Model.
    ``known`` is the content of the known.json beside the file.
    """
    where = f"model {name} {version}"
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # failures are raised and reported in one line
    # Spinning threads answer slightly sooner, but take the processor from everything else, first of all from
    # HTTP.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    try:
        session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(f"{where}: ONNX Runtime cannot load it ({_first_line(error)})") from None
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    shape, names = None, []
    if _takes_pictures(session):
        shape = _shape(session, where)
        names = _class_names(metadata, _prove(session, shape, where).shape[1], where)
    inputs, outputs = signature(session, where)
    genotype = _json(metadata, "genotype", {}, where)
    if not isinstance(genotype, dict):
        raise ModelError(f"{where}: genotype must be a JSON object, got {genotype!r:.80}")
    sha256 = sha256_of(content)
    return Model(
        name,
        version,
        sha256,
        identity or sha256,
        shape,
        tuple(str(label) for label in names),
        genotype,
        _scale(metadata, where),
        metadata.get("precision", "float32"),
        metadata,
        _origin(metadata, origin),
        known,
        session,
        inputs,
        outputs,
    )


def _takes_pictures(session: onnxruntime.InferenceSession) -> bool:
    values = (*session.get_inputs(), *session.get_outputs())
    return any(value.name in ("image", "probabilities") for value in values)


def _class_names(metadata: Mapping[str, str], classes: int, where: str) -> list[Any]:
    names = _json(metadata, "class_names", [str(label) for label in range(classes)], where)
    if not isinstance(names, list) or len(names) != classes:
        raise ModelError(f"{where}: class_names must list {classes} names, got {names!r:.80}")
    return names


def _origin(metadata: Mapping[str, str], registered: Origin | None) -> Origin:
    """What the registry knows, otherwise what an older file says of itself."""
    if registered is not None and registered.known:
        return registered
    if said := {key: metadata[key] for key in _OLD_ORIGIN if key in metadata}:
        return Origin(said, "the metadata of the file")
    return registered or Origin({}, "unknown: the model is a file outside a registry and does not say it")


def _run(session: onnxruntime.InferenceSession, images: Images) -> Probabilities:
    return np.asarray(session.run(["probabilities"], {"image": images})[0])


def _shape(session: onnxruntime.InferenceSession, where: str) -> tuple[int, int, int]:
    inputs = [(i.name, i.type, list(i.shape)) for i in session.get_inputs()]
    outputs = [(o.name, o.type, len(o.shape)) for o in session.get_outputs()]
    if outputs != [("probabilities", "tensor(float)", 2)]:
        raise ModelError(f"{where}: output must be probabilities, float32 (batch, classes), got {outputs}")
    match inputs:
        case [("image", "tensor(uint8)", [_, int(height), int(width), (1 | 3) as channels])]:
            return height, width, channels
    raise ModelError(
        f"{where}: input must be image, uint8 (batch, height, width, 1 or 3) with only batch dynamic, got {inputs}"
    )


def _prove(session: onnxruntime.InferenceSession, shape: tuple[int, int, int], where: str) -> Probabilities:
    """Runs the graph with two batch sizes, because a graph that loads may still fail on its first batch."""
    try:
        for batch in (1, 2):
            answer = _run(session, np.zeros((batch, *shape), np.uint8))
    except Exception as error:
        raise ModelError(f"{where}: fails on a black image ({_first_line(error)})") from None
    if answer.shape[0] != 2 or not np.allclose(answer.sum(axis=1), 1, atol=1e-3) or (answer < 0).any():
        raise ModelError(f"{where}: does not answer a black image with probabilities")
    return answer


def _json(metadata: Mapping[str, str], key: str, default: Any, where: str) -> Any:
    try:
        return json.loads(metadata[key]) if key in metadata else default
    except ValueError:
        raise ModelError(f"{where}: metadata {key} must be JSON, got {metadata[key]!r:.80}") from None


def _scale(metadata: Mapping[str, str], where: str) -> tuple[float, float]:
    scale = _json(metadata, "pixel_scale", ALL_BITS, where)
    match scale:
        case [int() | float() as low, int() | float() as high] if (
            math.isfinite(low) and low < high < math.inf
        ):
            return float(low), float(high)
    raise ModelError(f"{where}: pixel_scale must be two rising numbers, got {scale!r:.80}")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
