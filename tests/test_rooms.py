"""models/ runs where only torch is installed."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import importlib, importlib.util, pkgutil
assert importlib.util.find_spec("numpy") is None, "numpy is not among what torch needs"
import models
for module in pkgutil.walk_packages(models.__path__, "models."):
    importlib.import_module(module.name)

from tests.models.tiny import search, task
found = search("ms-darts", "s5")
task("s5").network(found.genotype, channels=2, cells=3)
print("searched", len(found.history), "epochs")
"""


def needs(name: str, found: dict[str, Distribution]) -> dict[str, Distribution]:
    """The distribution of that name and all that it requires on this machine, itself included."""
    try:
        found[name.lower()] = distribution(name)
    except PackageNotFoundError:  # for another platform
        return found
    for line in found[name.lower()].requires or []:
        requirement = Requirement(line)
        applies = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if applies and requirement.name.lower() not in found:
            needs(requirement.name, found)
    return found


def test_models_import_and_search_with_nothing_but_torch(tmp_path: Path) -> None:
    for dist in needs("torch", {}).values():
        for file in dist.files or []:
            top = file.parts[0]
            if top != ".." and top != "__pycache__" and not (tmp_path / top).exists():
                (tmp_path / top).symlink_to(Path(str(dist.locate_file(top))).resolve())
    done = subprocess.run(
        # -S: without site-packages; what torch needs is linked into a folder of its own.
        [sys.executable, "-S", "-W", "ignore", "-c", PROGRAM],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{tmp_path}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "searched 2 epochs\n"
