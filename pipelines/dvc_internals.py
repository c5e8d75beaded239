"""Everything that is used of DVC without a promise of DVC's: graph, experiments, cache, and the errors that it prints.

No other module imports DVC. tests/pipelines/test_dvc_internals.py pins each assumption and names the one that an update of
DVC breaks. What stages assume (the folder of temporary experiments, ``DVC_STAGE``, the name of DVC's process) is in
stages/plumbing/runtime.py, because stages import nothing of this package; the same tests pin it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import networkx
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo
from dvc.schema import COMPILED_LOCKFILE_SCHEMA
from dvc.utils import strictyaml

from stages.errors import UserError
from stages.plumbing.settings import PARAMS_FILE

LOCK_FILE = "dvc.lock"
_SETTINGS = Path(".dvc/config")
_LOCAL_SETTINGS = Path(".dvc/config.local")  # those that are not in git
_EXIT_STATUS = re.compile(r"ERROR: failed to reproduce '.+': failed to run: .+, exited with (-?\d+)$")
_ERROR = "ERROR: "
_WRITING = 1.0  # seconds that another DVC may take to write a small file

# A workspace begins with what the cache holds; that the rest is missing there is no reason for a warning.
logging.getLogger("dvc_data").setLevel(logging.ERROR)


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml."""

    name: str
    gpu: bool  # whether it computes on a GPU where there is one (``meta: {gpu: true}``)
    needs: tuple[str, ...] = ()  # the stages whose outputs it reads
    params: tuple[str, ...] = ()  # the sections and keys of params.yaml that it reads; no other file's
    always: bool = (
        False  # whether it is always called (``always_changed``), because DVC cannot know what it looks at
    )

    def reads(self, key: str) -> bool:
        """Whether the value of a key of params.yaml changes what the stage does."""
        return any(
            key == own or key.startswith(f"{own}.") or own.startswith(f"{key}.") for own in self.params
        )


def all_stages(folder: Path) -> list[Stage]:
    """The stages of dvc.yaml, each after those it depends on.

    Raises UserError for a dvc.yaml or params.yaml that DVC does not accept.
    """
    try:
        with Repo(str(folder)) as repo:
            graph = repo.index.graph  # from a stage to those it depends on
            # Stages that do not depend on each other are sorted by name: the order is the same every time.
            order = networkx.lexicographical_topological_sort(graph.reverse(), key=lambda stage: stage.name)
            return [_stage(graph, stage) for stage in order]
    except DvcException as error:
        raise UserError(f"dvc.yaml in {folder}: {' '.join(str(error).split())}") from None


def up_to_date(folder: Path, *names: str) -> bool:
    """Whether ``dvc repro`` would skip these stages, because neither their dependencies nor their outputs have changed.

    Asked within this process, because a process of DVC takes a second to answer. "No" also where another process of DVC
    holds the folder: the stage's own process waits for it.
    """
    try:
        # Not repo.status(), which looks for names in the dvc.yaml of the current folder.
        with Repo(str(folder)) as repo, repo.lock:
            return not any(stage.status() for stage in repo.index.graph if stage.name in names)
    except DvcException:
        return False


def missing_dependencies(folder: Path, name: str) -> list[str]:
    """The dependencies of a stage that do not exist and that no other stage makes, such as data.root."""
    try:
        with Repo(str(folder)) as repo:
            graph = repo.index.graph
            made = {out.fs_path for stage in graph for out in stage.outs}
            (stage,) = (stage for stage in graph if stage.name == name)
            return [dep.def_path for dep in stage.deps if not dep.exists and not _within(dep.fs_path, made)]
    except DvcException:
        return []


def repro_command(name: str, *, force: bool) -> list[str]:
    """The command that runs one stage; it waits for other DVC processes of the folder."""
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "repro", "--single-item", name]
    return [*command, *(["--force"] if force else [])]


def exit_status_of_stage(lines: Sequence[str]) -> int | None:
    """The exit status of the stage's command, which DVC hides behind its own but prints; -9: ended by that signal."""
    # Searched for, because a killed stage may not have ended its line, which DVC then goes on with.
    return next((int(found[1]) for line in lines if (found := _EXIT_STATUS.search(line))), None)


