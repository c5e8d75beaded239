"""A section of params.yaml, and the types of its values.

``Section.active`` leaves out the settings that have no effect under the other settings. Checkpoints, tracking and
sweeps see active settings only.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

Seed = Annotated[int, Field(ge=0, lt=2**32)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Fraction = Annotated[float, Field(gt=0, lt=1)]


def _path(value: object) -> str:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise PydanticCustomError("path", "Path should be a path; put a path of digits in quotes")
    try:
        Path(value).expanduser()
    except RuntimeError:
        raise PydanticCustomError("path", "Path should begin with / or with a user who exists") from None
    return value


def _in_full(path: str) -> str:
    if (meant := Path(path).expanduser()) != Path(path):
        wish = "Path should be written in full, {meant}, because DVC does not expand ~"
        raise PydanticCustomError("path", wish, {"meant": str(meant)})
    return path


AnyPath = Annotated[str, BeforeValidator(_path)]  # not empty
PathForDvc = Annotated[AnyPath, AfterValidator(_in_full)]  # that dvc.yaml names, too


class Section(BaseModel, frozen=True):
    """A section of params.yaml: no unknown keys, no silent conversions, immutable."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    def inactive(self) -> Collection[str]:
        """The keys (dotted, below this section) that have no effect under the section's other settings."""
        return ()

    def active(self) -> dict[str, Any]:
        """The section without its inactive keys and without subsections that have no active key."""
        content = self.model_dump(mode="json")
        for key in self.inactive():
            *path, name = key.split(".")
            node = content
            for part in path:
                node = node[part]
            node.pop(name)
        return {name: value for name, value in content.items() if value != {}}
