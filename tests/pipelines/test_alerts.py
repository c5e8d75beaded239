"""Alerts to a receiver on this machine: what it gets, and what a receiver that is absent, angry or slow costs."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.webhook import Webhook
from pydantic import SecretStr

from pipelines import alerts
from pipelines.nas import nas
from stages.params import AlertsParams
from tests.pipelines.conftest import SMALL, Server, free_port
from tests.stages.conftest import write_params

VARIABLE = "TEST_RECEIVER"
ALL = AlertsParams(block=None, webhook=VARIABLE, on=["bad-input", "failed", "promoted", "waits", "refused"])


class Receiver:
    """A server on loopback that keeps what it is sent."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.status, self.done = 200, threading.Event()
        self.slow = False
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
                self.send_response(receiver.status)
                while receiver.slow and not receiver.done.wait(
                    0.2
                ):  # a header now and then: no silence, and no end
                    self.send_header("X-Wait", "1")
                    self.flush_headers()
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{self.server.server_port}/secret"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    made = Receiver()
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    yield made
    made.done.set()
    made.server.shutdown()
    made.server.server_close()


def told(settings: AlertsParams, kind: alerts.Kind = "failed") -> list[str]:
    """The warnings of telling that a run is in such a state."""
    warnings: list[str] = []
    alerts.tell(settings, kind, "digits-ms-darts", "search: it went wrong", "1234", warnings.append)
    return warnings


def test_a_webhook_gets_the_run_its_state_and_the_message(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, receiver.address)
    assert told(ALL) == []
    assert told(AlertsParams(block=None, webhook=VARIABLE, on=["promoted"])) == []
    assert told(AlertsParams(block=None, webhook=None, on=["failed"])) == []
    (payload,) = receiver.got
    assert payload == {
        "text": "digits-ms-darts: failed: search: it went wrong",
        "run": "digits-ms-darts",
        "state": "failed",
        "message": "search: it went wrong",
        "flow_run": "1234",
    }


def test_a_receiver_that_is_absent_angry_or_slow_costs_a_bounded_time_and_a_warning(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "PATIENCE", 1.5)
    monkeypatch.delenv(VARIABLE, raising=False)
    assert told(ALL) == [f"alerts.webhook ({VARIABLE}) was not told: the variable is not set here; put the address of the"
                         " receiver into it"]  # fmt: skip
    monkeypatch.setenv(VARIABLE, f"http://127.0.0.1:{free_port()}/secret")
    (absent,) = told(ALL)
    assert "refused" in absent and "secret" not in absent
    monkeypatch.setenv(VARIABLE, receiver.address)
    receiver.status = 500
    assert told(ALL) == [f"alerts.webhook ({VARIABLE}) was not told: the receiver answered 500"]
    receiver.slow = True
    started = time.monotonic()
    (slow,) = told(ALL)
    assert "no answer within 1.5 s" in slow and "secret" not in slow
    assert 1 < time.monotonic() - started < 5
    monkeypatch.setenv(VARIABLE, "not an address")
    assert len(told(ALL)) == 1


@pytest.mark.parametrize("kind", ["promoted", "waits", "refused"])
def test_a_decision_of_this_flow_run_is_told_and_an_earlier_one_is_not(
    kind: str, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = {
        "model": "msdarts", "version": 3, "promoted": kind == "promoted", "waits": kind == "waits", "reason": "0.99 against 0.98", "refusals": [],
        "aliases": [], "champion_before": 2, "champion_after": 3, "metric": "accuracy", "test_accuracy": 0.99,
        "latency_ms": 1.0, "size_bytes": 1, "compared": None, "model_sha256": "0", "data_sha256": "0",
        "dvc_lock_sha256": None, "git_commit": "none", "prefect_flow_run": "this one", "runs": {}, "test_sha256": "0",
        "gate": {},
    }  # fmt: skip
    (tmp_path / "artifacts").mkdir()
    (tmp_path / "artifacts/registry.json").write_text(json.dumps(record))
    monkeypatch.setenv(VARIABLE, receiver.address)
    for flow_run in ("this one", "a later one"):
        monkeypatch.setenv("PREFECT__RUNTIME__FLOW_RUN__ID", flow_run)
        alerts.on_decision(tmp_path, "digits-ms-darts", ALL, pytest.fail)
    (payload,) = receiver.got
    assert (payload["state"], payload["message"]) == (kind, "msdarts version 3: 0.99 against 0.98")


def blocks(address: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """The kinds of Prefect blocks that may be named: the name, and what saves it on the server."""
    webhook = Webhook(url=SecretStr(address))
    yield "webhook/team", lambda: webhook.save("team", overwrite=True)
    custom = CustomWebhookNotificationBlock(
        name="team",
        url=address,
        headers=None,
        cookies=None,
        json_data={"message": "{{body}}", "run": "{{subject}}"},
    )
    yield "custom-webhook/team", lambda: custom.save("team", overwrite=True)


def test_blocks_of_prefect_are_told(server: Server, receiver: Receiver) -> None:
    for name, save in blocks(receiver.address):
        save()
        assert told(AlertsParams(block=name, webhook=None, on=["failed"])) == []
        assert receiver.got.pop()["message"] == "search: it went wrong"
    (missing,) = told(AlertsParams(block="webhook/nobody", webhook=None, on=["failed"]))
    assert missing.startswith("alerts.block (webhook/nobody) was not told: ")


def test_a_run_that_only_the_user_can_mend_is_told_by_the_flow(
    server: Server, receiver: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(VARIABLE, receiver.address)
    write_params(tmp_path / "params.yaml", {**SMALL, "alerts.webhook": VARIABLE})
    state = nas({"search.sed": 1}, return_state=True)
    assert state.name == "BadInput"
    (payload,) = receiver.got
    assert payload["state"] == "bad-input"
    assert "search.sed is unknown; did you mean search.seed?" in payload["message"]

    write_params(
        tmp_path / "params.yaml", {**SMALL, "alerts.webhook": f"{VARIABLE}_UNSET", "search.seed": "x"}
    )
    assert nas(return_state=True).name == "BadInput", "whether or not anybody was told"
