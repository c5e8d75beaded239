"""Reads and validates params.yaml completely before a stage starts: a typing error costs a second, not a night.

The task's schema (stages/NAME/params.py) says which sections and keys there are. It extends the sections that all
tasks share (stages/params.py). No value is converted, and no key has a default.

``python -m stages.plumbing.settings`` does the same for `make repro`, and looks through data.root for what DVC cannot watch.
"""

from __future__ import annotations

import difflib
import re
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TextIO

from pydantic import ValidationError
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.representer import RoundTripRepresenter

from stages.errors import UserError
from stages.params import Params
from stages.plumbing import place, watched
from stages.section import Section
from stages.tasks import TASKS, missing

PARAMS_FILE = Path("params.yaml")


def schema(task: object) -> type[Params]:
    """The schema of a task by its name in params.yaml. Raises UserError when the task is unknown."""
    if not isinstance(task, str) or task not in TASKS:
        close = difflib.get_close_matches(str(task), TASKS, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it should be one of {', '.join(TASKS)}"
        raise UserError(f"task is {task!r}; {hint}")
    return import_module(f"{TASKS[task]}.params").Params


def load(path: Path = PARAMS_FILE, changes: Mapping[str, Any] | None = None) -> Params:
    """Reads the file, with the values of some keys (``search.seed``) replaced, and validates all of it.

    Raises UserError, whose message names every mistake, and where the project cannot work in its folder.
    """
    place.check()  # here, because every stage, flow and sweep begins with this function
    content = changed(path, changes or {})
    where = f"{path}, with the changes asked for" if changes else path
    if "task" not in content:
        raise UserError(f"{where}: task is missing; the first line should be `task: images`, or another task")
    wanted = schema(content["task"])
    if lacking := missing(content["task"]):
        raise UserError(
            f"the task {content['task']} needs packages that are not installed ({', '.join(lacking)}); install them with"
            f" `make {content['task']}`"
        )
    try:
        return wanted.model_validate(content)
    except ValidationError as error:
        if (other := _written_for(content)) != content["task"]:
            raise UserError(
                f"{where}: task is {content['task']}, but the sections are those of the task {other}; write"
                f" `task: {other}`, or run `make task NAME={content['task']}` for that task's params.yaml"
            ) from None
        raise UserError(f"{where}: {'; '.join(_messages(error, wanted))}") from None


def changed(path: Path, changes: Mapping[str, Any], typ: Literal["safe", "rt"] = "safe") -> dict[str, Any]:
    """The file's sections with the values of some keys replaced, not validated.

    If the changes name another ``task``, they apply to that task's profile: profiles/TASK.yaml beside the file.
    """
    content = read(path, typ)
    if (task := changes.get("task", content.get("task"))) != content.get("task"):
        schema(task)
        content = read(profile_of(str(task), path.parent), typ)
    for key, value in changes.items():
        replace(content, key, value)
    return content


def profile_of(task: str, folder: Path = Path()) -> Path:
    """The complete params.yaml of a task. Raises UserError when there is none."""
    path = folder / "profiles" / f"{task}.yaml"
    if not path.is_file():
        raise UserError(
            f"{path} is missing; the settings of the task {task} are a params.yaml of its own"
            + (", which `make task NAME=images` brings back" if task == "images" else "")
        )
    return path


def _written_for(content: Mapping[str, Any]) -> str:
    """The task whose keys match the file's best; the file's own task, unless another one matches better."""
    held = set(_leaves(content))

    def strangers(task: str) -> tuple[int, bool]:
        return len(held ^ {"task", *_keys(schema(task))}), task != content["task"]

    return min(TASKS, key=strangers)


def _leaves(content: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in content.items():
        if prefix == "" and name == "serve":  # the server's settings, the same for all tasks
            continue
        keys += _leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"]
    return keys


def read(path: Path, typ: Literal["safe", "rt"] = "safe") -> dict[str, Any]:
    """The file's sections, not validated; "rt" keeps the comments, for writing the file again. Raises UserError."""
    try:
        yaml = YAML(typ=typ)
        yaml.preserve_quotes = True
        content = yaml.load(path)
    except FileNotFoundError:
        raise UserError(f"{path} is not in {Path.cwd()}; run stages from the project's folder") from None
    except MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line} is not valid YAML: {error.problem}") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise UserError(
            f"{path} must hold the sections {', '.join(Params.model_fields)}; it holds {content!r}"
        )
    return content


