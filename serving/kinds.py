"""What a network is asked and what it answers under ``/v1``: one kind for pictures, one for series.

The routes, the queue, the batches and the swaps are the same for all kinds. What differs is behind the three protocols
of this module: a *kind* says what one network takes, its *reader* turns requests into questions, and a *question* writes
its answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import TracebackType
from typing import Any, ClassVar, Literal, Protocol, Self

import onnxruntime
from numpy.typing import NDArray

from serving.errors import ModelError
from serving.known import Known
from serving.settings import ServeSettings

Name = Literal["images", "series"]


class Question(Protocol):
    """A request that has been read: cases for the network."""

    @property
    def inputs(self) -> NDArray[Any]:
        """What the network takes: (cases, ...)."""
        ...

    async def answer(self, outputs: NDArray[Any], known: Known, *, view: bool) -> str:
        """The members of the answer's JSON object, without its braces. ``outputs``: (cases, ...).

        With ``view``, also what the network saw. Raises RequestError if there is no answer to give.
        """
        ...


class Reader(Protocol):
    """Reads the requests for one kind of network, where each can do no harm, while its context is open."""

    @property
    def most(self) -> int:
        """Cases of a request."""
        ...

    @property
    def soon(self) -> int:
        """Requests that will be read within milliseconds."""
        ...

    def limit(self, content_type: str) -> float:
        """The most MiB that such a body may have."""
        ...

    def count(self, content_type: str, body: bytearray) -> int | None:
        """At least as many cases as the body holds, without reading it; None if it is soon read."""
        ...

    async def read(self, kind: Any, content_type: str, body: bytearray) -> Question:
        """Reads a body for a network of this kind. Raises RequestError, with one sentence for the client."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None: ...


class Kind(Protocol):
    """What one network takes and answers, as its file says. Immutable."""

    name: ClassVar[Name]
    input: ClassVar[str]  # names in the ONNX file
    output: ClassVar[str]

    @classmethod
    def of(cls, session: onnxruntime.InferenceSession, metadata: Mapping[str, str], where: str) -> Kind:
        """Reads and tries a network that has the input or the output of this kind.

        Raises ModelError, which begins with ``where``, unless it keeps the contract.
        """
        ...

    def reader(self, settings: ServeSettings) -> Reader:
        """A reader for all networks of this kind."""
        ...

    def described(self) -> Mapping[str, Any]:
        """Its members of the answer to ``/v1/model``."""
        ...

    def accepts(self, known: Known) -> str | None:
        """Why this known.json does not fit the network; None if it does."""
        ...


def from_metadata(metadata: Mapping[str, str], key: str, default: Any, where: str) -> Any:
    """The JSON of one entry of a file's metadata. Raises ModelError if it is none."""
    try:
        return json.loads(metadata[key]) if key in metadata else default
    except ValueError:
        raise ModelError(f"{where}: metadata {key} must be JSON, got {metadata[key]!r:.80}") from None


def first_line(error: Exception) -> str:
    """What an exception of ONNX Runtime says first."""
    return (str(error).splitlines() or [type(error).__name__])[0]
