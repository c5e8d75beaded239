"""The server as a whole: its key, model, metrics and pages, how it ends, and what it imports."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import httpx

from tests.serving.conftest import RED, REPOSITORY, Server, encode, files, running
from tests.serving.tiny import GENOTYPE


def test_a_server_with_a_key_requires_it(tmp_path: Path, model_file: Path) -> None:
    with running(tmp_path, "--model", str(model_file), MSDARTS_API_KEY="open sesame") as server:

        def status(path: str, **headers: str) -> int:
            if path == "/v1/predict":
                return httpx.post(server.url + path, files=files(encode(RED)), headers=headers).status_code
            return httpx.get(server.url + path, headers=headers).status_code

        for path in ("/v1/predict", "/v1/model", "/metrics"):
            assert status(path) == 401
            assert status(path, **{"X-API-Key": "open"}) == 401
            assert status(path, **{"X-API-Key": "\u00e4".encode()}) == 401  # type: ignore[arg-type]
            assert status(path, Authorization="Basic open sesame") == 401
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
    assert set(model["metadata"]) == {"class_names", "genotype", "image_shape"}
    unknown = "unknown: the model is a file outside a registry and does not say it"
    assert (model["origin"], model["origin_source"]) == ({}, unknown)
    assert f"origin of tiny version {model['version']}: {unknown}\n" in server.log.read_text()
    httpx.get(f"{server.url}/made/up/path")
    metrics = httpx.get(f"{server.url}/metrics").text
    assert f'msdarts_model_info{{name="tiny",version="{model["version"]}"}} 1.0' in metrics
    assert 'msdarts_requests_total{route="other",status="404"}' in metrics
    assert "made" not in metrics


def test_the_pages_name_no_other_address(server: Server) -> None:
    for path in ("/", "/docs", "/page.css", "/page.js", "/pictures.js", "/series.js", "/icon.svg"):
        answer = httpx.get(server.url + path)
        assert answer.status_code == 200
        # Addresses in attributes, strings and url(). The name of an XML namespace is not an address.
        named = set(re.findall(r"[\"'(`]\s*((?:https?:)?//[\w.]+)", answer.text))
        assert named <= {"http://www.w3.org"}
        assert "default-src 'none'" in answer.headers["Content-Security-Policy"]


def test_the_reference_shows_every_path_of_the_api(server: Server) -> None:
    schema = httpx.get(f"{server.url}/openapi.json").json()
    reference = httpx.get(f"{server.url}/docs").text
    shown = re.findall(r"<h2><code>(\w+) (\S+)</code></h2>", reference)
    assert shown == [
        (method.upper(), path) for path, methods in schema["paths"].items() for method in methods
    ]
    assert ("POST", "/v1/predict") in shown


def test_an_interrupt_ends_the_server_quietly(tmp_path: Path, model_file: Path) -> None:
    with running(tmp_path, "--model", str(model_file)) as server:
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.log.read_text()


def test_imports_neither_torch_nor_another_package_of_ours() -> None:
    script = (
        "import sys, json, serving.__main__, mlflow; "
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    output = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    imported = set(json.loads(output.stdout))
    assert "mlflow" in imported
    assert imported.isdisjoint({"torch", "models", "stages", "pipelines", "prefect"})
