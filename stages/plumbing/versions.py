"""``python -m stages.plumbing.versions``: writes versions.yaml from requirements.lock and the locks of tasks.

versions.yaml holds the versions of the packages that compute results. dvc.yaml lists for each stage the packages
that the stage computes with. So an update of torch repeats a search, and an update of pytest repeats nothing.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from stages.plumbing.code import COMPUTING

LOCKS = (Path("requirements.lock"), Path("requirements-circuits.lock"))
FILE = Path("versions.yaml")
NAMES = sorted({*COMPUTING.values(), "onnxscript"})


def locked(text: str) -> dict[str, str]:
    """Name -> version in a lock file, for the packages that compute; all versions if they depend on Python's."""
    found: dict[str, list[str]] = {}
    for name, version in re.findall(r"^([a-z0-9._-]+)==([^ ;\\]+)", text, re.MULTILINE):
        found.setdefault(name, []).append(version)
    return {name: " or ".join(sorted(found[name])) for name in NAMES}


def content(lock: str) -> str:
    """The content of versions.yaml for the text of the lock files."""
    head = "# The packages that compute results, as locked; written by `make lock`. Stages depend on those they import."
    return "\n".join([head, *(f'{name}: "{version}"' for name, version in locked(lock).items())]) + "\n"


def main() -> int:
    FILE.write_text(content("".join(lock.read_text() for lock in LOCKS)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
