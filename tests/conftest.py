"""What all tests share: one thread, quick tests apart from slow ones, and where the outside golden numbers are."""

from __future__ import annotations

import os
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = (
    "1"  # sums in one order and no waiting for busy cores; processes of tests inherit it
)

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
# Files of minutes, the longest first.
LONGEST = ("test_default_run.py", "test_flow.py", "test_devices.py", "test_sweep.py", "test_other_runs.py")
# Fixtures that start processes, servers or real stages: a test that uses one of them is slow.
SLOW_FIXTURES = {
    "clone",
    "finished",
    "new_worker",
    "prepared",
    "run_stage",
    "running",
    "server",
    "started",
    "store",
}

torch.set_num_threads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks tests slow by their fixtures; puts the longest files first, so that no process ends long after the others."""
    for item in items:
        if isinstance(item, pytest.Function) and SLOW_FIXTURES.intersection(item.fixturenames):
            item.add_marker("slow")
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of conformance numbers and benchmark tables; skips where there is none."""
    folder = Path(os.environ.get("MSDARTS_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "conformance").is_dir():
        pytest.skip(f"no conformance numbers at {folder}; set MSDARTS_SHARED to the folder that has them")
    return folder