def last_error(lines: Sequence[str]) -> str | None:
    """The last error that DVC printed, for people; None: it printed none."""
    errors = [line.removeprefix(_ERROR) for line in lines if line.startswith(_ERROR)]
    return errors[-1] if errors else None


def share_cache(project: Path, folder: Path) -> None:
    """Gives a worktree the project's settings of DVC that are not in git, and its cache."""
    if (project / _LOCAL_SETTINGS).exists():
        shutil.copy(project / _LOCAL_SETTINGS, folder / _LOCAL_SETTINGS)
    with Repo(str(project)) as repo:
        cache = repo.cache.local_cache_dir
    with Repo(str(folder)) as repo, repo.config.edit("local") as config:
        # Relative to the current folder, from where DVC makes it relative to the file: DVC writes ASCII only.
        cast(dict[str, Any], config)["cache"]["dir"] = os.path.relpath(cache)


def mend(folder: Path) -> None:
    """Repairs the files that DVC leaves half written when it is killed or the disk is full, and that stop it ever after.

    An unreadable lock of readers and writers is removed. dvc.lock is kept while it is whole, and put back when it is not, unless
    that is a conflict of git, which is the user's.
    """
    temporary = folder / ".dvc/tmp"
    if not _is_json(temporary / "rwlock"):
        time.sleep(_WRITING)
        if not _is_json(temporary / "rwlock"):
            (temporary / "rwlock").unlink(missing_ok=True)
    lock, kept = folder / LOCK_FILE, temporary / "dvc.lock.whole"
    if lock_is_whole(folder):
        if not kept.exists() or kept.read_bytes() != lock.read_bytes():
            _replace(kept, lock.read_bytes())
    elif lock.exists() and kept.exists() and b"<<<<<<<" not in lock.read_bytes():
        _replace(lock, kept.read_bytes())


def lock_is_whole(folder: Path) -> bool:
    """Whether there is a dvc.lock that DVC accepts."""
    try:
        strictyaml.load(str(folder / LOCK_FILE), COMPILED_LOCKFILE_SCHEMA)
    except (DvcException, OSError, UnicodeDecodeError):
        return False
    return True


def _is_json(path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError, ValueError):
        json.loads(path.read_text(encoding="utf-8"))
        return True
    return not path.exists()


def _replace(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)


def check_out(folder: Path) -> None:
    """Takes the results that the folder's dvc.lock names out of the cache, as far as it holds them."""
    with Repo(str(folder)) as repo:
        repo.checkout(allow_missing=True)


def experiment_ref(commit: str, name: str) -> str:
    """The git reference under which DVC finds an experiment that is based on a commit."""
    return f"refs/exps/{commit[:2]}/{commit[2:]}/{name}"


def experiments_named(folder: Path, name: str) -> list[str]:
    """The git references of the experiments of this name, one for each commit that they are based on."""
    command = ["git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout.split()


def share_remote(project: Path, folder: Path) -> bool:
    """Gives a worktree the project's present settings of DVC. Returns whether ``dvc push`` knows where to."""
    if folder != project:
        shutil.copy(project / _SETTINGS, folder / _SETTINGS)
        share_cache(project, folder)
    with Repo(str(folder)) as repo:
        return bool(repo.config["core"].get("remote"))


def experiment_title(name: str) -> str:
    """The message of an experiment's commit, as DVC writes it."""
    return f"dvc: commit experiment {name}"


def _stage(graph: networkx.DiGraph, stage: Any) -> Stage:
    params = [
        key
        for dep in stage.deps
        if isinstance(dep, ParamsDependency) and dep.def_path == str(PARAMS_FILE)
        for key in dep.params
    ]
    needs = sorted(needed.name for needed in graph.successors(stage))
    return Stage(
        stage.name, bool((stage.meta or {}).get("gpu")), tuple(needs), tuple(params), stage.always_changed
    )


def _within(path: str, folders: set[str]) -> bool:
    return any(Path(path).is_relative_to(folder) for folder in folders)
