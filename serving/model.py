"""Loads a network and checks it against the contract of its kind: serving/pictures.py, serving/series.py.

The names of its input and output say which kind it is. A network with other names is one of another task: it takes tensors
alone, under ``/v2``.
"""

from __future__ import annotations

import hashlib
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from serving.errors import ModelError
from serving.kinds import Kind, first_line, from_metadata
from serving.known import KNOWN, NOTHING, Known, read_known
from serving.pictures import Pictures
from serving.series import Series
from serving.signature import Tensor, signature

log = logging.getLogger("serving")

KINDS: tuple[type[Kind], ...] = (Pictures, Series)

# Metadata of files from before their origin was moved into the registry's tags.
_OLD_ORIGIN = ("git_commit", "run_id", "data_sha256")


@dataclass(frozen=True)
class Origin:
    """What is known about where a network comes from: run ids, commit, hash of the data."""

    known: Mapping[str, str]  # empty if nothing is known
    source: str  # who says so, or why nothing is known


@dataclass(frozen=True, eq=False)
class Model:
    """A loaded network that keeps the contract. It is immutable and equal only to itself."""

    name: str
    version: str
    sha256: str  # of the file
    identity: str  # what a registry knows the version by; for a file, its hash
    kind: Kind | None  # None: it is asked under /v2 only
    genotype: Mapping[str, Any]  # empty if the file has none
    precision: str  # of the convolutions; float32 unless the file says otherwise
    metadata: Mapping[str, str]  # of the file, as written
    origin: Origin
    known: Known  # how sure it has to be, what it has learned from, and what to try it with
    session: onnxruntime.InferenceSession
    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    turn: threading.Lock = field(default_factory=threading.Lock)  # one inference at a time has all threads

    def predict(self, inputs: NDArray[Any]) -> NDArray[Any]:
        """Returns the answers (batch, ...) to the inputs (batch, ...) of its kind."""
        assert self.kind is not None  # others are not asked
        (outputs,) = self.compute({self.kind.input: inputs}, [self.kind.output])
        return outputs

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
        raise ModelError(f"{where}: ONNX Runtime cannot load it ({first_line(error)})") from None
    metadata = dict(session.get_modelmeta().custom_metadata_map)
    kind = _kind(session, metadata, where)
    inputs, outputs = signature(session, where)
    genotype = from_metadata(metadata, "genotype", {}, where)
    if not isinstance(genotype, dict):
        raise ModelError(f"{where}: genotype must be a JSON object, got {genotype!r:.80}")
    if kind is not None and (reason := kind.accepts(known)):
        log.warning("%s of %s is not used: %s", KNOWN, where, reason)
        known = NOTHING
    sha256 = sha256_of(content)
    return Model(
        name,
        version,
        sha256,
        identity or sha256,
        kind,
        genotype,
        metadata.get("precision", "float32"),
        metadata,
        _origin(metadata, origin),
        known,
        session,
        inputs,
        outputs,
    )


def _kind(session: onnxruntime.InferenceSession, metadata: Mapping[str, str], where: str) -> Kind | None:
    names = {value.name for value in (*session.get_inputs(), *session.get_outputs())}
    for kind in KINDS:
        if names & {kind.input, kind.output}:
            return kind.of(session, metadata, where)
    return None


def _origin(metadata: Mapping[str, str], registered: Origin | None) -> Origin:
    """What the registry knows, otherwise what an older file says of itself."""
    if registered is not None and registered.known:
        return registered
    if said := {key: metadata[key] for key in _OLD_ORIGIN if key in metadata}:
        return Origin(said, "the metadata of the file")
    return registered or Origin({}, "unknown: the model is a file outside a registry and does not say it")
