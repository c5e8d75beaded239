"""The server on a registry: it follows the alias under load, and keeps the old version if the new one fails."""

from __future__ import annotations

import os
import re
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import mlflow
import mlflow.models
import numpy as np
import pytest

from serving.__main__ import main
from serving.errors import ModelError
from serving.registry import Registry
from tests.serving.browser import CHROMIUM, browser
from tests.serving.conftest import REPOSITORY, Server
from tests.serving.stores import NAME, Store, ask, serving, store, wait_until

__all__ = ["store"]  # a fixture

REPORT = "<!doctype html><title>Report</title><style>p { color: rgb(1, 2, 3) }</style><p>How it was found</p>"
# MLflow warns about its own type hints when it is imported. The tests check what the server logs.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def watching(store: Store, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the champion, which most tests share; each of them first sets the champion it needs."""
    store.champion("1")
    with serving(store, tmp_path_factory.mktemp("watching")) as server:
        yield server


def wait_for_line(server: Server, line: str) -> None:
    wait_until(server, lambda: line in server.log.read_text())


def serve_version(store: Store, server: Server, version: str) -> None:
    """Makes a version the champion and waits until it is served."""
    store.champion(version)
    wait_until(server, lambda: httpx.get(f"{server.url}/v1/model").json()["version"] == version)


def swaps(server: Server) -> float:
    found = re.search(
        r'^msdarts_model_swaps_total{outcome="done"} (\S+)', httpx.get(f"{server.url}/metrics").text, re.M
    )
    return float(found[1]) if found else 0


def test_a_new_champion_is_served_without_a_failed_request(store: Store, watching: Server) -> None:
    serve_version(store, watching, "1")
    swaps_before = swaps(watching)
    answers: list[tuple[int, str, float]] = []
    stop = threading.Event()

    def load() -> None:
        with httpx.Client(base_url=watching.url, timeout=30) as client:
            while not stop.is_set():
                answers.append(ask(client))

    threads = [threading.Thread(target=load) for _ in range(8)]
    for thread in threads:
        thread.start()
    for version in ("2", "1", "2"):
        serve_version(store, watching, version)
    stop.set()
    for thread in threads:
        thread.join(30)

    assert len(answers) > 50
    assert {status for status, _, _ in answers} == {200}
    # Each version answers with its own numbers, so no answer mixes two versions.
    sure = {version: {chance for _, name, chance in answers if name == version} for version in ("1", "2")}
    assert min(sure["1"]) > 0.99
    assert min(sure["2"]) > 0.8
    assert max(sure["2"]) < 0.95
    assert swaps(watching) == swaps_before + 3
    metrics = httpx.get(f"{watching.url}/metrics").text
    assert 'msdarts_model_info{name="tiny",version="2"} 1.0' in metrics
    assert 'version="1"' not in metrics


def test_a_version_that_does_not_load_leaves_the_old_one_served(store: Store, watching: Server) -> None:
    serve_version(store, watching, "1")
    store.champion("3")
    wait_for_line(watching, "still serving version 1: model tiny 3: metadata class_names must be JSON")
    with httpx.Client(base_url=watching.url) as client:
        assert ask(client)[:2] == (200, "1")
        assert client.get("/readyz").status_code == 200
        serve_version(store, watching, "2")
        assert ask(client)[:2] == (200, "2")
    assert "Traceback" not in watching.log.read_text()


