"""Puts the settings of another task into params.yaml: ``make task NAME=sequences``.

    python -m pipelines.task NAME

The settings are the task's profile, profiles/NAME.yaml. Those of images, which params.yaml comes with, are taken from the
newest commit that has them. Refuses while params.yaml has changes that git does not have, because these would be lost.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Sequence

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.errors import UserError
from stages.plumbing.files import write_text
from stages.plumbing.settings import PARAMS_FILE, load, profile_of, read, schema


def switch(task: str) -> str:
    """Replaces params.yaml, and says what was done. Raises UserError where that is impossible or would lose changes."""
    schema(task)
    if read(PARAMS_FILE).get("task") == task:
        return f"{PARAMS_FILE} holds the settings of the task {task} already"
    if _git("status", "--porcelain", "--", str(PARAMS_FILE)):
        raise UserError(
            f"{PARAMS_FILE} has changes that are not committed; commit them, or drop them with"
            f" `git checkout {PARAMS_FILE}`"
        )
    settings = committed(task) if task == "images" else profile_of(task).read_text(encoding="utf-8")
    before = PARAMS_FILE.read_text(encoding="utf-8")
    write_text(PARAMS_FILE, settings)
    try:
        load()
    except UserError:
        write_text(PARAMS_FILE, before)
        raise
    return f"{PARAMS_FILE} now holds the settings of the task {task}; `make repro` runs it"


def committed(task: str) -> str:
    """The newest params.yaml in git that is of this task. Raises UserError when there is none."""
    for commit in _git("log", "--format=%H", "--", str(PARAMS_FILE)).split():
        text = _git("show", f"{commit}:./{PARAMS_FILE}")
        try:
            if YAML(typ="safe").load(text).get("task") == task:
                return text
        except (YAMLError, AttributeError):  # a commit with a broken file
            continue
    raise UserError(
        f"no commit has a {PARAMS_FILE} of the task {task}; take it from the project's first clone"
    )


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"`git {arguments[0]}` said: {said}")
    return done.stdout


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="make task", usage="make task NAME=TASK", description=__doc__)
    parser.add_argument("task", metavar="NAME")
    try:
        print(f"task: {switch(parser.parse_args(arguments).task)}")
    except UserError as error:
        print(f"error: task: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
