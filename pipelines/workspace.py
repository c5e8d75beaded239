"""Where a run works: in the project's folder or, with parameters of its own, in a workspace for these parameters.

A workspace is a git worktree within the project's ``.dvc/tmp/exps``, named after the changed parameters. The same
changes lead to the same place, where they find the checkpoints and results of an interrupted run; other changes never
meet them. The project's params.yaml is not touched. A workspace starts from the project as it is (the last commit, the
changes in tracked files, dvc.lock and the results that it names) and shares the project's DVC cache and data.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pipelines.dvc_internals import (
    LOCK_FILE,
    all_stages,
    check_out,
    experiment_ref,
    experiment_title,
    lock_is_whole,
    mend,
    share_cache,
)
from pipelines.pruning import lock_of, prune, used
from stages.errors import MachineError, UserError, of_words, whose
from stages.plumbing import watched
from stages.plumbing.code import ROOT, closure
from stages.plumbing.files import write_json
from stages.plumbing.naming import ASKED, experiment_name
from stages.plumbing.runtime import STATE, WORKSPACES
from stages.plumbing.settings import PARAMS_FILE, load, write
from stages.plumbing.settings import changed as changed_params

RETRY_DELAYS = [10.0, 60.0]  # seconds before another attempt, after failures of the machine
# Git's locks that only the run of this workspace takes, of which there is one at a time.
_OWN_LOCK = re.compile(r"Unable to create '(?P<path>[^']*(/worktrees/[^']*|/refs/exps/[^']*|\.index)\.lock)'")
LOCK_AGE = 10.0  # seconds after which such a lock was left by a git that was killed
_AUTHOR = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "nas"), ("EMAIL", "nas@localhost"))
}


@contextlib.contextmanager
def workspace(
    changes: Mapping[str, Any], on_wait: Callable[[str], None] = lambda _: None, base: Path | None = None
) -> Iterator[Path]:
    """A folder with these parameters in params.yaml, for this process alone; ``on_wait`` is called before it waits.

    The current folder is the project. A workspace without results starts with those of ``base``, another workspace, or with
    those of the project. Raises UserError when params.yaml, a change or data.root is wrong, before anything is created.
    """
    params = load(PARAMS_FILE, changes)
    watched.check(params.data)  # before anybody asks DVC what is up to date
    project = Path.cwd()
    if changes:
        _check_code(project, params.task)
    folder = project / WORKSPACES / experiment_name(changes) if changes else project
    name = folder.name if changes else "project"
    with _locked(
        lock_of(project, name), lambda: on_wait(f"waits until another flow run in {folder} has ended")
    ):
        used(project, name)
        mend(folder)
        if changes:
            with FileLock(project / STATE / "workspaces.lock"):  # git creates one worktree at a time
                prune(project, project / WORKSPACES)
                patiently(lambda: _make(project, folder, changes, base or project), on_wait)
        try:
            yield folder
        finally:
            used(project, name)


def patiently(act: Callable[[], None], tell: Callable[[str], None]) -> None:
    """Does what the machine may prevent for a while, as with a full disk, and tries again after as long as a stage would."""
    for delay in RETRY_DELAYS:
        try:
            return act()
        except (MachineError, OSError) as error:
            known = whose(error) if isinstance(error, OSError) else error
            if isinstance(known, UserError):
                raise
            tell(f"tries again in {delay:g} s: {known}")
            time.sleep(delay)
    return act()


def save_experiment(folder: Path) -> None:
    """Keeps the workspace's params.yaml and dvc.lock as a DVC experiment of the commit that it is based on.

    An experiment is a commit under a reference. Git alone makes it, because ``dvc exp save`` would stash the working tree.
    """
    project = Path.cwd()
    commit = _git(folder, "rev-parse", "HEAD")
    index = {"GIT_INDEX_FILE": str(project / STATE / f"{folder.name}.index")}
    _git(folder, "read-tree", commit, env=index)
    changed = _git(folder, "diff", "HEAD", "--name-only", "--diff-filter=AM").splitlines()
    _git(folder, "add", "--force", "--", LOCK_FILE, *changed, env=index)
    tree = _git(folder, "write-tree", env=index)
    title = experiment_title(folder.name)
    made = _git(folder, "commit-tree", tree, "-p", commit, "-m", title, env=_AUTHOR)
    _git(project, "update-ref", experiment_ref(commit, folder.name), made)
    Path(index["GIT_INDEX_FILE"]).unlink()


@contextlib.contextmanager
def _locked(path: Path, on_wait: Callable[[], None]) -> Iterator[None]:
    """Lets one flow run at a time work in a folder: stages of two runs would read what the other run writes."""
    path.parent.mkdir(exist_ok=True)
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        on_wait()
        lock.acquire(poll_interval=0.5)
    try:
        yield
    finally:
        lock.release()


def _make(project: Path, folder: Path, changes: Mapping[str, Any], base: Path) -> None:
    """Creates the workspace, or updates an existing one to the project's present code."""
    new = not (folder / PARAMS_FILE).exists()
    commit = _git(project, "rev-parse", "HEAD")
    if new:
        shutil.rmtree(folder, ignore_errors=True)  # left by a run that was killed here
        _git(project, "worktree", "prune")
        # Forced twice: also where a git that was killed while making it has locked it.
        _git(
            project,
            "worktree",
            "add",
            "--force",
            "--force",
            "--quiet",
            "--detach",
            "--no-checkout",
            str(folder),
            commit,
        )
    bare = not lock_is_whole(folder)  # also after a run that was killed before it had finished any stage
    source = base if bare else folder
    results = (source / LOCK_FILE).read_bytes() if (source / LOCK_FILE).exists() else None
    if bare and (kept := _results_of_experiment(project, commit, folder.name)) is not None:
        results = kept
    _git(folder, "reset", "--quiet", "--hard", commit)
    if changed := _git(project, "diff", "HEAD", "--binary", "--", ".", f":!{LOCK_FILE}"):
        _git(folder, "apply", "--index", "--whitespace=nowarn", input=f"{changed}\n")
    if results is not None:
        (folder / LOCK_FILE).write_bytes(results)
    write(changed_params(folder / PARAMS_FILE, changes, "rt"), folder / PARAMS_FILE)
    (folder / STATE).mkdir(exist_ok=True)
    write_json(folder / ASKED, changes)
    _share_data(project, folder, Path(load(folder / PARAMS_FILE).data.root))
    share_cache(project, folder)
    if bare and results is not None:
        check_out(folder)


