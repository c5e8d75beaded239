"""The code that a stage's result depends on: its imports, direct and indirect, except stages/plumbing/, and packages.

dvc.yaml lists the same files, which a test checks. The keys of checkpoints contain the hash of these files. Imports
for type checking do not count. When a stage asks a task for one of its parts (stages/tasks.py), only that part
counts.
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
    "comparison": "comparison",
    "speed": "speed",
    "latency": "latency",
}
# Packages whose versions change numbers or files: name in imports -> name in the lock file. The other packages store,
# draw or transfer results: DVC, MLflow, Prefect, pydantic, safetensors, matplotlib, pytest, ... Qiskit draws, too, so that its
# version would retrain what only shares a drawing with it; what it writes is checked whenever it is written.
COMPUTING = {
    "torch": "torch",
    "torchvision": "torchvision",
    "numpy": "numpy",
    "sklearn": "scikit-learn",
    "PIL": "pillow",
    "onnx": "onnx",
    "onnxruntime": "onnxruntime",
    "qiskit_aer": "qiskit-aer",
    "openqasm3": "openqasm3",
    "pandas": "pandas",
    "pyarrow": "pyarrow",
}


def code_of(stage: str, task: str) -> list[Path]:
    """The sorted files that the result of a stage depends on, for a task."""
    return sorted(
        path for path in closure(stage, task) if PLUMBING not in path.parents and not _is_empty(path)
    )


def packages_of(stage: str, task: str) -> dict[str, str]:
    """Name -> installed version of each package that a stage computes with."""
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
def closure(stage: str, task: str) -> frozenset[Path]:
    """Every file of ours that a stage imports for a task, directly or indirectly, and the templates that these name."""
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
    """The file of one of our modules and those of the packages around it. Names inside a module have no file."""
    path = ROOT
    for name in module.split("."):
        path = path / name
        if (path / "__init__.py").is_file():
            yield path / "__init__.py"
        elif path.with_suffix(".py").is_file():
            yield path.with_suffix(".py")
            return


def _imported(path: Path, *, whole: bool = False) -> set[str]:
    """What a file imports: top-level names or, with ``whole``, full dotted names."""
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
    """The templates that a file names and that are in its own folder."""
    beside = {file.name: file for file in path.parent.iterdir() if file.suffix in (".html", ".j2", ".md")}
    if not beside:
        return set()
    constants = (node.value for node in ast.walk(_tree(path)) if isinstance(node, ast.Constant))
    return {beside[text] for text in constants if isinstance(text, str) and text in beside}


@cache
def _running(path: Path) -> Sequence[ast.AST]:
    """The imports and attribute accesses of a file, except those under ``if TYPE_CHECKING:``."""
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
    """Whether a file is the ``__init__.py`` of a package and holds nothing but a docstring."""
    return path.name == "__init__.py" and all(isinstance(node, ast.Expr) for node in _tree(path).body)


@cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))
