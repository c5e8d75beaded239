"""Series over a real connection: forecasts, times and refusals."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnxruntime
import pytest

from tests.serving import drift
from tests.serving.conftest import RED, Server, encode, predict, running
from tests.serving.drift import rows, table

CSV = {"Content-Type": "text/csv"}
ANSWER = [[3.5, 6], [4, 5], [4.5, 4]]  # of drift.VALUES, by hand
FOLLOWING = ["2026-03-02T02:00", "2026-03-02T03:00", "2026-03-02T04:00"]


@pytest.fixture(scope="module")
def series_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return drift.write(tmp_path_factory.mktemp("drift") / "drift.onnx")


@pytest.fixture(scope="module")
def forecaster(tmp_path_factory: pytest.TempPathFactory, series_file: Path) -> Iterator[Server]:
    """A server of ``series_file`` whose limits are small enough to be reached."""
    limits = ("--max-series", "3", "--max-json-mib", "0.25", "--max-body-mib", "1", "--batch-wait-ms", "1000")
    with running(tmp_path_factory.mktemp("server"), "--model", str(series_file), *limits) as started:
        yield started


def asked(server: Server, body: Any, **query: str) -> httpx.Response:
    """The answer to JSON, or to bytes as CSV."""
    url = f"{server.url}/v1/predict"
    if isinstance(body, bytes):
        return httpx.post(url, content=body, headers=CSV, params=query, timeout=30)
    return httpx.post(url, json=body, params=query, timeout=30)


def test_rows_and_csv_get_the_same_forecast_with_the_times_that_follow(forecaster: Server) -> None:
    shuffled = [dict(reversed(row.items())) for row in rows()]
    quoted = (
        table()
        .replace(b"load,price", b'"load", "price"')
        .replace(b"2.25", b' "+2.25"')
        .replace(b"7,", b"7.e0,")
    )
    bodies: list[Any] = [
        {"rows": rows()},
        {"series": [rows()]},
        {"rows": shuffled},
        table(),
        table(shuffled),
        quoted,
    ]
    bodies += [
        b"\xef\xbb\xbf" + table().replace(b"\n", b"\r\n"),
        table().replace(b"\n", b"\r"),
        table() + b"\r\n\n",
    ]
    for body in bodies:
        answer = asked(forecaster, body)
        assert answer.status_code == 200, (body, answer.text)
        content = answer.json()
        assert list(content) == ["model_name", "model_version", "targets", "predictions", "milliseconds"]
        assert (content["model_name"], content["targets"]) == ("drift", ["load", "price"])
        expected = {"load": [3.5, 4, 4.5], "price": [6, 5, 4]}
        assert content["predictions"] == [{"time": FOLLOWING, "step": [1, 2, 3], "columns": expected}]


def test_forecasts_are_those_of_onnx_runtime(forecaster: Server, series_file: Path) -> None:
    values = np.random.default_rng(0).normal(50, 1e3, (3, 4, 3)).astype(np.float32)
    (expected,) = onnxruntime.InferenceSession(series_file).run(None, {"series": values})
    for one, closed in zip(np.asarray(expected), values, strict=True):
        np.testing.assert_allclose(one, drift.forecast(closed, 2, 3), rtol=1e-5)
    several: dict[str, list[list[dict[str, Any]]]] = {
        "series": [[dict(zip(drift.NAMES, map(float, row), strict=True)) for row in one] for one in values]
    }
    files = [("any", ("name.csv", table(one))) for one in several["series"]]
    for answer in (
        asked(forecaster, several),
        httpx.post(f"{forecaster.url}/v1/predict", files=files),
    ):
        predictions = answer.json()["predictions"]
        got = [[prediction["columns"][name] for name in ("load", "price")] for prediction in predictions]
        np.testing.assert_array_equal(np.array(got, np.float32).transpose(0, 2, 1), expected)
        assert {(prediction["time"], *prediction["step"]) for prediction in predictions} == {(None, 1, 2, 3)}


def test_only_the_last_rows_are_read_and_the_view_shows_them(forecaster: Server) -> None:
    longer = [{"time": "gap", "load": None, "price": "?", "wind": 1}] * 500 + rows()
    for body in ({"rows": longer}, table(longer)):
        (prediction,) = asked(forecaster, body, view="true").json()["predictions"]
        assert prediction["time"] == FOLLOWING
        columns = {name: [row[number] for row in drift.VALUES] for number, name in enumerate(drift.NAMES)}
        assert prediction["view"] == {"time": list(drift.TIMES), "columns": columns}
    assert "view" not in asked(forecaster, table()).json()["predictions"][0]


def test_the_model_describes_itself_in_json_and_in_openapi(forecaster: Server, server: Server) -> None:
    model = httpx.get(f"{forecaster.url}/v1/model").json()
    assert (model["kind"], model["class_names"], model["image_shape"]) == ("series", [], [])
    assert model["series"] == {
        "targets": ["load", "price"], "covariates": ["wind"], "lookback": 4, "horizon": 3,
        "step": drift.HOUR, "zone": None, "time": "time", "time_format": None,
    }  # fmt: skip
    pictures = httpx.get(f"{server.url}/v1/model").json()
    assert (pictures["kind"], pictures["series"]) == ("images", None)
    document = httpx.get(f"{forecaster.url}/openapi.json").json()
    assert document == httpx.get(f"{server.url}/openapi.json").json()
    operation = document["paths"]["/v1/predict"]["post"]
    assert list(operation["requestBody"]["content"]) == [
        "multipart/form-data",
        "application/json",
        "text/csv",
    ]
    schemas = operation["responses"]["200"]["content"]["application/json"]["schema"]["anyOf"]
    assert [schema["$ref"].rpartition("/")[2] for schema in schemas] == ["Answer", "Forecasts"]
    reference = httpx.get(f"{forecaster.url}/docs").text
    assert "text/csv" in reference and "-F series=@" in reference and 'href="#Forecasts"' in reference
    # The example in the document has the form that is answered.
    example = operation["requestBody"]["content"]["application/json"]["examples"]["series"]["value"]
    assert "row; the network needs the last 4" in asked(forecaster, example).json()["detail"]
    assert "msdarts_batch_images_count" in httpx.get(f"{forecaster.url}/metrics").text


def with_row(number: int, **changes: Any) -> list[dict[str, Any]]:
    """A good series with other cells in one row, from 1; None takes a cell away."""
    changed = rows()
    row = {**changed[number - 1], **changes}
    changed[number - 1] = {name: cell for name, cell in row.items() if cell is not ...}
    return changed


def with_line(number: int, line: bytes) -> bytes:
    """A good CSV with another line; 0 is the header."""
    lines = table().split(b"\n")
    lines[number] = line
    return b"\n".join(lines)


LEAVE_OUT = "leave out all but load, price, wind, time (where it has times)."
BAD: dict[str, tuple[Any, int, str]] = {
    "no JSON": ("{", 422, "JSON must be {\"rows\""),
    "a list": (rows(), 422, 'JSON must be {"rows": [{"load": 1.5, ...}, ...]}, or {"series": [rows, rows, ...]}, and nothing else.'),
    "rows and series": ({"rows": rows(), "series": []}, 422, "JSON must be"),
    "a row as rows": ({"rows": rows()[0]}, 422, "JSON must be"),
    "no series": ({"series": []}, 422, "The request holds no series."),
    "series of dicts": ({"series": rows()}, 422, "JSON must be"),
    "four series": ({"series": [rows()] * 4}, 413, "Too many series: a request may hold 3."),
    "few rows": ({"rows": rows(3)}, 422, "The table has 3 rows; the network needs the last 4."),
    "no rows": ({"rows": []}, 422, "The table has 0 rows; the network needs the last 4."),
    "few lines": (table(rows(1)), 422, "The table has 1 row; the network needs the last 4."),
    "few rows in one of two": ({"series": [rows(), rows(2)]}, 422, "Series 2 has 2 rows; the network needs the last 4."),
    "a list as row": ({"rows": [*rows()[:3], [1]]}, 422, "Row 4 must be an object with a number for every column."),
    "a column missing": ({"rows": with_row(2, wind=...)}, 422, "Row 2 lacks the column 'wind'."),
    "a column more": ({"rows": with_row(3, rain=1)}, 422, f"Row 3 has the unknown column 'rain'; {LEAVE_OUT}"),
    "a string": ({"rows": with_row(1, wind="1")}, 422, "Row 1, column wind must be a number, got '1'."),
    "a null": ({"rows": with_row(1, wind=None)}, 422, "Row 1, column wind must be a number, got None."),
    "a truth value": ({"rows": with_row(1, wind=True)}, 422, "Row 1, column wind must be a number, got True."),
    "a long string": ({"rows": with_row(1, wind="a\nb" * 99)}, 422, "Row 1, column wind must be a number, got 'a\\nba\\nb"),
    "a huge number": ({"rows": with_row(4, load=1e39)}, 422, "Row 4, column load is too large."),
    "a huge integer": ({"rows": with_row(4, load=10**400)}, 422, "Row 4, column load is too large."),
    "the largest numbers": ({"rows": [*with_row(1, load=-3.4e38)[:3], *with_row(4, load=3.4e38)[3:]]}, 422, "The forecast has no finite number"),
    "in the second of two": (
        {"series": [rows(), with_row(3, price=[])]}, 422, "Series 2, row 3, column price must be a number, got []."),
    "no time in one row": ({"rows": with_row(2, time=...)}, 422, "Row 2 lacks a time, unlike the row before."),
    "a time in one row": (
        {"rows": [*rows(times=False)[:3], rows()[3]]}, 422, "Row 4 has a time, unlike the row before."),
    "a number as time": (
        {"rows": with_row(2, time=5)}, 422, 'Row 2, column time must be a time such as "2026-01-31T14:00", got 5.'),
    "no time": (
        {"rows": with_row(2, time="x" * 99)}, 422, "Row 2, column time must be a time such as 2026-01-31T14:00, got 'xxx"),
    "a time twice": (
        {"rows": with_row(2, time=drift.TIMES[0])}, 422,
        "Row 2, column time, 2026-03-01T22:00, should be 2026-03-01T23:00; every row comes 1 hour after the one before."),
    "a gap": ({"rows": with_row(4, time="2026-03-02T02:00")}, 422, "Row 4, column time, 2026-03-02T02:00, should be"),
    "an offset": ({"rows": with_row(4, time="2026-03-02T01:00Z")}, 422, "Row 4, column time has an offset from UTC"),
    "year 1": ({"rows": with_row(4, time="0001-01-01T00:00")}, 422, "Row 4, column time, 0001-01-01T00:00, should be"),
    "a CSV with a gap": (with_line(4, b"2026-03-02T02:00,1,2,3"), 422, "Line 5, column time, 2026-03-02T02:00, should be"),
    "an empty CSV": (b"", 422, "The table lacks the column 'load'."),
    "no header": (table().partition(b"\n")[2], 422, "The table lacks the column 'load'."),
    "semicolons": (
        table().replace(b",", b";"), 422, "The table lacks the column 'load'; commas separate columns."),
    "a header with a column twice": (with_line(0, b"time,load,load,wind"), 422, "The table has the column 'load' twice."),
    "a header with a column more": (
        with_line(0, b"time,load,price,wind,rain"), 422, f"The table has the unknown column 'rain'; {LEAVE_OUT}"),
    "cells missing": (with_line(2, b"2026-03-01T23:00,1"), 422, "Line 3 has 2 cells; the header has 4."),
    "an empty line": (with_line(2, b""), 422, "Line 3 has 1 cell; the header has 4."),
    "an empty cell": (with_line(2, b"2026-03-01T23:00,1, ,3"), 422, "Line 3, column price is empty; every row needs every number."),
    "a word": (with_line(2, b"2026-03-01T23:00,1,n/a,3"), 422, "Line 3, column price must be a number, got 'n/a'."),
    "NaN": (with_line(2, b"2026-03-01T23:00,1,nan,3"), 422, "Line 3, column price must be a number, got 'nan'."),
    "infinity": (with_line(2, b"2026-03-01T23:00,1,-inf,3"), 422, "Line 3, column price must be a number, got '-inf'."),
    "Python's digits": (with_line(2, b"2026-03-01T23:00,1,1_0,3"), 422, "Line 3, column price must be a number, got '1_0'."),
    "other digits": (
        with_line(2, "2026-03-01T23:00,1,\u0661,3".encode()), 422, "Line 3, column price must be a number, got '\u0661'."),
    "a decimal comma": (with_line(2, b'2026-03-01T23:00,1,"8,5",3'), 422, "Line 3, column price must be a number, got '8,5'."),
    "a huge number in CSV": (with_line(2, b"2026-03-01T23:00,1,1e999,3"), 422, "Line 3, column price is too large."),
    "many digits": (with_line(2, b"2026-03-01T23:00,1," + b"9" * 3000 + b",3"), 422, "Line 3, column price is too large."),
    "a quoted newline": (
        with_line(2, b'2026-03-01T23:00,1,"8\n5",3'), 422, "Line 3 has a quotation mark out of place, or one that does not end on its line."),
    "a quotation mark": (with_line(4, b'"2026-03-01T23:00,1,8,3'), 422, "Line 5 has a quotation mark out of place, or one that does not end on its line."),
    "a long line": (with_line(2, b"1," * 5000), 422, "Line 3 has more than 4,000 bytes."),
    "a long header": (b"a," * 5000 + b"\n", 422, "The table: the header has more than 4,000 bytes."),
    "Latin-1": (with_line(3, "2026-03-02T00:00,1,2,\u00e4".encode("latin-1")), 422, "Line 4 is not UTF-8 text; save the table as CSV in UTF-8."),
    "UTF-16": (table().decode().encode("utf-16"), 422, "The table: the header is not UTF-8 text"),
    "NUL": (with_line(2, b"2026-03-01T23:00,1,\x00,3"), 422, "Line 3, column price must be a number, got '\\x00'."),
    "too long": (b"x" * 1_100_000, 413, "The request is too large: 1 MiB at most."),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_refuses_a_bad_series_in_one_sentence(forecaster: Server, name: str) -> None:
    body, status, sentence = BAD[name]
    answer = asked(forecaster, body)
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"].startswith(sentence)
    assert (
        answer.json()["detail"].endswith(".")
        and len(answer.content) < 300
        and "\n" not in answer.json()["detail"]
    )


RAW: dict[str, tuple[str, bytes, int, str]] = {
    "broken JSON": ("application/json", b'{"rows": [', 400, "The body is not valid JSON"),
    "deep JSON": ("application/json", b"[" * 50_000, 400, "The body is not valid JSON"),
    "deeper JSON": ("application/json", b"[" * 110_000, 413, "The JSON holds too many rows: 100,000 at most; the last 4 are read."),
    "long integers": ("application/json", b'{"rows": [' + b"9" * 9999 + b"]}", 400, "The body is not valid JSON"),
    "NaN": (
        "application/json", json.dumps({"rows": with_row(2, price=float("nan"))}).encode(), 422,
        "Row 2, column price must be a number, got NaN."),
    "infinity": (
        "application/json", json.dumps({"rows": with_row(2, price=float("-inf"))}).encode(), 422,
        "Row 2, column price is too large."),
    "long JSON": ("application/json", b" " * 300_000, 413, "The request is too large: 0.25 MiB at most."),
    "another charset": ("text/csv; charset=latin-1", table(), 415, "The CSV must be UTF-8."),
    "another type": ("text/plain", table(), 415, "Send text/csv, multipart/form-data with CSV files, or application/json"),
    "no type": ("", table(), 415, "Send text/csv"),
    "an empty form": ("multipart/form-data; boundary=x", b"--x--\r\n", 422, "The request holds no series."),
    "a form without end": ("multipart/form-data; boundary=x", b"--x\r\nA: b\r\n\r\n", 400, "The multipart body"),
    "a form with four files": (
        "multipart/form-data; boundary=x", b"--x\r\n\r\n" + b"\r\n--x\r\n\r\n".join([table()] * 4) + b"\r\n--x--\r\n",
        413, "Too many series: a request may hold 3."),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW)
def test_refuses_other_bodies(forecaster: Server, name: str) -> None:
    kind, body, status, sentence = RAW[name]
    answer = httpx.post(f"{forecaster.url}/v1/predict", content=body, headers={"Content-Type": kind})
    assert answer.status_code == status, answer.text
    assert answer.json()["detail"].startswith(sentence) and answer.json()["detail"].endswith(".")


def test_the_other_kind_of_request_is_refused(forecaster: Server, server: Server) -> None:
    assert predict(forecaster, encode(RED)).json()["detail"].startswith("The table: the header ")
    pixels = httpx.post(f"{forecaster.url}/v1/predict", json=[[0, 255], [255, 0]])
    assert pixels.json()["detail"].startswith("JSON must be {")
    assert asked(server, table()).json()["detail"].startswith("Send multipart/form-data with image files")
    assert asked(server, {"rows": rows()}).status_code == 422
