"""What all tests share: one thread, and where the golden numbers from outside the repository are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

REPOSITORY = Path(__file__).resolve().parent.parent
LONGEST = ("test_readme.py", "test_interrupt.py", "test_devices.py")  # files of minutes

torch.set_num_threads(1)  # sums in one order, and no waiting for busy cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, so that with several processes none ends long after the others."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of conformance numbers and benchmark tables; skips where there is none."""
    folder = Path(os.environ.get("MSDARTS_SHARED", REPOSITORY.parent / "shared"))
    if not (folder / "conformance").is_dir():
        pytest.skip(f"no conformance numbers at {folder}; set MSDARTS_SHARED to the folder that has them")
    return folder
