"""Settings of circuits, without a project around them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from stages.circuits.params import Params
from stages.tasks import missing
from tests.stages.processes import ROOT

needs_packages = pytest.mark.skipif(
    bool(missing("circuits")),
    reason=f"{', '.join(missing('circuits'))} not installed; `make circuits` installs them",
)


def settings(**changes: Any) -> dict[str, Any]:
    """The profile with dotted keys changed; ``__`` stands for a dot."""
    content = YAML(typ="safe").load(ROOT / "profiles" / "circuits.yaml")
    for key, value in changes.items():
        *sections, name = key.split("__")
        node = content
        for section in sections:
            node = node[section]
        node[name] = value
    return content


def params_of(**changes: Any) -> Params:
    """These settings, validated."""
    return Params.model_validate(settings(**changes))


def from_file(name: str, file: Path, **changes: Any) -> Params:
    """The settings of a target that a file holds."""
    places = {"search__places": None} if name == "mitigation" else {}
    return params_of(data__name=name, data__target="file", data__root=str(file), **places, **changes)
