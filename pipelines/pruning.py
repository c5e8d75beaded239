"""Removes workspaces that nobody has used for a while.

What a workspace has found stays: its parameters and dvc.lock in its DVC experiment, its results in the DVC cache, and its
runs in MLflow. A workspace with a checkpoint stays, because its run can still be resumed.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from filelock import FileLock, Timeout

from stages.plumbing.runtime import STATE

KEPT_DAYS = 14
_DAY = 24 * 3600.0


def lock_of(project: Path, name: str) -> Path:
    """The lock of a run in the workspace of that name, or in the project's own folder ("project").

    Its time of change says when the last run began or ended.
    """
    return project / STATE / f"{name}.flow.lock"


def used(project: Path, name: str) -> None:
    """Notes that a workspace is in use."""
    os.utime(lock_of(project, name))


def prune(project: Path, workspaces: Path) -> list[str]:
    """Removes the workspaces that were used last more than KEPT_DAYS ago, and returns their names."""
    return [folder.name for folder in sorted(workspaces.glob("*")) if _removed(project, folder)]


def _removed(project: Path, folder: Path) -> bool:
    lock = lock_of(project, folder.name)
    if not lock.exists():  # of a time when locks were elsewhere: the folder's own age counts from now on
        lock.touch()
    if time.time() - lock.stat().st_mtime < KEPT_DAYS * _DAY or any((folder / STATE).glob("*/*/")):
        return False
    try:
        with FileLock(lock, timeout=0):
            command = ["git", "worktree", "remove", "--force", str(folder)]
            done = subprocess.run(command, cwd=project, capture_output=True, check=False)
    except Timeout:  # a run works in it
        return False
    lock.unlink(missing_ok=True)
    return done.returncode == 0