class _WithNull(RoundTripRepresenter):
    """Writes ``null`` as params.yaml has it, where ruamel.yaml would leave the value out."""


_WithNull.add_representer(type(None), lambda yaml, _: yaml.represent_scalar("tag:yaml.org,2002:null", "null"))


def write(content: Mapping[str, Any], file: Path | TextIO) -> None:
    """Writes what ``read(..., "rt")`` or ``changed(..., "rt")`` has returned, so that only changed values change."""
    yaml = YAML()
    yaml.Representer = _WithNull
    yaml.width = 4096  # no line is broken
    yaml.preserve_quotes = True
    yaml.dump(content, file)


def replace(content: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key. Raises UserError when a name before the last dot is not a section."""
    *sections, name = key.split(".")
    node: Any = content
    for section in sections:
        node = node.setdefault(section, {}) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        raise UserError(f"{key} is unknown; {'.'.join(sections)} is a value, not a section")
    node[name] = value


def _messages(error: ValidationError, schema: type[Params]) -> list[str]:
    """One message per key. If a key may have several types, "or" joins what it should be."""
    expected: dict[str, list[str]] = {}
    messages, suggested = [], set()
    for detail in sorted(error.errors(), key=lambda detail: detail["type"] == "missing"):
        location = _without_union_branches(detail["loc"], schema)
        key = ".".join(map(str, location))
        match detail["type"]:
            case "extra_forbidden":
                meant, hint = _suggestion(location, schema)
                suggested.add(meant)
                messages.append(f"{key} is unknown; {hint}")
            case "missing" if key not in suggested:
                messages.append(f"{key} is missing; add it, as in the params.yaml that came with the project")
            case "missing":
                pass  # misspelled: the unknown key has a message already
            case "value_error":
                messages.append(detail["msg"].removeprefix("Value error, "))
            case _:
                wish = re.sub(r"^\w+ should ", "", detail["msg"])
                expected.setdefault(f"{key} is {detail['input']!r}", []).append(wish)
    return messages + [f"{what}; it should {' or '.join(wishes)}" for what, wishes in expected.items()]


def _without_union_branches(location: Sequence[str | int], schema: type[Params]) -> list[str | int]:
    """The location without the union branches that pydantic adds below a key that is not a section."""
    kept: list[str | int] = []
    section: Any = schema
    for part in location:
        kept.append(part)
        field = section.model_fields.get(part)
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, Section)
        ):
            break
        section = field.annotation
    return kept


def _suggestion(location: Sequence[str | int], schema: type[Params]) -> tuple[str | None, str]:
    """The key that was probably meant, if any, and a hint. The same section is searched first, then all others."""
    section: Any = schema
    for part in location[:-1]:
        section = section.model_fields[part].annotation
    wrong, prefix = str(location[-1]), "".join(f"{part}." for part in location[:-1])
    if close := difflib.get_close_matches(wrong, section.model_fields, n=1, cutoff=0.5):
        return f"{prefix}{close[0]}", f"did you mean {prefix}{close[0]}?"
    everywhere = {key.rsplit(".", 1)[-1]: key for key in _keys(schema)}
    if wrong in everywhere:
        return everywhere[wrong], f"did you mean {everywhere[wrong]}?"
    return None, f"{prefix.rstrip('.') or 'the file'} has {', '.join(section.model_fields)}"


def _keys(section: Any, prefix: str = "") -> list[str]:
    keys = []
    for name, field in section.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys += _keys(field.annotation, f"{prefix}{name}.")
        else:
            keys.append(f"{prefix}{name}")
    return keys


def main() -> int:
    """Checks params.yaml and what is in data.root, and returns the exit status."""
    try:
        watched.check(load().data)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
