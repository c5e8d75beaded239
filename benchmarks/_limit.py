"""A memory limit that the kernel enforces on a process and counts its page cache in: a control group.

Only version 1 of control groups, and only for who may make one (root). ``ulimit -v`` is no replacement, because it
limits the address space, in which a mapped file counts as a whole.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_GROUPS = Path("/sys/fs/cgroup/memory")


@dataclass(frozen=True)
class Group:
    """Processes that share a limit."""

    folder: Path

    def command(self, words: Sequence[str]) -> list[str]:
        """A command that runs in the group."""
        enter = 'echo $$ > "$0" && exec "$@"'
        return ["sh", "-c", enter, str(self.folder / "cgroup.procs"), *words]

    def peak(self) -> int:
        """The most memory that was in use at once, with the page cache, in MiB."""
        return int((self.folder / "memory.max_usage_in_bytes").read_text()) >> 20


@contextmanager
def memory_group(limit: int | None) -> Iterator[Group]:
    """A group for the time of the context. ``limit`` is in MiB. Raises OSError where no group can be made."""
    group = Group(_GROUPS / f"benchmark-{os.getpid()}")
    group.folder.mkdir()
    try:
        if limit is not None:
            (group.folder / "memory.limit_in_bytes").write_text(str(limit << 20))
        yield group
    finally:
        group.folder.rmdir()


def forget(path: Path) -> None:
    """Removes a file from the page cache, so that its next reader waits for the disk and is charged for its pages."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def bytes_read() -> int:
    """What this process has had read from disks so far."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["read_bytes"])