def _check_code(project: Path, task: str) -> None:
    """Raises UserError when a stage imports a file that git does not track, because a workspace would lack it."""
    untracked = _git(
        project, "ls-files", "--others", "--exclude-standard", "--", "models", "stages"
    ).splitlines()
    if not untracked:
        return
    files = [path for stage in all_stages(project) for path in closure(stage.name, task)]
    needed = {path.relative_to(ROOT).as_posix() for path in files}
    if missing := sorted(needed.intersection(untracked)):
        raise UserError(
            f"{', '.join(missing)}: imported by a stage, but not tracked by git, so a run with parameters of its own would"
            f" lack it; `git add {' '.join(missing)}`"
        )


def _results_of_experiment(project: Path, commit: str, name: str) -> bytes | None:
    """dvc.lock of the experiment that an earlier workspace of this name became; None without one."""
    command = ["git", "show", f"{experiment_ref(commit, name)}:{LOCK_FILE}"]
    done = subprocess.run(command, cwd=project, capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else None


def _share_data(project: Path, folder: Path, root: Path) -> None:
    """Links the project's own data, and what is downloaded beside it, into the workspace."""
    if root.is_absolute() or not (project / root).exists():
        return
    link = folder / root
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    link.unlink(missing_ok=True)
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to((project / root).resolve())


def _git(folder: Path, *arguments: str, input: str = "", env: Mapping[str, str] | None = None) -> str:
    """Runs git and returns what it prints. Raises UserError when it fails, or MachineError where that may pass."""
    done = _run_git(folder, arguments, input, env)
    if done.returncode != 0 and (lock := _OWN_LOCK.search(done.stderr)):
        _remove_left(Path(lock["path"]))
        done = _run_git(folder, arguments, input, env)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        kind = MachineError if os.strerror(errno.EEXIST) in done.stderr else of_words(said)
        raise kind(
            f"a run with parameters of its own needs a git worktree, and `git {arguments[0]}` in {folder} failed:"
            f" {said}"
        )
    return done.stdout.rstrip("\n")


def _run_git(
    folder: Path, arguments: Sequence[str], input: str, env: Mapping[str, str] | None
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["git", *arguments],
        cwd=folder,
        env={**os.environ, **(env or {})},
        input=input,
        capture_output=True,
        text=True,
        errors="surrogateescape",
        check=False,
    )


def _remove_left(lock: Path) -> None:
    """Removes a lock that a killed git has left. A git whose flow alone was killed still has a moment to end."""
    with contextlib.suppress(FileNotFoundError):
        time.sleep(max(0.0, LOCK_AGE - (time.time() - lock.stat().st_mtime)))
        lock.unlink()
