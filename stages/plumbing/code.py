"""The code that a stage's result depends on: its import closure, less stages/plumbing/, and the packages that compute.

dvc.yaml lists the same files, and a test compares the two; the keys of checkpoints hash them. What is imported for type
checking only does not count. Where a stage asks a task for one of its parts (stages/tasks.py), the part counts, not the task.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import version
from pathlib import Path

from stages.tasks import TASKS

ROOT = Path(__file__).parents[2]
PLUMBING = ROOT / "stages" / "plumbing"
OURS = ("models", "stages")
PARTS = {  # function of stages/tasks.py -> part of a task's package
    "metric": "params",
    "data": "data",
    "architectures": "architectures",
    "preparation": "prepare",
    "training": "training",
    "testing": "testing",
    "export": "export",
    "exported": "exported",
    "views": "views",
}
# Packages whose version changes numbers or files, by the name they are imported by. The others pass results on, draw, or talk
# to servers: DVC, MLflow, Prefect, pydantic, safetensors, matplotlib, pytest, ...
COMPUTING = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
}


def code_of(stage: str, task: str) -> list[Path]:
    """The files, sorted, that the result of a stage depends on when it works for a task."""
    return sorted(
        path for path in _closure(stage, task) if PLUMBING not in path.parents and not _is_empty(path)
    )


def packages_of(stage: str, task: str) -> dict[str, str]:
    """The packages that compute for a stage, by their names, and their installed versions."""
    names = {
        COMPUTING[name]
        for path in code_of(stage, task)
        if path.suffix == ".py"
        for name in _imported(path)
        if name in COMPUTING
    }
    if "onnx" in names and "torch" in names:
        names.add("onnxscript")  # torch's exporter is built on it
    return {name: version(name) for name in sorted(names)}


@cache
def _closure(stage: str, task: str) -> frozenset[Path]:
    found: set[Path] = set()
    waiting = [f"stages.{stage}"]
    while waiting:
        for path in _files(waiting.pop()):
            if path in found:
                continue
            found.add(path)
            found |= _named_beside(path)
            waiting += [name for name in _imported(path, whole=True) if name.split(".")[0] in OURS]
            if path != ROOT / "stages" / "tasks.py":
                waiting += [f"{TASKS[task]}.{part}" for part in _parts(path)]
    return frozenset(found)


def _files(module: str) -> Iterator[Path]:
    """The file of a module of ours, and of the packages that importing it imports; nothing for a name in a module."""
    path = ROOT
    for name in module.split("."):
        path = path / name
        if (path / "__init__.py").is_file():
            yield path / "__init__.py"
        elif path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")
            return


def _imported(path: Path, *, whole: bool = False) -> set[str]:
    """What a file imports: top-level names or, with ``whole``, names as far as they may be modules."""
    names: set[str] = set()
    for node in _running(path):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names if whole else {name.split(".")[0] for name in names}


def _parts(path: Path) -> set[str]:
    """The parts of a task that a file asks for: ``tasks.training(...)``, or ``from stages.tasks import training``."""
    asked: set[str] = set()
    for node in _running(path):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "tasks":
            asked.add(node.attr)
        elif isinstance(node, ast.ImportFrom) and node.module == "stages.tasks":
            asked |= {alias.name for alias in node.names}
    return {PARTS[name] for name in asked if name in PARTS}


def _named_beside(path: Path) -> set[Path]:
    """Files that are no code and that a file names, in its own folder: templates."""
    beside = {file.name: file for file in path.parent.iterdir() if file.suffix in (".html", ".j2", ".md")}
    if not beside:
        return set()
    constants = (node.value for node in ast.walk(_tree(path)) if isinstance(node, ast.Constant))
    return {beside[text] for text in constants if isinstance(text, str) and text in beside}


@cache
def _running(path: Path) -> Sequence[ast.AST]:
    """What a file imports, and the attributes it asks for, but for what is below ``if TYPE_CHECKING:``."""
    found: list[ast.AST] = []
    waiting: list[ast.AST] = [_tree(path)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, (ast.Import, ast.ImportFrom, ast.Attribute)):
            found.append(node)
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)
    return found


def _is_empty(path: Path) -> bool:
    """Whether a file of a package holds nothing but a docstring."""
    return path.name == "__init__.py" and all(isinstance(node, ast.Expr) for node in _tree(path).body)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
