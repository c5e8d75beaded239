"""What a stage reports to the program that started it, in two small files under ``.checkpoints/STAGE/``.

``progress.json`` says how far the stage is; ``outcome.json`` says how the stage ended. Each holds one record. The
files are replaced atomically, so that a reader finds complete records even if the stage is killed. A killed stage
leaves no outcome. Each record names the attempt that it belongs to, so that records of earlier attempts are not
mistaken for it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, ValidationError

STATE = Path(
    ".checkpoints"
)  # what stages keep between attempts; not declared in dvc.yaml, so that DVC does not touch it
EXECUTION = "MSDARTS_EXECUTION"  # id of the execution of the pipeline, which is a flow run
ATTEMPT = "MSDARTS_ATTEMPT"  # id of this start of the stage; a flow run that retries a stage makes another
INTERVAL = 1.0  # seconds between two writes of the progress within an epoch


def _execution() -> str:
    return os.environ.get(EXECUTION) or str(os.getpid())


def _attempt() -> str:
    return os.environ.get(ATTEMPT, "")


class _Status(BaseModel):
    """A record about a stage, in its own file."""

    model_config = ConfigDict(frozen=True)
    file: ClassVar[str]

    execution: str  # MSDARTS_EXECUTION, or the id of the process
    attempt: str  # MSDARTS_ATTEMPT; empty when no program that reads the files started the stage

    def write(self, stage: str) -> None:
        """Replaces the file of the stage, in the current folder."""
        path = STATE / stage / self.file
        path.parent.mkdir(parents=True, exist_ok=True)
        # The name contains the process id, because a stage that does not get the lock writes its outcome without it.
        new = path.with_name(f"{path.name}.{os.getpid()}.new")
        new.write_text(self.model_dump_json(indent=2) + "\n", encoding="utf-8")
        os.replace(new, path)

    @classmethod
    def read(cls, project: Path, stage: str, attempt: str) -> Self | None:
        """The record of a stage in ``project`` from this attempt; None when there is none."""
        try:
            record = cls.model_validate_json((project / STATE / stage / cls.file).read_bytes())
        except (FileNotFoundError, ValidationError):  # missing, or written by another version of the code
            return None
        return record if record.attempt == attempt else None


class Progress(_Status):
    """How far a stage is. A stage that does not train has 0 epochs and reports only that it has begun."""

    file: ClassVar[str] = "progress.json"

    epoch: int = 0  # the present one, counted from 1
    epochs: int = 0
    step: int = 0  # of the epoch
    steps: int = 0
    saved: int = 0  # epochs in the checkpoint that the next attempt resumes from; 0: there is none
    remaining: str = ""  # what the next attempt still has to do, in a stage that resumes without epochs
    seconds_left: float | None = None  # None when not known yet
    values: dict[str, float | None] = {}  # the last epoch's row of the history
    line: str = ""  # the line that is printed

    @property
    def fraction(self) -> float | None:
        """The fraction of all steps that is done, 0 to 1; None for a stage that does not train."""
        total = self.epochs * self.steps
        return ((self.epoch - 1) * self.steps + self.step) / total if total else None


def next_attempt(stage: str, progress: Progress | None) -> str:
    """What the next attempt does after an interruption, as the end of a sentence that begins with who makes it."""
    if progress is not None and progress.saved:
        return f"resumes {stage} after epoch {progress.saved}"
    if progress is not None and progress.remaining:
        return f"resumes {stage} with {progress.remaining}"
    return f"starts {stage} again"


class Outcome(_Status):
    """How a stage ended."""

    file: ClassVar[str] = "outcome.json"

    status: int  # exit status
    message: str  # one line that says what went wrong; empty when nothing did
    started: datetime
    ended: datetime


class ProgressFile:
    """Keeps progress.json up to date."""

    def __init__(self, stage: str):
        self.stage = stage
        self.progress = Progress(execution=_execution(), attempt=_attempt())
        self._written = -float("inf")

    def due(self) -> bool:
        """Whether it is time to write again."""
        return time.monotonic() - self._written >= INTERVAL

    def write(self, **changes: Any) -> None:
        """Updates these fields and writes the progress."""
        fields: Mapping[str, Any] = {**self.progress.model_dump(), **changes}
        self.progress = Progress.model_validate(fields)
        self.progress.write(self.stage)
        self._written = time.monotonic()


def begin(stage: str) -> None:
    """Records that the stage has begun and removes earlier records. The caller must hold the stage's lock."""
    folder = STATE / stage
    (folder / Outcome.file).unlink(missing_ok=True)
    for left_by_a_killed_process in folder.glob("*.json.*.new"):
        left_by_a_killed_process.unlink(missing_ok=True)
    ProgressFile(stage).write()


def own_progress(stage: str) -> Progress | None:
    """The progress that this attempt has recorded, in the current folder."""
    return Progress.read(Path(), stage, _attempt())


def end(stage: str, started: datetime, status: int, message: str = "") -> None:
    """Records how the stage ended."""
    Outcome(
        execution=_execution(),
        attempt=_attempt(),
        status=status,
        message=message,
        started=started,
        ended=now(),
    ).write(stage)


def now() -> datetime:
    return datetime.now(UTC)
