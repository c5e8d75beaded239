"""A real server that is killed and starts again, on SQLite and on PostgreSQL: no live run is Crashed, and no GPU is lost.

The silence that it tolerates is scaled down from 75 s. Runs and heartbeats are the test's, so that no second is spent on stages;
benchmarks/outage.py does the same with real runs, and with the server away for 60, 120 and 300 s.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.states import Running

from pipelines.nas import nas
from tests.pipelines.conftest import end, free_port, wait_for
from tests.stages.conftest import ROOT

SILENCE = 12.0  # seconds; the watch looks every 5


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The address of an empty database."""
    if request.param == "sqlite":
        yield f"sqlite+aiosqlite:///{tmp_path}/prefect.db"
        return
    # Not below tmp_path, which the user postgres may not enter. Its sockets also need a short path.
    with tempfile.TemporaryDirectory(prefix="msdarts-") as folder, postgresql(Path(folder)) as address:
        yield address


@contextlib.contextmanager
def postgresql(folder: Path) -> Iterator[str]:
    """A PostgreSQL server of its own, on a socket; skips the test where none is installed."""
    programs = [
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
        Path(shutil.which("initdb") or "/").parent,
    ]
    binaries = next((path for path in programs if (path / "initdb").exists()), None)
    if binaries is None:
        pytest.skip("no PostgreSQL on this machine")
    as_user = (
        ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"] if os.geteuid() == 0 else []
    )
    if as_user and (
        shutil.which("setpriv") is None or subprocess.run([*as_user, "true"], check=False).returncode
    ):
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    data, port = folder / "postgresql", free_port()
    data.mkdir()
    if as_user:
        folder.chmod(0o755)
        shutil.chown(data, "postgres")
    subprocess.run(
        [*as_user, binaries / "initdb", "-D", data, "-U", "test", "--auth=trust", "--no-sync"], cwd="/", check=True,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip
    process = subprocess.Popen(
        [*as_user, binaries / "postgres", "-D", data, "-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", data, "-F"],
        cwd="/", stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        psql = [
            *as_user,
            binaries / "psql",
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
            "-U",
            "test",
            "-c",
            "create database prefect",
            "postgres",
        ]
        for _ in range(60):
            if not subprocess.run(psql, cwd="/", check=False, capture_output=True).returncode:
                break
            time.sleep(0.5)
        yield f"postgresql+asyncpg://test@127.0.0.1:{port}/prefect"
    finally:
        process.terminate()
        process.wait()


class Server:
    """A Prefect server that can be killed and started again on the same database."""

    def __init__(self, home: Path, database: str):
        self.home, self.port = home, free_port()
        self.api = f"http://127.0.0.1:{self.port}/api"
        self.process: subprocess.Popen[bytes] | None = None
        self.environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")},
            "PREFECT_HOME": str(home),
            "PREFECT_SERVER_DATABASE_CONNECTION_URL": database,
            "PREFECT_SERVER_SERVICES_REPOSSESSOR_LOOP_SECONDS": "1",
        }

    def start(self) -> None:
        command = [
            sys.executable,
            "-m",
            "pipelines.server",
            "--port",
            str(self.port),
            "--silence",
            str(SILENCE),
        ]
        self.process = subprocess.Popen(command, cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL)
        wait_for(f"{self.api}/health", self.process)

    def kill(self) -> None:
        if self.process is not None:
            end(self.process)


@pytest.fixture
def server(database: str, tmp_path: Path) -> Iterator[Server]:
    started = Server(tmp_path / "home", database)
    started.start()
    try:
        yield started
    finally:
        started.kill()


@pytest.fixture
def client(server: Server) -> Iterator[SyncPrefectClient]:
    # SQLite may be too busy for an answer (503).
    settings = {PREFECT_API_URL: server.api, PREFECT_CLIENT_MAX_RETRIES: 3}
    with temporary_settings(settings), get_client(sync_client=True) as client:  # type: ignore[arg-type]
        yield client


def beat(client: SyncPrefectClient, run: UUID) -> None:
    """Sends what a live run sends every 30 s."""
    resource = {"prefect.resource.id": f"prefect.flow-run.{run}"}
    event = {"id": str(uuid4()), "occurred": datetime.now(UTC).isoformat(), "event": "prefect.flow-run.heartbeat",
             "resource": resource, "payload": {}}  # fmt: skip
    client.request("POST", "/events", json=[event])


def taken(client: SyncPrefectClient) -> bool:
    """Whether another run finds the GPU taken."""
    try:
        client.increment_concurrency_slots_with_lease(["gpu"], 1, "concurrency", 60)
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.LOCKED:
            raise
        return True
    return False


def expire(home: Path, lease: UUID) -> None:
    """Lets a lease end in the past, as if the server had been away for minutes."""
    past = (datetime.now(UTC) - timedelta(minutes=4)).isoformat()
    index = home / "concurrency_leases/expirations.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), str(lease): past}))
    file = home / f"concurrency_leases/{lease}.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "expiration": past}))


def test_an_outage_crashes_no_live_run_and_gives_its_gpu_to_nobody(
    server: Server, client: SyncPrefectClient
) -> None:
    live, dead = (client.create_flow_run(nas, state=Running()).id for _ in range(2))
    beat(client, live)
    beat(client, dead)
    client.upsert_global_concurrency_limit_by_name("gpu", 1)
    answer = client.increment_concurrency_slots_with_lease(["gpu"], 1, "concurrency", 60)
    lease = UUID(answer.json()["lease_id"])
    time.sleep(7)  # the server writes what it hears every 5 s

    server.kill()
    time.sleep(SILENCE)
    expire(server.home, lease)
    server.start()

    began, states = time.monotonic(), set()
    while (passed := time.monotonic() - began) < SILENCE + 15:
        assert taken(client)
        if passed > SILENCE / 2:  # it takes a run a while to find the server again
            beat(client, live)
            client.renew_concurrency_lease(lease, 60)
        state = client.read_flow_run(live).state
        states.add(state and state.name)
        time.sleep(1)
    assert states == {"Running"}
    state = client.read_flow_run(dead).state
    assert state is not None
    assert state.is_crashed()
    assert "nothing was heard of this run for 12 s" in str(state.message)
