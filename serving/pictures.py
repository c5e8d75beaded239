"""Networks that tell what is in a picture.

Input ``image``: uint8 (batch, height, width, channels), where all but the batch are fixed. Output
``probabilities``: float32 (batch, classes). The graph contains whatever normalization the network needs.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
import onnxruntime

from serving.arrays import ALL_BITS, Images, Probabilities
from serving.decoding import Decoding, count_images
from serving.errors import ModelError
from serving.forms import JSON, media_type
from serving.images import Limits
from serving.kinds import Name, first_line, from_metadata
from serving.known import Known, remarks_on, views
from serving.settings import ServeSettings


@dataclass(frozen=True)
class Pictures:
    """A kind of network: serving/kinds.py."""

    name: ClassVar[Name] = "images"
    input: ClassVar[str] = "image"
    output: ClassVar[str] = "probabilities"

    shape: tuple[int, int, int]  # height, width, channels
    class_names: tuple[str, ...]
    pixel_scale: tuple[float, float]  # the values that become 0 and 255 where a picture has more than 8 bits

    @classmethod
    def of(cls, session: onnxruntime.InferenceSession, metadata: Mapping[str, str], where: str) -> Pictures:
        shape = _shape(session, where)
        classes = _prove(session, shape, where).shape[1]
        numbered = [str(label) for label in range(classes)]
        names = from_metadata(metadata, "class_names", numbered, where)
        if not isinstance(names, list) or len(names) != classes:
            raise ModelError(f"{where}: class_names must list {classes} names, got {names!r:.80}")
        return cls(shape, tuple(str(label) for label in names), _scale(metadata, where))

    def reader(self, settings: ServeSettings) -> PictureReader:
        return PictureReader(settings)

    def described(self) -> Mapping[str, Any]:
        return {"class_names": list(self.class_names), "image_shape": list(self.shape)}

    def accepts(self, known: Known) -> str | None:
        return "it is about series" if known.example is not None else None


@dataclass(frozen=True, eq=False)
class Decoded:
    """Images as the network takes them, and the names of its classes."""

    inputs: Images
    class_names: tuple[str, ...]

    async def answer(self, outputs: Probabilities, known: Known, *, view: bool) -> str:
        remarks = await remarks_on(known, self.inputs, outputs)
        if view:
            seen = await asyncio.to_thread(views, self.inputs)
            remarks = [{**said, "view": picture} for said, picture in zip(remarks, seen, strict=True)]
        predictions = [
            {"class_name": self.class_names[row.argmax()], "probabilities": row.tolist(), **said}
            for row, said in zip(outputs, remarks, strict=True)
        ]
        members = {"class_names": self.class_names, "predictions": predictions}
        return json.dumps(members, ensure_ascii=False, allow_nan=False, separators=(",", ":"))[1:-1]


class PictureReader:
    """Decodes the images of requests: serving/decoding.py."""

    def __init__(self, settings: ServeSettings) -> None:
        self.settings = settings
        self.limits = Limits(settings.max_images, settings.max_pixels)
        self.decoding = Decoding(
            self.limits, settings.decode_threads, settings.decode_seconds, settings.decode_mib
        )
        self.most = settings.max_images

    @property
    def soon(self) -> int:
        return self.decoding.soon

    def limit(self, content_type: str) -> float:
        json_ = media_type(content_type)[0] == JSON
        return self.settings.max_json_mib if json_ else self.settings.max_body_mib

    def count(self, content_type: str, body: bytearray) -> int | None:
        return count_images(content_type, body, self.limits)

    async def read(self, kind: Pictures, content_type: str, body: bytearray) -> Decoded:
        return Decoded(await self.decoding.decode(content_type, body, kind), kind.class_names)

    def __enter__(self) -> Self:
        self.decoding.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None, /
    ) -> None:
        self.decoding.__exit__(kind, error, trace)


def _run(session: onnxruntime.InferenceSession, images: Images) -> Probabilities:
    return np.asarray(session.run([Pictures.output], {Pictures.input: images})[0])


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
    except Exception as error:  # onnxruntime's exceptions share no base class
        raise ModelError(f"{where}: fails on a black image ({first_line(error)})") from None
    if answer.shape[0] != 2 or not np.allclose(answer.sum(axis=1), 1, atol=1e-3) or (answer < 0).any():
        raise ModelError(f"{where}: does not answer a black image with probabilities")
    return answer


def _scale(metadata: Mapping[str, str], where: str) -> tuple[float, float]:
    scale = from_metadata(metadata, "pixel_scale", ALL_BITS, where)
    match scale:
        case [int() | float() as low, int() | float() as high] if (
            math.isfinite(low) and low < high < math.inf
        ):
            return float(low), float(high)
    raise ModelError(f"{where}: pixel_scale must be two rising numbers, got {scale!r:.80}")
