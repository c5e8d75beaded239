"""Which Prefect server a flow reports to that is started as a command."""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import prefect.server.api.server
import pytest
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines import command, server

OWN = "http://127.0.0.1:1/own"


class Own:
    """Stands for the server that a flow starts for itself."""

    api_url = OWN

    def start(self, timeout: float) -> None:
        assert timeout > 0


@pytest.fixture(autouse=True)
def nothing_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    monkeypatch.setattr(prefect.server.api.server, "SubprocessASGIServer", Own)


@contextlib.contextmanager
def answering() -> Iterator[str]:
    """The address of a server that says it is well."""

    class Well(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/api/health" else 404)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Well) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/api"
        finally:
            server.shutdown()
            thread.join()


def used(address: str) -> str | None:
    """The server of a flow where prefect.toml has this address."""
    with temporary_settings({PREFECT_API_URL: address}), command._server():
        return PREFECT_API_URL.value()


def test_the_server_of_prefect_toml_is_used_where_it_runs_and_otherwise_an_own_one() -> None:
    with answering() as address:
        assert used(address) == address
    assert used(address) == OWN


def test_a_server_elsewhere_is_never_replaced_by_an_own_one() -> None:
    assert used("http://prefect.example.invalid:4200/api") == "http://prefect.example.invalid:4200/api"


def test_a_server_in_the_environment_is_never_replaced_by_an_own_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert used("http://127.0.0.1:1/api") == "http://127.0.0.1:1/api"


def test_commands_of_prefect_reach_the_server_that_make_server_starts() -> None:
    root = Path(command.__file__).parent.parent
    assert re.search(r"^server:.*\n\tpython -m pipelines.server$", (root / "Makefile").read_text(), re.M)
    assert f'url = "http://127.0.0.1:{server.PORT}/api"' in (root / "prefect.toml").read_text()
