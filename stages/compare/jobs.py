"""What a comparison trains: its plan, its trainings, and where their results are. Imports nothing slow."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.errors import UserError
from stages.plumbing.files import ARTIFACTS
from stages.plumbing.status import STATE

TRAININGS = ARTIFACTS / "compare" / "trainings"
STAGE = "compare"  # its folder in .checkpoints
PLAN = STATE / STAGE / "plan.json"
RESULT, ANSWERS = "result.json", "evaluation.safetensors"  # in the folder of a training


class PlannedArm(BaseModel):
    """A network and its trainings: seed -> key."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    kind: Literal["found", "random", "baseline"]
    network: dict[str, Any]
    params: int | None
    macs: int | None
    keys: dict[int, str]


class Plan(BaseModel):
    """.checkpoints/compare/plan.json: all networks and seeds."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    identity: str  # of what is compared, see stages/comparison.py
    seeds: list[int]
    arms: list[PlannedArm]  # the found one first
    notices: list[str]  # what is left out, and why

    def trainings(self) -> list[tuple[PlannedArm, int, str]]:
        """Network, seed and key of every training, seed by seed."""
        return [(arm, seed, arm.keys[seed]) for seed in self.seeds for arm in self.arms]

    @classmethod
    def read(cls, folder: Path = Path()) -> Plan:
        """The plan in a project's folder. Raises UserError when there is none."""
        try:
            return cls.model_validate_json((folder / PLAN).read_bytes())
        except (FileNotFoundError, ValidationError):
            raise UserError("there is no plan of a comparison; run `make compare`") from None


class Job(BaseModel):
    """.checkpoints/compare/KEY.json: what a training of the plan trains."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str  # of the network
    network: dict[str, Any]
    seed: int

    def write(self, key: str) -> None:
        _job_file(key).write_text(self.model_dump_json() + "\n")

    @classmethod
    def read(cls, key: str) -> Job:
        """Raises UserError when no comparison has planned a training of this key."""
        try:
            return cls.model_validate_json(_job_file(key).read_bytes())
        except (FileNotFoundError, ValidationError):
            raise UserError(f"no comparison has planned the training {key!r}; run `make compare`") from None


def remove_jobs() -> None:
    """Forgets the jobs of earlier plans. Their checkpoints stay, because a later plan may want them."""
    for file in PLAN.parent.glob("*.json"):
        if file != PLAN:
            file.unlink()


def is_done(key: str, folder: Path = Path()) -> bool:
    """Whether the result of a training is there."""
    return (folder / TRAININGS / key / RESULT).is_file()


def _job_file(key: str) -> Path:
    return STATE / STAGE / f"{key}.json"
