"""A new user: the README's commands, a fresh clone to type them in, and a shell with the environment activated."""

from __future__ import annotations

import os
import re
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
# Commands that start so are not run by these tests, and why.
NOT_RUN = {"dvc exp run -n cifar10": "downloads CIFAR-10 and takes half an hour"}


def blocks(language: str) -> list[str]:
    """The README's code blocks of that language."""
    return re.findall(
        rf"^```{re.escape(language)}\n(.*?)^```$", (ROOT / "README.md").read_text(), re.M | re.S
    )


def chain_of(command: str) -> str:
    """Which tests run a command of the README, each in a clone of their own: so every command is run by some."""
    if command == "make repro":
        return "first"
    if command.startswith(tuple(NOT_RUN)):
        return "none"
    return "other" if command.startswith(("dvc", "make experiments")) else "default"


def commands(chain: str) -> list[str]:
    """The commands of the README's shell blocks that belong to that chain, in order.

    A command may be continued on further lines, each after a backslash.
    """
    lines = [line.strip() for block in blocks("sh") for line in block.replace("\\\n", "").splitlines()]
    return [line for line in lines if line and not line.startswith("#") and chain_of(line) == chain]


def user_environment(folder: Path) -> dict[str, str]:
    """What a user's shell has: nothing that tests or other projects have set for DVC, MLflow, Prefect or Python.

    One thread, because other tests use the other cores. Neither SHELL nor the folder HOME may matter.
    """
    foreign = (
        "MLFLOW_",
        "PREFECT_",
        "DVC_",
        "MSDARTS_",
        "PYTEST_",
        "PYTHON",
        "MAKE",
        "MFLAGS",
        "VIRTUAL_ENV",
        "SHELL",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    home = folder.parent / "home"
    home.mkdir(exist_ok=True)
    (home / ".gitconfig").write_text("[user]\nname = Test\nemail = test@example.org\n")
    return kept | {"HOME": str(home), "TERM": "dumb", "DVC_PAGER": "cat", "OMP_NUM_THREADS": "1"}


def typed(command: str) -> list[str]:
    """The arguments of a process that does what a user types; make activates the environment itself."""
    return ["bash", "-c", command if command.startswith("make") else f"source .venv/bin/activate; {command}"]


def shell(command: str, folder: Path) -> str:
    """Runs a line as a user would type it; what it printed. Fails when the command does."""
    done = subprocess.run(
        typed(command),
        cwd=folder,
        env=user_environment(folder),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def timed(command: str, folder: Path) -> tuple[str, float]:
    """What a line printed, and its seconds of processor time, because other tests use the machine meanwhile."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    printed = shell(command, folder)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return printed, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def new_clone(folder: Path) -> Path:
    """A fresh clone of the working tree as it stands, with the environment of these tests as its own."""
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    changed = subprocess.run(
        ["git", "diff", "HEAD", "--binary"], cwd=ROOT, capture_output=True, check=True
    ).stdout
    if changed:
        subprocess.run(["git", "apply"], cwd=folder, input=changed, check=True)
    (folder / ".venv").symlink_to(sys.prefix)  # made from the same lock
    os.utime(folder / "requirements.lock", (0, 0))  # older than the environment: make has nothing to install
    return folder
