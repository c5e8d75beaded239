"""What all tests share: one thread, quick tests apart from slow ones, and where the outside golden numbers are."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = (
    "1"  # sums in one order and no waiting for busy cores; processes of tests inherit it
)

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
# Files of minutes, the longest first, then those of half a minute and more.
LONGEST = (
    "test_flow.py",
    "test_default_run.py",
    "test_other_runs.py",
    "test_sweep.py",
    "test_sweep_latency.py",
    "test_devices.py",
    "test_interrupt.py",
    "test_adding_a_task.py",
    "test_contract.py",
    "test_export_identity.py",
    "test_starting.py",
    "test_chain.py",
    "test_distributed.py",
    "test_stability.py",
)
# What `make quick` leaves out: tests that start processes, servers or real stages, or train for seconds. They are known by a
# fixture that does so, or by their file; `make quick` fails a test of more than 30 seconds that is not among these.
SLOW_FIXTURES = {"clone", "finished", "forecaster", "prepared", "run_stage", "server", "store", "tab"}
SLOW_FILES = (
    "tests/benchmarks/test_bench.py",
    "tests/models/test_distributed.py",
    "tests/models/test_golden.py",
    "tests/models/test_precision.py",
    "tests/models/test_resume.py",
    "tests/models/sequences/test_golden.py",
    "tests/models/sequences/test_growth_resume.py",
    "tests/pipelines/",
    "tests/readme/test_default_run.py",
    "tests/readme/test_other_runs.py",
    "tests/serving/test_browser.py",
    "tests/serving/test_fuzz.py",
    "tests/serving/test_registry.py",
    "tests/serving/test_server.py",
    "tests/stages/test_exit_status.py",
    "tests/stages/test_latency_graph.py",
    "tests/stages/test_place.py",
    "tests/stages/test_tracking.py",
    "tests/tasks/test_adding_a_task.py",
    "tests/test_rooms.py",
    "tests/zoo/test_scale.py",
    "tests/test_starting.py",
)

torch.set_num_threads(1)

# As at a terminal, also for the processes that tests start: a shell starts ``make test &`` with SIGINT ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _handlers() -> dict[str, object]:
    return {number.name: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}


AT_START = _handlers()


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """Fails a test that leaves SIGINT or SIGTERM handled otherwise, because later tests and their processes inherit it."""
    yield
    left = _handlers()
    for name, handler in AT_START.items():
        signal.signal(signal.Signals[name], handler)  # pyright: ignore[reportArgumentType]
    assert left == AT_START


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests slow by their fixtures; puts the longest files first, so that no process ends long after the others."""
    for item in items:
        in_slow_file = item.path.relative_to(REPOSITORY).as_posix().startswith(SLOW_FILES)
        if in_slow_file or SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("slow")
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of conformance numbers and benchmark tables; skips where there is none."""
    folder = Path(os.environ.get("MSDARTS_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "conformance").is_dir():
        pytest.skip(f"no conformance numbers at {folder}; set MSDARTS_SHARED to the folder that has them")
    return folder
