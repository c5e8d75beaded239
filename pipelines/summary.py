"""What a finished flow run shows in Prefect: numbers, the cell, and links to MLflow and the registered version."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect.artifacts import create_markdown_artifact

from pipelines.workspace import experiment_name
from stages.plumbing.files import ARTIFACTS, EXPORT, GENOTYPE, REGISTRY, RETRAIN, SEARCH
from stages.plumbing.runtime import PIPELINE

MLFLOW_PAGE = "MSDARTS_MLFLOW_PAGE"  # address of MLflow's pages, for a tracking store that is not a server
DEFAULT_PAGE = "http://127.0.0.1:5000"  # what `make ui` starts

REPORT = ARTIFACTS / "report.html"

METRICS = {  # what the table shows, as (file, key)
    "test accuracy": (RETRAIN / "metrics.json", "test_accuracy"),
    "validation accuracy of the search": (SEARCH / "summary.json", "valid_accuracy"),
    "discretization gap": (SEARCH / "summary.json", "discretization_gap"),
    "top Hessian eigenvalue": (SEARCH / "summary.json", "hessian_eigenvalue"),
    "parameters": (EXPORT / "export.json", "params"),
    "MACs": (EXPORT / "export.json", "macs"),
    "largest difference of ONNX from torch": (EXPORT / "export.json", "largest_difference"),
}


def publish(folder: Path, changes: Mapping[str, Any]) -> None:
    """Creates the markdown artifact of the flow run from the files in the workspace. What does not exist is left out."""
    create_markdown_artifact(markdown(folder, changes), key="nas", description="The results of the run")


def markdown(folder: Path, changes: Mapping[str, Any]) -> str:
    """The artifact's text: a table of numbers, links, and the embedded pictures of the cell."""
    rows = [
        f"| {name} | {_number(content[key])} |"
        for name, (file, key) in METRICS.items()
        if (content := _read(folder / file)).get(key) is not None
    ]
    table = ["| metric | value |", "|---|---|", *rows] if rows else []
    changed = [f"With {', '.join(f'`{key}={value}`' for key, value in changes.items())}: "
               f"experiment `{experiment_name(changes)}`, workspace `{folder}`."] if changes else []  # fmt: skip
    cells = [
        f"**{path.stem}**\n\n![{path.stem} cell]({embedded(path)})"
        for path in sorted((folder / GENOTYPE).glob("*.png"))
    ]
    return "\n\n".join(
        part for part in ["\n".join(changed), "\n".join(table), "\n".join(_links(folder)), *cells] if part
    )


def mlflow_page(store: str) -> str:
    """The address at which a browser finds the runs of a tracking store."""
    page = os.environ.get(MLFLOW_PAGE) or (store if store.startswith("http") else DEFAULT_PAGE)
    return page.rstrip("/")


def _links(folder: Path) -> list[str]:
    links = []
    pipeline, registry = _read(folder / PIPELINE), _read(folder / REGISTRY)
    page = mlflow_page(pipeline.get("tracking_uri", ""))
    if "experiment_id" in pipeline:
        run = f"{page}/#/experiments/{pipeline['experiment_id']}/runs/{pipeline['run_id']}"
        links.append(f"- [MLflow run]({run})")
    if "version" in registry:
        name, version = registry["model"], registry["version"]
        links.append(
            f"- [{name} version {version}]({page}/#/models/{name}/versions/{version}): {registry['reason']}"
        )
    if (report := folder / REPORT).exists():
        links.append(f"- [report]({report.resolve().as_uri()})")
    return links


def _read(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty where the run did not get that far."""
    return json.loads(path.read_text()) if path.exists() else {}


def _number(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def embedded(picture: Path) -> str:
    """The picture as a data address, because the Prefect server cannot read the files of a worker."""
    return f"data:image/png;base64,{base64.b64encode(picture.read_bytes()).decode()}"
