"""The server as a whole: its key, its pages, its metrics, its end, its imports."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.serving.conftest import (
    RED,
    REPOSITORY,
    Server,
    encode,
    files,
    running,
)
from tests.serving.tiny import GENOTYPE


def test_the_key(tmp_path: Path, model_file: Path) -> None:
    with running(tmp_path, "--model", str(model_file), MSDARTS_API_KEY="open sesame") as server:

        def status(path: str, **headers: str) -> int:
            if path == "/v1/predict":
                return httpx.post(server.url + path, files=files(encode(RED)), headers=headers).status_code
            return httpx.get(server.url + path, headers=headers).status_code

        for path in ("/v1/predict", "/v1/model", "/metrics"):
            assert status(path) == 401
            assert status(path, **{"X-API-Key": "open"}) == 401
            assert status(path, **{"X-API-Key": "\u00e4".encode()}) == 401  # type: ignore[arg-type]
            assert status(path, Authorization="Basic abc") == 401
            assert status(path, **{"X-API-Key": "open sesame"}) == 200
            assert status(path, Authorization="Bearer open sesame") == 200
        for path in ("/", "/healthz", "/readyz", "/docs", "/openapi.json"):
            assert status(path) == 200
        assert "sesame" not in server.log.read_text()


def test_model_and_metrics(server: Server) -> None:
    model = httpx.get(f"{server.url}/v1/model").json()
    assert model["image_shape"] == [8, 8, 3]
    assert model["genotype"] == GENOTYPE
    assert set(model["cells"]) == {"normal", "reduce"}
    httpx.get(f"{server.url}/made/up/path")
    metrics = httpx.get(f"{server.url}/metrics").text
    assert f'msdarts_model_info{{name="tiny",version="{model["version"]}"}} 1.0' in metrics
    assert 'msdarts_requests_total{route="other",status="404"}' in metrics
    assert "made" not in metrics


def test_the_pages_name_no_other_address(server: Server) -> None:
    for path in ("/", "/docs", "/page.css", "/page.js", "/icon.svg"):
        answer = httpx.get(server.url + path)
        assert answer.status_code == 200
        outside = set(re.findall(r"(?:https?:)?//[\w.]+", answer.text)) - {
            "http://www.w3.org",
            "http://127.0.0.1",
        }
        assert not {address for address in outside if address.startswith("http")}, outside
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
    schema = httpx.get(f"{server.url}/openapi.json").json()
    for path in schema["paths"]:
        assert path in httpx.get(f"{server.url}/docs").text


def test_an_interrupt_ends_it_quietly(tmp_path: Path, model_file: Path) -> None:
    with running(tmp_path, "--model", str(model_file)) as server:
        server.process.send_signal(signal.SIGINT)
        server.process.wait(20)
        assert "Traceback" not in server.log.read_text()


def test_imports_neither_torch_nor_another_room() -> None:
    script = (
        "import sys, json, serving.__main__, mlflow; "
        "print(json.dumps([name for name in sys.modules if name.partition('.')[0] in "
        "('torch', 'models', 'stages', 'pipelines', 'prefect')]))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    assert json.loads(output.stdout) == []
