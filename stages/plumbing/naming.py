"""One name per run, the same in Prefect, MLflow and DVC: data, strategy, what differs from params.yaml, and its hash.

    digits-ms-darts-seed3-9d0e7475

Such a name is a valid name of a DVC experiment (part of a git reference), of a folder, and of runs in MLflow and Prefect.
"""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.params import NOT_OF_RESULTS, Params
from stages.plumbing.settings import PARAMS_FILE, load, read

MOST = 80  # characters of a name
_MOST_OF_A_VALUE = 20
_SHOWN_ANYWAY = ("data.name", "search.strategy")  # at the beginning of every name
_NOT_IN_NAMES = r"[^A-Za-z0-9._]+"  # a subset of what git, file systems, MLflow and Prefect allow


def run_name(params: Params, changes: Mapping[str, Any], kind: str = "") -> str:
    """The name of a run with these settings, whose ``changes`` (dotted key -> value) make it differ from params.yaml.

    The same changes lead to the same name, in whichever order they are given. ``kind`` is a word for runs above others.
    """
    begin = [_word(params.data.name), _word(params.search.strategy), *([kind] if kind else [])]
    if not changes:
        return "-".join(begin)[:MOST]
    text = json.dumps(changes, sort_keys=True, default=str)
    end = hashlib.sha256(text.encode()).hexdigest()[:8]
    labels = [label for label in _labels(changes) if label]
    names = (
        "-".join([*begin, *labels[: len(labels) - out], *([f"{out}more"] if out else []), end])
        for out in range(len(labels) + 1)
    )
    return next((name for name in names if len(name) <= MOST), f"{begin[0][:_MOST_OF_A_VALUE]}-{end}")


def experiment_name(changes: Mapping[str, Any]) -> str:
    """The name of a run of the project in the current folder, with other values of some keys. Raises UserError."""
    return run_name(load(PARAMS_FILE, changes), changes or since_commit())


def since_commit() -> dict[str, Any]:
    """Settings of results in params.yaml that differ from the last commit's; none where git does not know the file.

    If the last commit's params.yaml is another task's, the settings are compared with those of the task's profile.
    """
    now = read(PARAMS_FILE)
    before = _committed(PARAMS_FILE)
    if before and before.get("task") != now.get("task"):
        before = _committed(Path("profiles") / f"{now.get('task')}.yaml")
    if not before:
        return {}
    old, new = (
        _leaves({name: section for name, section in content.items() if name not in NOT_OF_RESULTS})
        for content in (before, now)
    )
    other_task = {"task": now["task"]} if old.get("task") != new.get("task") else {}
    return {**other_task, **{key: value for key, value in new.items() if key not in old or old[key] != value}}


def _committed(path: Path) -> dict[str, Any]:
    """The content of a YAML file in the last commit; empty where it has none."""
    command = ["git", "show", f"HEAD:./{path.as_posix()}"]
    done = subprocess.run(command, capture_output=True, check=False)
    try:
        content = YAML(typ="safe").load(done.stdout.decode()) if done.returncode == 0 else None
    except (YAMLError, UnicodeDecodeError):
        return {}
    return content if isinstance(content, dict) else {}


def _leaves(content: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in content.items():
        key = f"{prefix}{name}"
        found |= _leaves(value, f"{key}.") if isinstance(value, Mapping) else {key: value}
    return found


def _labels(changes: Mapping[str, Any]) -> list[str]:
    """What is said of each change: seeds first, because they tell most runs apart."""
    last = [key.rpartition(".")[2] for key in changes]
    keys = sorted(changes, key=lambda key: (not key.endswith("seed"), key))
    return [
        _label(key if last.count(key.rpartition(".")[2]) > 1 else key.rpartition(".")[2], changes[key])
        for key in keys
        if key not in _SHOWN_ANYWAY
    ]


def _label(key: str, value: Any) -> str:
    """``seed3``, ``penalty-none``, ``root-pictures``."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    value_in_words = _word(text.rstrip("/").rpartition("/")[2])[:_MOST_OF_A_VALUE]
    if key == "task":
        return value_in_words
    return _word(f"{key}{value_in_words}" if number else f"{key}-{value_in_words}")


def _word(text: str) -> str:
    """The text with other characters replaced, so that it may be part of a name anywhere."""
    return re.sub(r"\.{2,}", ".", re.sub(_NOT_IN_NAMES, "-", text)).strip("-._").removesuffix(".lock")
