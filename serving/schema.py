"""What the API takes and answers, as its OpenAPI document describes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel


class Prediction(BaseModel):
    """One image's answer."""

    class_name: str
    probabilities: list[float]


class Answer(BaseModel):
    """The answer to a request, its predictions in the order of its images."""

    model_name: str
    model_version: str
    class_names: list[str]
    predictions: list[Prediction]
    milliseconds: float


class ModelInfo(BaseModel):
    """The served model: its name, what it takes and answers, and where it comes from."""

    name: str
    version: str
    class_names: list[str]
    image_shape: list[int]
    genotype: dict[str, Any]
    cells: dict[str, str]
    precision: str
    report: bool
    metadata: dict[str, str]


class Problem(BaseModel):
    """What is wrong, in one sentence."""

    detail: str


_PIXELS = {
    "description": "Rows of pixels, each an integer 0..255 or a list of 1 or 3 of them; or an array of such images.",
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
                        "description": "PNG, JPEG or WebP files, of any size; every part of the form is one",
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
    413: {"model": Problem, "description": "Too large, too many images, or too many pixels."},
    415: {"model": Problem, "description": "Neither multipart/form-data nor application/json."},
    422: {"model": Problem, "description": "Something in it is not an image that can be read."},
    503: {"model": Problem, "description": "Busy; Retry-After says when to come back."},
}
