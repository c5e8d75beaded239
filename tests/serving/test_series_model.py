"""Networks that forecast: the contract of their files, what may be known of them, and how their requests share the server."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import onnx
import pytest

from serving.errors import Busy, ModelError, RequestError
from serving.forecasts import HERE, LARGE_WAITING, SMALL, SeriesReader
from serving.known import NOTHING
from serving.model import load, read_file
from serving.series import Series
from serving.settings import read_settings
from serving.tables import Columns, read_tables
from tests.serving import drift, tiny
from tests.serving.conftest import running
from tests.serving.drift import rows, table
from tests.serving.test_load import batches


def said(**changes: Any) -> bytes:
    """A network whose metadata say something else about its series; a change to ... leaves an entry out."""
    model = drift.network()
    entries = {entry.key: entry for entry in model.metadata_props}
    about = {**json.loads(entries["series"].value), **changes}
    entries["series"].value = json.dumps({key: value for key, value in about.items() if value is not ...})
    return model.SerializeToString()


def endless() -> bytes:
    model = drift.network()
    model.graph.node[-1].output[0] = "level2"
    model.graph.node.append(onnx.helper.make_node("Div", ["level2", "level2"], ["forecast"]))  # 0 / 0
    return model.SerializeToString()


def renamed() -> bytes:
    model = drift.network()
    model.graph.node[-1].output[0] = model.graph.output[0].name = "probabilities"
    return model.SerializeToString()


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (said(targets=[]), "metadata series.targets: List should have at least 1 item"),
        (said(targets=["load", "load"]), "metadata series names the column 'load' twice"),
        (said(covariates=["time"]), "metadata series names the column 'time' twice"),
        (said(covariates=...), "metadata series.covariates: Field required"),
        (said(colour="red"), "metadata series.colour: Extra inputs are not permitted"),
        (said(step={"unit": "days", "count": 1}), "metadata series.step.unit: Input should be 'seconds' or 'months'"),
        (said(step={"unit": "months", "count": 0}), "metadata series.step.count: Input should be greater than or equal"),
        (said(zone="Europe/Nowhere"), "no time zone is named 'Europe/Nowhere', or tzdata is not installed"),
        (said(zone="../../etc/passwd"), "no time zone is named '../../etc/passwd'"),
        (said(zone="Europe"), "no time zone is named 'Europe'"),
        (said(lookback=5), "input must be series, float32 (batch, 5, 3) with only batch dynamic, got [('series'"),
        (said(covariates=[]), "input must be series, float32 (batch, 4, 2)"),
        (said(horizon=2), "does not answer two series of zeros with forecasts, got shape (2, 3, 2)"),
        (endless(), "does not answer two series of zeros with forecasts"),
        (renamed(), "output must be probabilities"),
        (drift.network(metadata={"series": "{"}).SerializeToString(), "metadata series must be JSON"),
        (drift.network(metadata={"series": "null"}).SerializeToString(), "metadata series: Input should be"),
    ],
)  # fmt: skip
def test_a_network_that_breaks_the_contract_is_refused_in_one_line(content: bytes, part: str) -> None:
    with pytest.raises(ModelError) as error:
        load(content, "net", "7", 1)
    assert str(error.value).startswith("model net 7: ") and part in str(error.value)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def test_the_file_says_what_it_takes() -> None:
    model = load(said(zone="Europe/Berlin"), "net", "7", 1)
    assert isinstance(model.kind, Series)
    assert (model.kind.variables, model.kind.lookback, model.kind.horizon) == (drift.NAMES, 4, 3)
    assert model.kind.described()["series"]["zone"] == "Europe/Berlin"
    values = np.array([drift.VALUES] * 2, np.float32)
    np.testing.assert_allclose(model.predict(values)[1], drift.forecast(values[1], 2, 3), rtol=1e-6)


EXAMPLE: dict[str, Any] = {
    "time": drift.TIMES,
    "columns": {name: [row[number] for row in drift.VALUES] for number, name in enumerate(drift.NAMES)},
}
TRUTH: dict[str, Any] = {"load": [1, 2, 3], "price": [1, 2, 3]}


def test_a_series_to_try_is_told_with_what_came_after_it(tmp_path: Path) -> None:
    model = drift.write(tmp_path / "drift.onnx")
    drift.write_known(model, example=EXAMPLE, truth=TRUTH)
    with running(tmp_path, "--model", str(model)) as server:
        known = httpx.get(f"{server.url}/v1/known").json()
    assert (known["truth"], known["pictures"]) == (TRUTH, [])
    assert known["example"] == {"time": list(drift.TIMES), "columns": EXAMPLE["columns"]}
    drift.write_known(model, example={"columns": EXAMPLE["columns"]})
    assert read_file(model, 1).known.example is not None


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (
            {"example": {**EXAMPLE, "columns": {}}},
            "its example must have 4 numbers for each of load, price, wind",
        ),
        (
            {"example": {**EXAMPLE, "columns": {**EXAMPLE["columns"], "wind": [1] * 5}}},
            "its example must have 4 numbers",
        ),
        (
            {"example": {**EXAMPLE, "columns": {**EXAMPLE["columns"], "wind": [1, 2, 3, "x"]}}},
            "example.columns.wind.3",
        ),
        ({"example": {**EXAMPLE, "time": drift.TIMES[:3]}}, "its example must have 4 times"),
        (
            {"example": {**EXAMPLE, "time": drift.TIMES[::-1]}},
            "time 2 of its example, 2026-03-02T00:00, should be",
        ),
        (
            {"example": EXAMPLE, "truth": {"load": [1, 2, 3]}},
            "its truth must have 3 numbers for each of load, price",
        ),
        ({"truth": TRUTH}, "it has a truth without an example"),
        (
            {"pictures": [{"class_name": "a", "media_type": "image/png", "content": ""}]},
            "it is about pictures",
        ),
    ],
)
def test_an_example_that_does_not_fit_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, content: dict[str, Any], reason: str
) -> None:
    model = drift.write(tmp_path / "drift.onnx")
    drift.write_known(model, **content)
    with caplog.at_level(logging.WARNING):
        assert read_file(model, 1).known == NOTHING
    assert reason in caplog.text and "\n" not in caplog.records[-1].getMessage()
    pictures = tiny.write(tmp_path / "tiny.onnx")
    drift.write_known(pictures, example=EXAMPLE)
    assert read_file(pictures, 1).known == NOTHING


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (b"," * 1_900_000, "The table has the column '' twice."),
        (b",".join(b"%d" % n for n in range(270_000)), "The table lacks the column 'c0'."),
        (b",".join(b"c%d" % n for n in range(250_000)), "The table has the unknown column 'c2000'"),
    ],
    ids=["commas", "numbers", "names"],
)
def test_a_header_of_a_great_many_columns_is_soon_refused(header: bytes, sentence: str) -> None:
    columns = Columns(tuple(f"c{number}" for number in range(2000)), "time", 1)
    start = time.process_time()
    with pytest.raises(RequestError) as error:
        read_tables("text/csv", header + b"\n1", columns, 1)
    assert (
        str(error.value).startswith(sentence) and time.process_time() - start < 2
    )  # 0.1 s; in squares, an hour


def test_a_long_answer_is_written_in_pieces_or_refused(tmp_path: Path) -> None:
    model = drift.write(
        tmp_path / "long.onnx", targets=[f"t{n}" for n in range(99)], covariates=[], horizon=500
    )
    row = {f"t{number}": number / 3 for number in range(99)}
    body = {"rows": [{"time": time, **row} for time in drift.TIMES]}
    with running(tmp_path, "--model", str(model), "--max-body-mib", "1") as server:
        (prediction,) = httpx.post(f"{server.url}/v1/predict?view=true", json=body).json()["predictions"]
        got = np.array(list(prediction["columns"].values()), np.float32)
        np.testing.assert_array_equal(got, np.tile(np.array([*row.values()], np.float32)[:, None], 500))
        assert len(prediction["time"]) == 500 and prediction["time"][-1] == "2026-03-22T21:00"
        two = httpx.post(f"{server.url}/v1/predict", json={"series": [body["rows"]] * 2})
    assert (two.status_code, two.json()["detail"]) == (413, "The answer is too large; it may have 1 MiB.")


def test_series_that_arrive_together_share_a_batch(tmp_path: Path) -> None:
    slow = drift.write(tmp_path / "slow.onnx", repeats=40)  # the others arrive while it answers the first
    bodies = [table([{**row, "load": number} for row in rows()]) for number in range(12)]
    with running(tmp_path, "--model", str(slow)) as server:
        before = batches(server)
        connections = [http.client.HTTPConnection("127.0.0.1", server.port, timeout=20) for _ in bodies]
        for connection, body in zip(connections, bodies, strict=True):
            connection.putrequest("POST", "/v1/predict")
            connection.putheader("Content-Type", "text/csv")
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body[:-1])
        for connection in connections:  # completes all requests at nearly the same time
            connection.send(b"\n")
        answers = [json.load(connection.getresponse()) for connection in connections]
        got = [answer["predictions"][0]["columns"]["load"] for answer in answers]
        assert got == [[number] * 3 for number in range(12)]
        count, series = np.subtract(batches(server), before)
        assert series == 12 and count <= 4
        for connection in connections:
            connection.close()


def test_a_full_queue_answers_503_with_retry_after(tmp_path: Path) -> None:
    slow = drift.write(tmp_path / "slow.onnx", repeats=60)
    limits = ("--queue-size", "2", "--queue-seconds", "0.05", "--max-batch", "1")
    with running(tmp_path, "--model", str(slow), *limits) as server, ThreadPoolExecutor(16) as pool:
        answers = list(
            pool.map(
                lambda _: httpx.post(f"{server.url}/v1/predict", json={"rows": rows()}, timeout=30), range(16)
            )
        )
    refused = [answer for answer in answers if answer.status_code != 200]
    assert 0 < len(refused) < 16
    assert {(answer.status_code, answer.headers["Retry-After"]) for answer in refused} == {(503, "1")}


def test_a_body_is_read_where_it_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    kind = load(drift.network().SerializeToString(), "net", "7", 1).kind
    assert isinstance(kind, Series)
    threads: list[str] = []
    read = SeriesReader._read
    free = threading.Event()

    def watched(*arguments: Any) -> Any:
        threads.append(threading.current_thread().name.rpartition("_")[0])
        if threads[-1] == "read-large":
            assert free.wait(20)
        return read(*arguments)

    monkeypatch.setattr(SeriesReader, "_read", watched)
    lengths = (0, HERE, SMALL)
    bodies = [bytearray(b"a" * length + b"\n") for length in lengths]
    good = [bytearray(table(rows() * (length // 100 + 1))) for length in lengths]
    assert [len(body) > length for body, length in zip(good, lengths, strict=True)] == [True] * 3

    async def story() -> None:
        with SeriesReader(read_settings({}, None)) as reader:
            counts = [reader.count("text/csv", body) for body in bodies]
            assert counts == [None, None, 1]
            assert reader.count("application/json", bodies[2]) == reader.most == 32
            assert reader.count("multipart/form-data; boundary=x", bytearray(b"--x" * 9)) == 8
            asked = [asyncio.create_task(reader.read(kind, "text/csv", body)) for body in good]
            asked += [
                asyncio.create_task(reader.read(kind, "text/csv", good[2])) for _ in range(LARGE_WAITING - 1)
            ]
            await asyncio.sleep(0.05)
            with pytest.raises(Busy):
                await reader.read(kind, "text/csv", good[2])
            free.set()
            for question in await asyncio.gather(*asked):
                np.testing.assert_array_equal(question.inputs, np.array([drift.VALUES], np.float32))

    monkeypatch.setattr("serving.forecasts._going_on", lambda kind, table: None)  # the times repeat
    asyncio.run(story())
    assert threads[:3] == ["", "read", "read-large"] and set(threads[3:]) == {"read-large"}
