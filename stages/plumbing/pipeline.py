"""``.checkpoints/pipeline.json``: the MLflow run that the stages of one pipeline execution share.

The first stage of an execution writes the record. Later stages use it to find their parent run, and the summaries
of flows and sweeps link to that run. Reading the record does not import MLflow.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, ValidationError

from stages.plumbing.files import write_json
from stages.plumbing.status import STATE

PIPELINE = STATE / "pipeline.json"


class PipelineRun(BaseModel):
    """The execution that made the run, and where the run is stored."""

    model_config = ConfigDict(frozen=True)

    execution: str  # MSDARTS_EXECUTION, or the process that runs the pipeline
    run_id: str
    experiment_id: str
    tracking_uri: str  # of the store that holds the run

    def write(self) -> None:
        """Replaces the record in the current folder, atomically."""
        STATE.mkdir(exist_ok=True)
        write_json(PIPELINE, self.model_dump())

    @classmethod
    def read(cls, project: Path) -> Self | None:
        """The record of the latest execution in a project's folder; None when none can be read."""
        try:
            return cls.model_validate_json((project / PIPELINE).read_bytes())
        except (
            FileNotFoundError,
            ValidationError,
        ):  # missing, or written by another version of the code
            return None
