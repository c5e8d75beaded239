"""The lease of a GPU: kept while the server is away, given up when the server has given it to another run."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES

from pipelines import gpu, leases
from stages.errors import MachineError, UserError


class Server:
    """A server with one slot; it is away, or has forgotten a lease, when the test says so."""

    def __init__(self, limits: tuple[str, ...] = ("gpu",)):
        self.limits, self.away, self.holder = limits, False, None
        self.renewals = 0
        self.retries: set[int] = (
            set()
        )  # how often Prefect's client would have repeated the requests by itself

    def _answer(self) -> None:
        self.retries.add(PREFECT_CLIENT_MAX_RETRIES.value())
        if self.away:
            raise httpx.ConnectError("connection refused")

    def increment_concurrency_slots_with_lease(self, names: list[str], *_: Any) -> Any:
        self._answer()
        if self.holder is not None:
            raise error(423)
        known = [name for name in names if name in self.limits]
        lease = uuid4()
        self.holder = lease if known else None
        return SimpleNamespace(json=lambda: {"lease_id": str(lease), "limits": known})

    def renew_concurrency_lease(self, lease: UUID, _: float) -> None:
        self._answer()
        self.renewals += 1
        if self.holder != lease:
            raise error(410)

    def release_concurrency_slots_with_lease(self, lease: UUID) -> None:
        self._answer()
        if self.holder == lease:
            self.holder = None


def error(status: int) -> httpx.HTTPStatusError:
    request = httpx.Request("POST", "http://server")
    return httpx.HTTPStatusError("no", request=request, response=httpx.Response(status, request=request))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setattr(gpu, "RENEWAL", 0.01)
    monkeypatch.setattr(gpu, "PATIENCE", 0.01)
    return Server()


def lease_of(server: Server, limit: str = "gpu") -> gpu.Lease:
    return gpu.Lease(server, limit)  # type: ignore[arg-type]


def renewed(server: Server, times: int = 3) -> None:
    """Waits until the lease has been renewed some times more."""
    wanted = server.renewals + times
    for _ in range(1000):
        if server.renewals >= wanted:
            return
        time.sleep(0.01)
    pytest.fail("nobody renews the lease")


def test_a_lease_outlives_any_absence_of_the_server(server: Server) -> None:
    with lease_of(server).held() as lease:
        renewed(server)
        server.away = True
        time.sleep(0.2)  # twenty renewals fail
        lease.check()
        server.away = False
        renewed(server)
        lease.check()
        assert server.holder == lease.id
    assert server.holder is None


def test_prefects_client_repeats_no_request_of_a_lease(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would wait up to 40 s between two attempts and a minute for each answer, and the server waits for 75 s only."""
    asked: dict[str, Any] = {}

    @contextlib.contextmanager
    def get_client(**options: Any) -> Iterator[Server]:
        asked.update(options)
        yield server

    monkeypatch.setattr(gpu, "get_client", get_client)
    with gpu.held("gpu"):
        renewed(server)  # in a thread of its own, to which settings do not come by themselves
    assert server.retries == {0}
    assert asked["httpx_settings"]["timeout"] <= leases.PATIENCE / 5


def test_a_slot_that_could_not_be_returned_is_used_by_the_next_stage(server: Server) -> None:
    with lease_of(server).held() as first:
        server.away = True
    assert server.holder == first.id  # the server knows of no end
    server.away = False
    with lease_of(server).held() as second:
        assert server.holder == second.id == first.id
    assert server.holder is None
    with lease_of(server).held() as third:
        assert third.id != first.id


def test_a_run_that_comes_back_takes_its_slot_again_if_nobody_else_has_it(server: Server) -> None:
    with lease_of(server).held() as lease:
        server.holder = None  # the server was away from this run only, and the lease has expired
        renewed(server)
        lease.check()
        assert server.holder == lease.id is not None


def test_a_run_whose_gpu_was_given_to_another_run_ends_its_stage(server: Server) -> None:
    with lease_of(server).held() as lease:
        other = server.holder = uuid4()
        for _ in range(1000):
            if lease.id is None:
                break
            time.sleep(0.01)
        with pytest.raises(
            MachineError, match="another run was given gpu while this one could not reach the server"
        ):
            lease.check()
    assert server.holder == other  # which nobody took from it


def test_an_unknown_limit_is_the_users_mistake_and_a_server_that_is_away_is_not(server: Server) -> None:
    with pytest.raises(UserError, match="'gup', but the Prefect server has no limit of that name"):
        lease_of(server, "gup").take()
    server.away = True
    with pytest.raises(httpx.ConnectError):
        lease_of(server).take()


def test_the_server_takes_no_lease_before_it_has_listened_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1000.0
    monkeypatch.setattr(leases, "time", SimpleNamespace(monotonic=lambda: now))
    monkeypatch.setattr(leases, "_ATTENTION", leases._Attention())
    storage = leases.ConcurrencyLeaseStorage(tmp_path)
    old = asyncio.run(storage.create_lease([uuid4()], timedelta(seconds=-60)))

    def expired() -> list[UUID]:
        return asyncio.run(storage.read_expired_lease_ids())

    for _ in range(5):  # at its start, every 15 s
        assert expired() == []
        now += 15
    assert expired() == [old.id]
    now += leases.GAP + 1  # it was stopped, or its machine was
    assert expired() == []
    now += leases.PATIENCE - leases.GAP + 1
    assert expired() == []
    now += leases.GAP - 1
    assert expired() == [old.id]
