"""Requests and answers of the API, as its OpenAPI document describes them."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Prediction(BaseModel):
    """The answer for one image."""

    class_name: str
    probabilities: list[float]
    sure: bool | None
    warning: str | None
    view: str | None = None


class Answer(BaseModel):
    """The answer to a request; its predictions are in the order of the images."""

    model_name: str
    model_version: str
    class_names: list[str]
    predictions: list[Prediction]
    milliseconds: float


class ModelInfo(BaseModel):
    """The served model: its name, its input and output, and its origin."""

    name: str
    version: str
    sha256: str
    class_names: list[str]
    image_shape: list[int]
    genotype: dict[str, Any]
    cells: dict[str, str]
    precision: str
    report: bool
    metadata: dict[str, str]
    origin: dict[str, str]
    origin_source: str


class Problem(BaseModel):
    """One sentence that says what is wrong."""

    detail: str


VIEW = {
    "name": "view",
    "in": "query",
    "description": "true: every prediction has `view`, the image as the network sees it, a PNG file in base64",
    "schema": {"type": "boolean", "default": False},
}
_PIXELS = {
    "description": "One image as rows of pixels, or an array of images. "
    "A pixel is an integer 0..255 or a list of 1 or 3 of them.",
    "type": "array",
    "items": {},
}
REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "images": {
                        "type": "array",
                        "description": "PNG, JPEG, WebP, GIF, TIFF, BMP or PPM files of any size; one per part of the form",
                        "items": {"type": "string", "format": "binary"},
                    }
                },
            }
        },
        "application/json": {
            "schema": {
                "oneOf": [
                    _PIXELS,
                    {"type": "object", "properties": {"images": {"type": "array", "items": _PIXELS}}},
                ]
            },
            "example": {"images": [[[0, 255], [255, 0]]]},
        },
    },
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is malformed."},
    401: {"model": Problem, "description": "The key is missing or wrong."},
    408: {"model": Problem, "description": "The body took too long to arrive."},
    413: {"model": Problem, "description": "The body is too large, or holds too many images or pixels."},
    415: {
        "model": Problem,
        "description": "The body is neither multipart/form-data nor application/json, or is compressed.",
    },
    422: {"model": Problem, "description": "An image in the body cannot be read."},
    503: {"model": Problem, "description": "The server is busy; Retry-After says when to try again."},
}
