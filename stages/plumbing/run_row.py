"""The row of a run in MLflow's table: what it is called, where it comes from, what it has found, on which data.

The row is the run above those of the stages. It gets the numbers of each stage that has ended, and those of the stages
before it, which may have been up to date. What later stages have left of an earlier run stays out.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from stages import tasks
from stages.errors import UserError
from stages.params import NOT_OF_RESULTS
from stages.plumbing.files import EXPORT, FOUND_LATENCY, RETRAIN, SEARCH, read_json
from stages.plumbing.naming import experiment_name
from stages.plumbing.runtime import WORKSPACES
from stages.plumbing.settings import PARAMS_FILE, load, read
from stages.records import DataCard, ExportRecord, Record, RetrainMetrics, SearchSummary

if TYPE_CHECKING:
    from mlflow.entities import Run

    from stages.evaluation import Metric
    from stages.plumbing.tracking import StageRun

Kind = TypeVar("Kind", bound=Record)

FLOW_RUN = "MSDARTS_FLOW_RUN"  # variable: id of the flow run, if a flow has started the stage
STAGES = ("prepare", "measure", "search", "discretize", "retrain", "export", "register", "report")


def name() -> str:
    """The name of the run that this stage belongs to: that of its DVC experiment and of its flow run, if it has them."""
    return os.environ.get("DVC_EXP_NAME") or _workspace() or experiment_name({})


def tags(commit: str) -> dict[str, str]:
    """Where the run comes from. ``commit`` may end in "-dirty", and is "none" outside git."""
    flow_run = os.environ.get(FLOW_RUN)
    known = {
        "stage": "pipeline",
        "git_commit": commit,
        "params_sha256": settings_sha256(),
        "mlflow.source.git.commit": commit.removesuffix("-dirty") if commit != "none" else "",
        "mlflow.source.name": "pipelines/nas.py" if flow_run else "dvc.yaml",
        "mlflow.source.type": "LOCAL",
        "dvc_experiment": os.environ.get("DVC_EXP_NAME") or _workspace(),
        "prefect_flow_run": flow_run or "",
    }
    return {name: value for name, value in known.items() if value}


def goes_on(row: Run, name: str, tags: Mapping[str, str]) -> bool:
    """Whether a run that is called and tagged so goes on with this row: that of a run that was interrupted or has failed."""
    same = ("git_commit", "params_sha256")
    return (
        row.info.status != "FINISHED"
        and row.info.run_name == name
        and all(row.data.tags.get(tag) == tags[tag] for tag in same)
    )


def settings_sha256() -> str:
    """The hash of all settings that results depend on."""
    content = {name: section for name, section in read(PARAMS_FILE).items() if name not in NOT_OF_RESULTS}
    return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()


def update(row: StageRun, run: Run, stage: str, *, ended: bool) -> None:
    """Adds what is known when a stage begins or has ended. ``run`` is the row as it was."""
    known = STAGES[: STAGES.index(stage) + ended]
    values = {name: value for name, value in numbers(known).items() if run.data.metrics.get(name) != value}
    if values:
        row.metrics(values)
    if "prepare" in known and (prepared := data()) is not None:
        before = run.inputs.dataset_inputs if run.inputs else []
        there = {(each.dataset.name, each.dataset.digest) for each in before}
        card, source = prepared
        if (card.name, digest(card)) not in there:
            row.dataset(card, source)


def data() -> tuple[DataCard, str] | None:
    """The prepared data set and data.root; None where there is none."""
    params = read(PARAMS_FILE)
    try:
        return tasks.data(params["task"]).read_card(), str(params["data"]["root"])
    except UserError:
        return None


def numbers(ended: Collection[str]) -> dict[str, float]:
    """The numbers of these stages, as far as they have been found."""
    metric = tasks.metric(load())
    found: dict[str, float | None] = {}
    if "search" in ended and (summary := _read(SearchSummary, SEARCH / "summary.json", metric)):
        found |= {
            "discretization_gap": summary.discretization_gap,
            "hessian_eigenvalue": summary.hessian_eigenvalue,
            f"search_valid_{metric.name}": summary.valid_score,
        }
    if "discretize" in ended and FOUND_LATENCY.exists():
        latency = read_json(FOUND_LATENCY)
        chosen = latency["tried"][latency["chosen"]]
        found |= {
            "latency_budget_ms": latency.get("budget_ms"),
            "latency_predicted_ms": chosen["predicted_ms"],
            "latency_measured_ms": chosen.get("measured_ms"),
        }
    if "retrain" in ended and (retrained := _read(RetrainMetrics, RETRAIN / "metrics.json", metric)):
        found |= {form.test_name: score for form, score in retrained.tested(metric)}
        found |= {f"valid_{metric.name}": retrained.valid_score, "params": retrained.params}
    if "export" in ended and (exported := _read(ExportRecord, EXPORT / "export.json", metric)):
        found |= {
            "latency_ms": exported.latency_ms.get("onnxruntime_batch_1"),
            "macs": exported.macs,
            "size_bytes": exported.size_bytes,
        }
    return {name: float(value) for name, value in found.items() if value is not None}


def _read(kind: type[Kind], file: Path, metric: Metric) -> Kind | None:
    """A record; None where its file is missing or damaged, which the stage that needs the file says."""
    try:
        return kind.read(file, metric) if file.exists() else None
    except UserError:
        return None


def digest(card: DataCard) -> str:
    """The hash of a data set, as MLflow keeps it."""
    return card.sha256[:36]


def _workspace() -> str:
    """The name of the workspace that is the current folder; empty elsewhere."""
    here = Path.cwd()
    return here.name if here.parent.parts[-len(WORKSPACES.parts) :] == WORKSPACES.parts else ""
