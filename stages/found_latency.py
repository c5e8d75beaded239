"""artifacts/genotype/latency.json: how long the found network takes, and which others were tried before it.

The file is there when the settings ask for latency. discretize writes it; register, report, card and sweeps read it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict

from stages.evaluation import Metric
from stages.plumbing.files import FOUND_LATENCY
from stages.records import Record

if TYPE_CHECKING:
    from stages.latencies import LatencyRecord, Qualities

TITLE = "Latency"
DEVICE = ("device", "processor")  # what tells devices apart


class Tried(BaseModel):
    """A network that was considered, with random weights."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    genotype: dict[str, Any]  # the content of genotype.json
    predicted_ms: float
    measured_ms: float | None = None  # None: this machine is not the device
    measured_ms_spread: float | None = None

    @property
    def ms(self) -> float:
        """As measured, or else as predicted."""
        return self.predicted_ms if self.measured_ms is None else self.measured_ms


class FoundLatency(Record):
    """latency.json: the networks that were tried, in order, and the one that was found in the end."""

    budget_ms: float | None = None
    tolerance: float | None = None  # share of the budget
    measured_here: bool  # whether this machine is the device that the table is about
    device: str | None = None
    processor: str | None = None
    governor: str | None = None
    threads: int | None = None
    runtime: str | None = None
    batch_size: int | None = None  # cases in one call
    precision: str | None = None
    unit: str | None = None
    tried: list[Tried]
    chosen: int  # place in ``tried``, from 0
    notice: str | None = None  # what the user should know, a sentence without a full stop

    @property
    def found(self) -> Tried:
        """The network of genotype.json."""
        return self.tried[self.chosen]

    @property
    def most_ms(self) -> float | None:
        """What the network may take, measured; None: there is no budget."""
        return None if self.budget_ms is None else most(self.budget_ms, self.tolerance or 0.0)

    @property
    def attempts(self) -> int:
        """Networks that were considered."""
        return len(self.tried)

    def metrics(self) -> dict[str, float | None]:
        """The numbers of the found network, for MLflow."""
        return {
            "latency_predicted_ms": self.found.predicted_ms,
            "latency_measured_ms": self.found.measured_ms,
            "latency_budget_ms": self.budget_ms,
        }

    def lines(self) -> list[str]:
        """What discretize prints."""
        said = f"the network takes {self.found.ms:.3g} ms, {self.how} ({self.processor}, {self.conditions})"
        if self.budget_ms is not None:
            said += f"; the budget is {self.budget_ms:g} ms"
        if self.attempts > 1:
            said += f", and {self.attempts} networks were tried"
        return [said, *([f"notice: {self.notice}"] if self.notice else [])]

    @property
    def how(self) -> str:
        """How its latency is known, in a word."""
        return "predicted" if self.found.measured_ms is None else "measured"

    @property
    def conditions(self) -> str:
        """How latency is measured, in words."""
        threads = "an unknown number of threads" if self.threads is None else _count(self.threads, "thread")
        calls = "an unknown number of cases" if self.batch_size is None else _count(self.batch_size, "case")
        runtime = f", {self.runtime}" if self.runtime else ""
        return f"{threads}, {calls} per call{runtime}"


def most(budget_ms: float, tolerance: float) -> float:
    """The highest measured latency that keeps to a budget."""
    return budget_ms * (1 + tolerance)


def is_device(record: Record, described: Mapping[str, Any]) -> bool:
    """Whether the device of a record is the one described (stages/measuring/bench.py)."""
    return all(getattr(record, name) == described[name] for name in DEVICE)


def read_found(metric: Metric, path: Path = FOUND_LATENCY) -> FoundLatency | None:
    """latency.json of the found network; None where latency was not asked for. Raises UserError for a damaged file."""
    return FoundLatency.read(path, metric) if path.is_file() else None


def sentences(found: FoundLatency, table: LatencyRecord, gate_ms: float | None) -> list[str]:
    """What card and report say. ``gate_ms``: what the exported file took when it was registered, if that was measured."""
    taken = found.found
    said = [
        f"The found network {'takes' if taken.measured_ms else 'is predicted to take'} {taken.ms:.3g} ms on"
        f" {found.processor or 'an unknown device'} ({found.conditions}, {found.precision}, clock governor"
        f" {found.governor or 'unknown'}), with random weights."
    ]
    if taken.measured_ms is not None:
        said.append(f"Predicted were {taken.predicted_ms:.3g} ms.")
    if gate_ms is not None:
        said.append(
            f"The exported file took {gate_ms:.3g} ms under the same conditions when it was registered."
        )
    if found.budget_ms is None:
        said.append("There was no budget.")
    else:
        said.append(f"The budget is {found.budget_ms:g} ms, with a tolerance of {found.tolerance or 0:.0%}.")
    if found.attempts > 1:
        times = ", ".join(f"{tried.ms:.3g}" for tried in found.tried)
        said.append(
            f"{found.attempts} networks were tried, because the first missed the budget: {times} ms. The one taken is"
            f" number {found.chosen + 1}, so it is not the network that the mix of the search ends with."
        )
    said.append(
        f"The predictor ({table.kind}) knows {(table.samples or 0) - (table.held_out or 0)} architectures"
        f" ({table.origin}). The table shows its errors on {table.held_out} others."
    )
    if table.noise is not None:
        said.append(f"Two measurements of an architecture differ by {table.noise:.1%} on average.")
    return said


HEADS = ("", "mean error", "within 10%", "Spearman", "Kendall's tau")


def rows(table: LatencyRecord) -> list[tuple[str, ...]]:
    """The qualities of the predictor and of the two that it should beat, on held-out architectures."""
    known: list[tuple[str, LatencyRecord | Qualities | None]] = [
        ("predictor", table),
        ("additive table", table.additive),
        ("multiply-accumulates", table.flops),
    ]
    return [
        (
            name,
            f"{quality.mean_relative_error or 0:.1%}",
            f"{quality.within_10_percent or 0:.0%}",
            f"{quality.spearman or 0:.3f}",
            f"{quality.kendall_tau or 0:.3f}",
        )
        for name, quality in known
        if quality is not None
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' if number != 1 else ''}"
