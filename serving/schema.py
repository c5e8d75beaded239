"""Requests and answers of the API, as its OpenAPI document describes them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel


class Prediction(BaseModel):
    """The answer for one image."""

    class_name: str
    probabilities: list[float]
    sure: bool | None
    warning: str | None
    view: str | None = None


class Answer(BaseModel):
    """The answer to a request with images; its predictions are in the order of the images."""

    model_name: str
    model_version: str
    class_names: list[str]
    predictions: list[Prediction]
    milliseconds: float


class Columns(BaseModel):
    """Rows of a series: their times, or null where it has none, and the numbers of each column."""

    time: list[str] | None
    columns: dict[str, list[float]]


class Forecast(Columns):
    """What follows one series, in its units: a number per step for each target."""

    step: list[int]
    view: Columns | None = None


class Forecasts(BaseModel):
    """The answer to a request with series; its predictions are in the order of the series."""

    model_name: str
    model_version: str
    targets: list[str]
    predictions: list[Forecast]
    milliseconds: float


class StepInfo(BaseModel):
    """The time from one row of a series to the next."""

    unit: Literal["seconds", "months"]
    count: int


class SeriesInfo(BaseModel):
    """What a network that forecasts takes and answers: columns, numbers of rows, and times."""

    targets: list[str]
    covariates: list[str]
    lookback: int
    horizon: int
    step: StepInfo
    zone: str | None
    time: str
    time_format: str | None


class ModelInfo(BaseModel):
    """The served model: its name, its input and output, and its origin. A network of another kind has no classes, no shape,
    or no series."""

    name: str
    version: str
    sha256: str
    kind: Literal["images", "series"] | None
    class_names: list[str] = []
    image_shape: list[int] = []
    series: SeriesInfo | None = None
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
    "description": "true: every prediction has `view`, the image as the network sees it, a PNG file in base64, or the rows that it looks "
    "back on",
    "schema": {"type": "boolean", "default": False},
}
_PIXELS = {
    "description": "One image as rows of pixels, or an array of images. "
    "A pixel is an integer 0..255 or a list of 1 or 3 of them.",
    "type": "array",
    "items": {},
}
_ROWS = {
    "description": "A series: one object per row, the oldest first, with a number for every target and covariate, and the "
    "time under the name of its column, in all rows or in none. `series` in /v1/model has the names.",
    "type": "array",
    "items": {"type": "object", "additionalProperties": {"type": ["number", "string"]}},
}
_FILES = {"type": "array", "items": {"type": "string", "format": "binary"}}
_TABLE = "text with a line of names and a line per row, the oldest first, as in the JSON; UTF-8, commas between columns"
REQUEST_BODY = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "properties": {
                    "images": {
                        **_FILES,
                        "description": "PNG, JPEG, WebP, GIF, TIFF, BMP or PPM files of any size; one per part of the form",
                    },
                    "series": {**_FILES, "description": f"CSV files; one per part of the form: {_TABLE}"},
                },
            }
        },
        "application/json": {
            "schema": {
                "oneOf": [
                    _PIXELS,
                    {"type": "object", "properties": {"images": {"type": "array", "items": _PIXELS}}},
                    {"type": "object", "properties": {"rows": _ROWS}},
                    {"type": "object", "properties": {"series": {"type": "array", "items": _ROWS}}},
                ]
            },
            "examples": {
                "images": {"value": {"images": [[[0, 255], [255, 0]]]}},
                "series": {"value": {"rows": [{"time": "2026-01-31T14:00", "sales": 1.5}]}},
            },
        },
        "text/csv": {"schema": {"type": "string", "description": f"One series: {_TABLE}"}},
    },
}
PROBLEMS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "The body is malformed."},
    401: {"model": Problem, "description": "The key is missing or wrong."},
    408: {"model": Problem, "description": "The body took too long to arrive."},
    413: {
        "model": Problem,
        "description": "The body is too large, or holds too many images, pixels, series or rows.",
    },
    415: {
        "model": Problem,
        "description": "The body has no type that the served network takes, or is compressed.",
    },
    422: {
        "model": Problem,
        "description": "An image or a series in the body cannot be read, or has no forecast.",
    },
    503: {"model": Problem, "description": "The server is busy; Retry-After says when to try again."},
}
