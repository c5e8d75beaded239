"""What a finished flow run shows in Prefect: numbers, the cell, and links to MLflow and the registered version."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact

from stages import tasks
from stages.plumbing.files import ARTIFACTS, EXPORT, GENOTYPE, REGISTRY, RETRAIN, SEARCH
from stages.plumbing.pipeline import PipelineRun
from stages.plumbing.settings import PARAMS_FILE, load
from stages.records import ExportRecord, RetrainMetrics, SearchSummary
from stages.registry.record import RegistryRecord

MLFLOW_PAGE = "MSDARTS_MLFLOW_PAGE"  # address of MLflow's pages, for a tracking store that is not a server
DEFAULT_PAGE = "http://127.0.0.1:5000"  # what `make ui` starts

REPORT = ARTIFACTS / "report.html"


def publish(folder: Path, changes: Mapping[str, Any]) -> None:
    """Creates the markdown artifact of the flow run from the files in the workspace. What does not exist is left out."""
    create_markdown_artifact(markdown(folder, changes), key="nas", description="The results of the run")


def markdown(folder: Path, changes: Mapping[str, Any]) -> str:
    """The artifact's text: a table of numbers, links, and the embedded pictures of the cell."""
    rows = [f"| {name} | {text} |" for name, text in _numbers(folder).items()]
    table = ["| metric | value |", "|---|---|", *rows] if rows else []
    changed = [f"With {', '.join(f'`{key}={value}`' for key, value in changes.items())}: "
               f"experiment `{folder.name}`, workspace `{folder}`."] if changes else []  # fmt: skip
    cells = [
        f"**{path.stem}**\n\n![{path.stem} cell]({embedded(path)})"
        for path in sorted((folder / GENOTYPE).glob("*.png"))
    ]
    return "\n\n".join(
        part for part in ["\n".join(changed), "\n".join(table), "\n".join(_links(folder)), *cells] if part
    )


def _numbers(folder: Path) -> dict[str, str]:
    """What the table shows: name -> number."""
    metric = tasks.metric(load(folder / PARAMS_FILE))
    found: dict[str, str] = {}
    if (file := folder / RETRAIN / "metrics.json").exists():
        for form, score in RetrainMetrics.read(file, metric).tested(metric):
            found[f"test {form.words}"] = form.digits(score)
    if (file := folder / SEARCH / "summary.json").exists():
        summary = SearchSummary.read(file, metric)
        if summary.valid_score is not None:
            found[f"validation {metric.words} of the search"] = metric.digits(summary.valid_score)
        found["discretization gap"] = metric.digits(summary.discretization_gap)
        if summary.hessian_eigenvalue is not None:
            found["top Hessian eigenvalue"] = f"{summary.hessian_eigenvalue:.4g}"
    if (file := folder / EXPORT / "export.json").exists():
        exported = ExportRecord.read(file, metric)
        found["parameters"] = f"{exported.params:,}"
        if exported.macs is not None:
            found["MACs"] = f"{exported.macs:,}"
        found["largest difference of the exported file from torch"] = f"{exported.largest_difference:.4g}"
    return found


def mlflow_page(store: str) -> str:
    """The address at which a browser finds the runs of a tracking store."""
    page = os.environ.get(MLFLOW_PAGE) or (store if store.startswith("http") else DEFAULT_PAGE)
    return page.rstrip("/")


def _links(folder: Path) -> list[str]:
    links = []
    pipeline = PipelineRun.read(folder)
    page = mlflow_page(pipeline.tracking_uri if pipeline else "")
    if pipeline:
        run = f"{page}/#/experiments/{pipeline.experiment_id}/runs/{pipeline.run_id}"
        links.append(f"- [MLflow run]({run})")
    if (file := folder / REGISTRY).exists():
        registry = RegistryRecord.read(file)
        name, version = registry.model, registry.version
        links.append(
            f"- [{name} version {version}]({page}/#/models/{name}/versions/{version}): {registry.reason}"
        )
    if (report := folder / REPORT).exists():
        links.append(f"- [report]({report.resolve().as_uri()})")
    return links


def embedded(picture: Path) -> str:
    """The picture as a data address, because the Prefect server cannot read the files of a worker."""
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