def test_int8_is_served_on_request_and_never_replaced_by_float(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store.champion("4")
    with (
        serving(store, tmp_path, "--precision", "int8") as server,
        httpx.Client(base_url=server.url) as client,
    ):
        assert client.get("/v1/model").json()["precision"] == "int8"
        status, version, sure = ask(client)
        assert (status, version) == (200, "4")
        assert 0.8 < sure < 0.95  # the float network of this version is surer
        store.champion("1")
        wait_for_line(server, f"still serving version 4: models:/{NAME}/1: has no model.int8.onnx; set")
        assert ask(client) == (200, "4", sure)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    assert main(["--name", NAME, "--precision", "int8"]) == 2
    error = capsys.readouterr().err
    assert error.splitlines()[-1].startswith(f"serving: models:/{NAME}/1: has no model.int8.onnx")
    assert "Traceback" not in error


def test_the_tags_of_the_served_version_say_where_it_comes_from(store: Store, watching: Server) -> None:
    origin = {
        "git_commit": "a" * 40,
        "data_sha256": "b" * 64,
        "run_export": "c" * 32,
        "run_retrain": "d" * 32,
    }
    for tag, value in {**origin, "run_report": "e" * 32, "settings": "{}"}.items():
        store.client.set_model_version_tag(NAME, "4", tag, value)
    for version, known, source in (
        ("2", {}, f"unknown: models:/{NAME}/2 has no tags that say it"),
        ("4", origin, f"the tags of models:/{NAME}/4"),
    ):
        serve_version(store, watching, version)
        model = httpx.get(f"{watching.url}/v1/model").json()
        assert (model["origin"], model["origin_source"]) == (known, source)
    store.client.delete_model_version_tag(NAME, "4", "run_report")


def test_float_is_served_by_default(store: Store, watching: Server) -> None:
    serve_version(store, watching, "4")
    with httpx.Client(base_url=watching.url) as client:
        assert client.get("/v1/model").json()["precision"] == "float32"
        assert ask(client)[2] > 0.99


def test_the_report_of_the_served_version_is_shown_as_soon_as_it_exists(
    store: Store, watching: Server
) -> None:
    def wait_for_report(exists: bool) -> None:
        wait_until(watching, lambda: client.get("/v1/model").json()["report"] == exists)

    with httpx.Client(base_url=watching.url, timeout=30) as client:
        serve_version(store, watching, "2")
        answer = client.get("/report")
        assert (answer.status_code, answer.json()["detail"]) == (404, "The served model has no report.")
        store.report("2", REPORT)  # the version is served before its report is made
        wait_for_report(True)
        answer = client.get("/report")
        assert answer.text == REPORT
        assert answer.headers["content-type"].startswith("text/html")
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "script-src" not in policy  # so default-src forbids scripts
        serve_version(store, watching, "1")
        wait_for_report(False)
        assert client.get("/report").status_code == 404
        # A report that cannot be fetched is reported in one sentence, and everything else goes on.
        store.client.set_model_version_tag(NAME, "1", "run_report", "0" * 32)
        wait_for_report(True)
        answer = client.get("/report")
        assert answer.status_code == 503
        assert answer.json()["detail"] == "The report cannot be fetched from the registry; try again later."
        assert ask(client)[:2] == (200, "1")
        store.client.delete_model_version_tag(NAME, "1", "run_report")


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)")
@pytest.mark.parametrize("key", ["", "sesame"])
def test_the_page_leads_to_the_report(store: Store, tmp_path: Path, key: str) -> None:
    store.champion("2")
    store.report("2", REPORT)
    environment = {"MSDARTS_API_KEY": key} if key else {}
    with serving(store, tmp_path, **environment) as server, browser(tmp_path) as tab:
        if key:
            assert httpx.get(f"{server.url}/report").status_code == 401
            tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path / "saved"))
            tab.open(f"{server.url}/")
            tab.wait("!document.querySelector('#key-form').hidden")
            tab.type(key)
            tab.press("Enter", 13)
        else:
            tab.open(f"{server.url}/")
        tab.wait("!document.querySelector('#report').hidden")
        tab.value("document.querySelector('#report a').click()")
        if key:  # a link cannot send the key, so the page fetches the report and saves it
            saved, end = tmp_path / "saved" / "report.html", time.monotonic() + 20
            while not saved.exists() or saved.read_text() != REPORT:
                assert time.monotonic() < end, tab.errors
                time.sleep(0.05)
        else:
            tab.wait("document.title === 'Report' && document.readyState === 'complete'")
            assert tab.value("getComputedStyle(document.querySelector('p')).color") == "rgb(1, 2, 3)"


def test_the_server_and_mlflow_answer_the_same(store: Store, watching: Server) -> None:
    serve_version(store, watching, "1")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    expected = mlflow.pyfunc.load_model(f"models:/{NAME}@champion").predict(pixels)["probabilities"]
    answer = httpx.post(f"{watching.url}/v1/predict", json=pixels.tolist()).json()
    got = np.array([row["probabilities"] for row in answer["predictions"]], np.float32)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(
    ("name", "alias", "reason"),
    [
        ("nobody", "champion", "Registered Model with name=nobody not found"),
        (NAME, "nothing", "Registered model alias nothing not found."),
    ],
)
def test_an_unknown_name_or_alias_is_one_line(
    store: Store, name: str, alias: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    with pytest.raises(ModelError) as error:
        Registry(name, alias, threads=1).current()
    assert str(error.value) == f"models:/{name}@{alias}: {reason}"


def test_make_serve_takes_the_name_in_params_and_refuses_one_without_a_champion(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text("registry: {name: nobody}\n")
    run = subprocess.run(
        # This folder has no environment; --old-file keeps make from building one.
        ["make", "--file", REPOSITORY / "Makefile", "--old-file", ".venv/ready", "serve", "ARGS=--port 0"],
        cwd=tmp_path,
        env={**os.environ, "MLFLOW_TRACKING_URI": store.uri, "PYTHONPATH": str(REPOSITORY), "LC_ALL": "C"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    *_, sentence, end = run.stderr.splitlines()
    assert sentence.startswith("serving: models:/nobody@champion: ")
    assert end.endswith("serve] Error 2")
    assert "Traceback" not in run.stderr
