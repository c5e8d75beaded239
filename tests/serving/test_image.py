"""The server's image: its lock has what serving/ imports, in the project's versions, and no training code gets in."""

from __future__ import annotations

import ast
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

from tests.serving.conftest import REPOSITORY

HEAVY = {"torch", "torchvision", "mlflow", "pandas", "scikit-learn", "matplotlib", "onnx", "prefect", "dvc"}


def locked(name: str) -> dict[str, set[str]]:
    """Package -> its versions, of which a marker may choose one."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(
        r"^([a-z0-9._-]+)==([^ ;\\]+)", (REPOSITORY / name).read_text(), re.MULTILINE
    ):
        found.setdefault(package, set()).add(version)
    return found


def imported(path: Path) -> set[str]:
    """The modules outside the standard library and serving/ that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"serving"}


def test_the_lock_has_what_the_server_imports_and_nothing_heavy() -> None:
    lock, whole, owners = (
        locked("requirements-serving.lock"),
        locked("requirements.lock"),
        packages_distributions(),
    )
    modules = set().union(*(imported(path) for path in (REPOSITORY / "serving").rglob("*.py")))
    assert {"mlflow", "onnxruntime", "fastapi"} <= modules
    for module in modules:
        names = {re.sub(r"[._-]+", "-", owner).lower() for owner in owners[module]}
        assert names & set(lock), f"{module} is not in requirements-serving.lock"
    assert {name: versions for name, versions in lock.items() if versions != whole.get(name)} == {}
    assert HEAVY.isdisjoint(lock)


def test_the_image_gets_the_server_and_its_lock_alone_and_runs_as_nobody() -> None:
    lines = (REPOSITORY / "deploy/serving/Dockerfile").read_text().splitlines()
    copied = [line.split()[1] for line in lines if line.startswith("COPY ") and "--from" not in line]
    assert copied == ["requirements-serving.lock", "serving"]
    last_user = [line for line in lines if line.startswith("USER ")][-1]
    assert last_user not in ("USER root", "USER 0")
    assert any(line.startswith("HEALTHCHECK ") for line in lines)
