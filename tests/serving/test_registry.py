"""The server on a registry: it follows the alias under load, and keeps the old version when it must."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import mlflow
import mlflow.models
import numpy as np
import onnx
import pytest
from mlflow.onnx import load_model, log_model, save_model

from serving.errors import ModelError
from serving.registry import Registry
from tests.serving.browser import CHROMIUM, browser
from tests.serving.conftest import BLUE, REPOSITORY, Server, encode, files, running
from tests.serving.tiny import network

NAME = "tiny"
REPORT = "<!doctype html><title>Report</title><style>p { color: rgb(1, 2, 3) }</style><p>How it was found</p>"
# MLflow warns of its own type hints while it is imported; what the server logs is looked at in the tests.
pytestmark = pytest.mark.filterwarnings("ignore")


@dataclass(frozen=True)
class Store:
    """A registry for these tests.

    Version 1 is surer of its answers than version 2. Version 3 breaks the contract. Version 4 also has int8.
    """

    uri: str
    client: mlflow.MlflowClient

    def champion(self, version: str) -> None:
        """Moves the alias."""
        self.client.set_registered_model_alias(NAME, "champion", version)

    def report(self, version: str, content: str) -> None:
        """Gives a version a report, as the stage report does."""
        experiment = self.client.get_experiment_by_name("test")
        assert experiment is not None
        run = self.client.create_run(experiment.experiment_id).info.run_id
        self.client.log_text(run, content, "report.html")
        self.client.set_model_version_tag(NAME, version, "run_report", run)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    folder = tmp_path_factory.mktemp("registry")
    uri = f"sqlite:///{folder}/mlflow.db"
    before = mlflow.get_tracking_uri()
    mlflow.set_tracking_uri(uri)
    try:
        mlflow.set_experiment(experiment_id=mlflow.create_experiment("test", (folder / "artifacts").as_uri()))
        with mlflow.start_run():
            for model in (network(), network(sharpness=0.01), network(metadata={"class_names": "broken"})):
                image = np.zeros((1, 8, 8, 3), np.uint8)
                log_model(
                    model,
                    name="model",
                    signature=mlflow.models.infer_signature(image, np.zeros((1, 3), np.float32)),
                    save_as_external_data=False,
                    pip_requirements=["onnxruntime"],
                    registered_model_name=NAME,
                )
            # An int8 network lies beside the float one, in the version's folder.
            save_model(network(), folder / "both")
            int8 = network(sharpness=0.01, metadata={"precision": "int8"})
            onnx.save(int8, folder / "both" / "model.int8.onnx")
            mlflow.log_artifacts(str(folder / "both"), "both")
            mlflow.register_model(mlflow.get_artifact_uri("both"), NAME)
        yield Store(uri, mlflow.MlflowClient(uri))
    finally:
        mlflow.set_tracking_uri(before)


@contextmanager
def serving(store: Store, folder: Path, *options: str, **environment: str) -> Iterator[Server]:
    watched = ("--name", NAME, "--watch-seconds", "0.1", *options)
    with running(folder, *watched, MLFLOW_TRACKING_URI=store.uri, **environment) as server:
        yield server


def wait_for_line(server: Server, line: str) -> None:
    end = time.monotonic() + 30
    while line not in server.log.read_text():
        assert time.monotonic() < end, server.log.read_text()
        time.sleep(0.05)


def ask(client: httpx.Client) -> tuple[int, str, float]:
    """Status, version, and how sure that version is of a blue picture."""
    answer = client.post("/v1/predict", files=files(encode(BLUE)))
    content = answer.json()
    if answer.status_code != 200:
        return answer.status_code, "", 0
    return 200, content["model_version"], content["predictions"][0]["probabilities"][2]


def wait_for(server: Server, version: str) -> None:
    end = time.monotonic() + 30
    while httpx.get(f"{server.url}/v1/model").json()["version"] != version:
        assert time.monotonic() < end, server.log.read_text()
        time.sleep(0.05)


def test_a_new_champion_is_served_without_a_failed_request(store: Store, tmp_path: Path) -> None:
    store.champion("1")
    with serving(store, tmp_path) as server:
        answers: list[tuple[int, str, float]] = []
        stop = threading.Event()

        def load() -> None:
            with httpx.Client(base_url=server.url, timeout=30) as client:
                while not stop.is_set():
                    answers.append(ask(client))

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        for version in ("2", "1", "2"):
            store.champion(version)
            wait_for(server, version)
        stop.set()
        for thread in threads:
            thread.join(30)

        assert len(answers) > 50
        assert {status for status, _, _ in answers} == {200}
        # Each version answers with its own numbers: no answer mixes two.
        sure = {version: {chance for _, name, chance in answers if name == version} for version in ("1", "2")}
        assert min(sure["1"]) > 0.99
        assert min(sure["2"]) > 0.8
        assert max(sure["2"]) < 0.95
        metrics = httpx.get(f"{server.url}/metrics").text
        assert 'msdarts_model_swaps_total{outcome="done"} 3.0' in metrics
        assert 'msdarts_model_info{name="tiny",version="2"} 1.0' in metrics
        assert 'version="1"' not in metrics


def test_a_version_that_does_not_load_leaves_the_old_one(store: Store, tmp_path: Path) -> None:
    store.champion("1")
    with serving(store, tmp_path) as server:
        store.champion("3")
        wait_for_line(server, "still serving version 1: model tiny 3: metadata class_names must be JSON")
        with httpx.Client(base_url=server.url) as client:
            assert ask(client)[:2] == (200, "1")
            assert client.get("/readyz").status_code == 200
            store.champion("2")
            wait_for(server, "2")
            assert ask(client)[:2] == (200, "2")
        assert "Traceback" not in server.log.read_text()


def test_int8_is_served_where_it_is_asked_for_and_nothing_else_in_its_place(
    store: Store, tmp_path: Path
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
    done = started("--name", NAME, "--precision", "int8", uri=store.uri)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"serving: models:/{NAME}/1: has no model.int8.onnx")
    assert "Traceback" not in done.stderr
    store.champion("4")
    with serving(store, tmp_path) as server, httpx.Client(base_url=server.url) as client:
        assert ask(client)[2] > 0.99  # without the option it is the float network


def test_the_report_of_the_served_version_is_shown_as_soon_as_there_is_one(
    store: Store, tmp_path: Path
) -> None:
    store.champion("2")
    with serving(store, tmp_path) as server, httpx.Client(base_url=server.url, timeout=30) as client:

        def wait_until(there: bool) -> None:
            end = time.monotonic() + 30
            while client.get("/v1/model").json()["report"] != there:
                assert time.monotonic() < end, server.log.read_text()
                time.sleep(0.05)

        answer = client.get("/report")
        assert (answer.status_code, answer.json()["detail"]) == (404, "The served model has no report.")
        store.report("2", REPORT)  # the version is served before its report is made
        wait_until(True)
        answer = client.get("/report")
        assert answer.text == REPORT
        assert answer.headers["content-type"].startswith("text/html")
        assert "script-src" not in answer.headers["content-security-policy"]  # and so none, by default-src
        store.champion("1")
        wait_for(server, "1")
        wait_until(False)
        assert client.get("/report").status_code == 404
        # A report that cannot be had is said in a sentence, and everything else goes on.
        store.client.set_model_version_tag(NAME, "1", "run_report", "0" * 32)
        wait_until(True)
        assert client.get("/report").status_code == 503
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
        if key:  # a link cannot send it, so the page fetches the report and saves it
            saved, end = tmp_path / "saved" / "report.html", time.monotonic() + 20
            while not saved.exists() or saved.read_text() != REPORT:
                assert time.monotonic() < end, tab.errors
                time.sleep(0.05)
        else:
            tab.wait("document.title === 'Report' && document.readyState === 'complete'")
            assert tab.value("getComputedStyle(document.querySelector('p')).color") == "rgb(1, 2, 3)"


def test_the_server_and_mlflow_answer_the_same(store: Store, tmp_path: Path) -> None:
    store.champion("1")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    expected = mlflow.pyfunc.load_model(f"models:/{NAME}@champion").predict(pixels)["probabilities"]
    with serving(store, tmp_path) as server:
        answer = httpx.post(f"{server.url}/v1/predict", json=pixels.tolist()).json()
    got = np.array([row["probabilities"] for row in answer["predictions"]], np.float32)
    np.testing.assert_array_equal(got, expected)


@pytest.mark.parametrize(("name", "alias"), [("nobody", "champion"), (NAME, "nothing")])
def test_no_such_model_is_said_in_one_line(
    store: Store, name: str, alias: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    with pytest.raises(ModelError) as error:
        Registry(name, alias, threads=1).current()
    assert str(error.value).startswith(f"models:/{name}@{alias}: ")
    assert "\n" not in str(error.value)


def started(*options: str, uri: str) -> subprocess.CompletedProcess[str]:
    """A server that does not get to listen."""
    return subprocess.run(
        [sys.executable, "-m", "serving", *options],
        cwd=REPOSITORY,
        env={**os.environ, "MLFLOW_TRACKING_URI": uri},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_make_serve_takes_the_name_in_params_and_refuses_one_without_a_champion(
    store: Store, tmp_path: Path
) -> None:
    (tmp_path / "params.yaml").write_text("registry: {name: nobody}\n")
    run = subprocess.run(
        # The environment counts as made: this folder has none, and the command needs none of its own.
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


def test_the_fixture_is_what_was_registered(store: Store) -> None:
    loaded = load_model(f"models:/{NAME}/1")
    assert isinstance(loaded, onnx.ModelProto)
    assert {entry.key for entry in loaded.metadata_props} >= {"class_names", "genotype", "run_id"}
