"""models/ runs where only torch is installed."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

PROGRAM = """
import importlib, pkgutil, sys
from importlib.abc import MetaPathFinder

FORBIDDEN = set({forbidden!r})

class Refuse(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in FORBIDDEN:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
        return None

sys.meta_path.insert(0, Refuse())
import models
for module in pkgutil.iter_modules(models.__path__):
    importlib.import_module(f"models.{{module.name}}")

from tests.models.tiny import STRATEGIES, config, loaders, task
from models.search import search
tiny = task("s5")
found = search(tiny, STRATEGIES["ms-darts"](tiny.space, 2), loaders(), config("s5"))
network = tiny.network(found.genotype, channels=2, cells=3)
print("searched", len(found.history), "epochs")
"""


def test_models_import_and_search_with_nothing_but_torch() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        contracts = tomllib.load(file)["tool"]["importlinter"]["contracts"]
    (forbidden,) = [c["forbidden_modules"] for c in contracts if c["name"] == "models needs torch alone"]
    assert "numpy" in forbidden
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", PROGRAM.format(forbidden=forbidden)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "searched 2 epochs\n"
