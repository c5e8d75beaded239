"""A sweep over budgets of latency on a real server: one table for all trials, and a front of accuracy against latency."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

from pipelines.workspace import WORKSPACES
from tests.pipelines.conftest import SMALL, Server
from tests.pipelines.test_sweep import Swept, new_project
from tests.stages.conftest import write_params

FEW = {
    "latency.samples": 40,
    "latency.held_out": 8,
    "latency.repeated": 4,
    "latency.rounds": 1,
    "latency.repeats": 3,
}


def artifact(swept: Swept, experiment: str, name: str) -> dict[str, Any]:
    return json.loads((swept.project / WORKSPACES / experiment / "artifacts" / name).read_text())


def front_of(swept: Swept) -> list[dict[str, str]]:
    (run,) = swept.runs("sweep")
    files = Path(str(run.info.artifact_uri).removeprefix("file://"))
    assert (files / "front.png").read_bytes().startswith(b"\x89PNG")
    return list(csv.DictReader((files / "front.csv").read_text().splitlines()))


def test_budgets_make_a_front_and_networks_are_measured_once(tmp_path: Path, server: Server) -> None:
    swept = new_project(tmp_path / "project", server)
    write_params(swept.project / "params.yaml", {**SMALL, **FEW, "search.epochs": 2})
    swept.sweep("--seeds", "1", "--grid", "latency.budget_ms=1000,null")
    rows = swept.table()
    assert [row["latency.budget_ms"] for row in rows] == ["1000", ""]
    assert [row["state"] for row in rows] == ["ran", "ran"]
    assert len(swept.runs("measure")) == 1  # the trials share its table
    tables = [artifact(swept, row["experiment"], "latency/latency.json") for row in rows]
    assert tables[0] == tables[1] and tables[0]["samples"] == 40
    for row in rows:
        found = artifact(swept, row["experiment"], "genotype/latency.json")
        assert float(row["latency_ms"]) == found["tried"][found["chosen"]]["measured_ms"] > 0
        assert found.get("budget_ms") == (
            float(row["latency.budget_ms"]) if row["latency.budget_ms"] else None
        )
        history = swept.project / WORKSPACES / row["experiment"] / "artifacts/search/history.csv"
        assert ("latency_ms" in history.read_text().splitlines()[0]) == bool(row["latency.budget_ms"])
    front = front_of(swept)
    assert sorted(float(point["latency_ms"]) for point in front) == [
        float(point["latency_ms"]) for point in front
    ]
    assert {point["latency_ms"] for point in front} == {row["latency_ms"] for row in rows}
    shown = server.client.read_artifacts(
        artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=["sweep"]))
    )
    assert any("**The front of the sweep**" in str(each.data) for each in shown)
    winner = swept.project / WORKSPACES / swept.winner()["experiment"] / "artifacts"
    page = (winner / "report.html").read_text()
    assert "The front of the sweep" in page and 'id="latency"' in page
    # The same sweep again repeats nothing, although measure is always called.
    runs = {stage: len(swept.runs(stage)) for stage in ("measure", "search", "discretize", "retrain")}
    swept.sweep("--seeds", "1", "--grid", "latency.budget_ms=1000,null")
    assert [row["state"] for row in swept.table()] == ["cached", "cached"]
    assert {stage: len(swept.runs(stage)) for stage in runs} == runs
    assert (winner / "report.html").read_text() == page
