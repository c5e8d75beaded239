"""Pictures and series: a version of one kind takes the place of a version of the other."""

from __future__ import annotations

import threading
from pathlib import Path

import httpx
import mlflow
import mlflow.models
import numpy as np
import pytest
from mlflow.onnx import log_model

from serving.model import load
from serving.pictures import Pictures
from tests.serving import drift, tiny
from tests.serving.browser import CHROMIUM, browser
from tests.serving.conftest import RED, Server, encode, files
from tests.serving.drift import table
from tests.serving.stores import NAME, Store, serving, store, wait_until

__all__ = ["store"]  # a fixture
# MLflow warns about its own type hints when it is imported. The tests check what the server logs.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def both(store: Store) -> tuple[str, str]:
    """A version that takes pictures, and a version of the same model that takes series."""
    mlflow.set_experiment("test")
    values = np.zeros((1, 4, 3), np.float32)
    made = log_model(
        drift.network(),
        name="model",
        signature=mlflow.models.infer_signature(values, np.zeros((1, 3, 2), np.float32)),
        save_as_external_data=False,
        pip_requirements=["onnxruntime"],
        registered_model_name=NAME,
    )
    return "1", str(made.registered_model_version)


def test_a_version_of_another_kind_takes_the_place_of_the_first(
    store: Store, both: tuple[str, str], tmp_path: Path
) -> None:
    picture, series = encode(RED), table()
    answers: list[tuple[str, int, list[str]]] = []
    stop = threading.Event()

    def load(server: Server) -> None:
        with httpx.Client(base_url=server.url, timeout=30) as client:
            while not stop.is_set():
                kinds = {
                    "images": client.post("/v1/predict", files=files(picture)),
                    "series": client.post(
                        "/v1/predict", content=series, headers={"Content-Type": "text/csv"}
                    ),
                }
                for kind, answer in kinds.items():
                    answers.append((kind, answer.status_code, list(answer.json())))

    store.champion(both[0])
    with serving(store, tmp_path) as server:
        threads = [threading.Thread(target=load, args=(server,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for version in (both[1], both[0], both[1]):
            store.champion(version)
            wait_until(server, lambda: httpx.get(f"{server.url}/v1/model").json()["version"] == version)  # noqa: B023
            about = httpx.get(f"{server.url}/v1/model").json()
            assert about["kind"] == ("images" if version == both[0] else "series")
        stop.set()
        for thread in threads:
            thread.join(30)
        assert "Traceback" not in server.log.read_text()
    good = {(kind, *names) for kind, status, names in answers if status == 200}
    assert good == {
        ("images", "model_name", "model_version", "class_names", "predictions", "milliseconds"),
        ("series", "model_name", "model_version", "targets", "predictions", "milliseconds"),
    }
    # Each kind is refused by the other, and nothing else goes wrong.
    assert {status for _, status, _ in answers} == {200, 415, 422}
    assert {names[0] for _, status, names in answers if status != 200} == {"detail"}


def test_the_two_kinds_are_told_apart_by_the_names_of_their_tensors() -> None:
    assert isinstance(load(tiny.network().SerializeToString(), "net", "7", 1).kind, Pictures)
    assert load(tiny.of_tensors().SerializeToString(), "net", "7", 1).kind is None


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)")
def test_an_open_page_follows_to_a_network_of_another_kind(
    store: Store, both: tuple[str, str], tmp_path: Path
) -> None:
    store.champion(both[1])
    with serving(store, tmp_path) as server, browser(tmp_path) as tab:
        tab.open(f"{server.url}/")
        tab.wait("document.querySelector('h1').innerText === 'What comes next?'")
        tab.value(f"document.querySelector('#rows').value = {table().decode()!r}")
        tab.value("document.querySelector('#go').click()")
        tab.wait("!document.querySelector('#outcome').hidden")
        store.champion(both[0])
        wait_until(server, lambda: httpx.get(f"{server.url}/v1/model").json()["version"] == both[0])
        tab.value("document.querySelector('#go').click()")
        tab.wait("document.querySelector('h1').innerText === 'What is in the picture?'")
        assert tab.value("document.querySelector('#series').hidden && !document.querySelector('#try').hidden")
        picture = tmp_path / "red.png"
        picture.write_bytes(encode(RED))
        tab.choose("#file", picture)
        tab.wait("document.querySelector('#bars').innerText.startsWith('red')")
        store.champion(both[1])
        wait_until(server, lambda: httpx.get(f"{server.url}/v1/model").json()["version"] == both[1])
        tab.choose("#file", picture)
        tab.wait("document.querySelector('h1').innerText === 'What comes next?'")
        tab.value("document.querySelector('#go').click()")
        tab.wait("document.querySelector('#forecast-message').innerText.startsWith('load goes from 3')")
