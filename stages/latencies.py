"""What the stage measure knows about the latency of a search space: its record, its table and its predictor."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import torch
from safetensors.torch import load_file, save_file

from models.errors import InvalidInput
from models.search.latency.penalty import Latency, Mode
from models.search.latency.predictors import Predictor, restore
from models.search.penalties import Penalty
from models.training.seeds import generator
from stages import tasks
from stages.errors import UserError
from stages.evaluation import Metric
from stages.plumbing.files import LATENCY_JSON, PREDICTOR, sha256_of, write_rows
from stages.records import Record

if TYPE_CHECKING:
    from models.search.genotype import Genotype
    from models.search.spaces import SearchSpace
    from stages.contracts import Architectures
    from stages.params import Params

UNIT = "ms"
_MODES: Mapping[str, Mode] = {"straight-through": "st", "score-function": "sf", "soft": "soft"}
_ABOUT = "latency"  # of the metadata: kind, space, size and device, as JSON


class Qualities(Record):
    """How good predictions are on architectures that no predictor was fitted to."""

    mean_relative_error: float
    within_10_percent: float  # the share with at most 10% of error
    spearman: float
    kendall_tau: float


class LatencyRecord(Record):
    """latency.json: what was measured, on which device, and how good the predictor is. Empty: nothing was asked for."""

    identity: str | None = None  # hash of all that table and predictor depend on
    origin: str | None = None  # "measured here", or the table that the user gave
    space: str | None = None
    size: dict[str, Any] | None = None  # of the networks
    device: str | None = None
    processor: str | None = None
    governor: str | None = None  # of the processor's clock
    threads: int | None = None
    runtime: str | None = None
    batch_size: int | None = None
    precision: str | None = None
    unit: str | None = None
    samples: int | None = None  # architectures in the table
    held_out: int | None = None  # of them, those that the qualities below are about
    kind: str | None = None  # of the predictor
    mean_relative_error: float | None = None
    within_10_percent: float | None = None
    spearman: float | None = None
    kendall_tau: float | None = None
    flops_spearman: float | None = None
    flops: Qualities | None = None  # a straight line through the multiply-accumulates
    additive: Qualities | None = None  # a table with the latency of every operation on every edge
    cross_validation: dict[str, Qualities] | None = None  # kind -> its quality on what it was not fitted to
    noise: float | None = None  # mean relative difference of two measurements of an architecture
    fastest_ms: float | None = None  # the lowest latency in the space, predicted or measured

    @property
    def known(self) -> bool:
        """Whether there is a predictor."""
        return self.identity is not None


@dataclass(frozen=True)
class Measurement:
    """One architecture and its latency in ms."""

    genotype: Genotype
    ms: float
    spread: float | None = None
    held_out: bool = False


def read_record(metric: Metric) -> LatencyRecord:
    """latency.json. Raises UserError when the file is missing or damaged."""
    return LatencyRecord.read(LATENCY_JSON, metric)


def read_predictor(space: SearchSpace, path: Path = PREDICTOR, setting: str = "") -> Predictor:
    """The predictor in a file. Raises UserError when it is missing, damaged, or about another search space."""
    where = f"{setting} has {path}, which" if setting else f"{path}"
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {})[_ABOUT])
        state = load_file(path)
    except FileNotFoundError:
        raise UserError(f"{where} is missing; `dvc repro measure` makes one") from None
    except (safetensors.SafetensorError, OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{where} is damaged ({reason}); delete it and run `dvc repro measure`") from None
    if about["space"] != space.name:
        raise UserError(
            f"{where} is about the space {about['space']}, not {space.name}; give a predictor of that space"
        )
    try:
        return restore(about["kind"], state)
    except InvalidInput as error:
        raise UserError(f"{where} is damaged ({error})") from None


def predictor_sha256() -> str:
    """The hash of the predictor that the search uses. Raises UserError when the stage measure has not made one."""
    if not PREDICTOR.is_file():
        raise UserError(f"{PREDICTOR} is missing; `dvc repro measure` makes it")
    return sha256_of(PREDICTOR)


def save_predictor(path: Path, predictor: Predictor, about: Mapping[str, Any]) -> None:
    """Writes a predictor, and in its metadata ``about``: space, size and device."""
    state = {name: tensor.contiguous().clone() for name, tensor in predictor.state().items()}
    # One metadata entry only: safetensors writes several entries in an order that differs between processes.
    save_file(state, path, {_ABOUT: json.dumps({"kind": predictor.kind, **about})})


def write_table(path: Path, rows: Sequence[Measurement], architectures: Architectures) -> None:
    """measurements.csv"""
    write_rows(
        path,
        [
            {
                "genotype": json.dumps(architectures.genotype_json(row.genotype)),
                "ms": f"{row.ms:.6g}",
                "ms_spread": None if row.spread is None else f"{row.spread:.3g}",
                "held_out": int(row.held_out),
            }
            for row in rows
        ],
    )


def read_table(path: Path, architectures: Architectures) -> list[Measurement]:
    """What ``write_table`` has written."""
    with path.open(newline="") as file:
        return [
            Measurement(
                architectures.genotype_of(json.loads(row["genotype"])),
                float(row["ms"]),
                float(row["ms_spread"]) if row["ms_spread"] else None,
                row["held_out"] == "1",
            )
            for row in csv.DictReader(file)
        ]


def check_budget(budget_ms: float | None, record: LatencyRecord) -> None:
    """Raises UserError when no network of the space is as fast as the budget asks."""
    if budget_ms is not None and record.fastest_ms is not None and budget_ms < record.fastest_ms:
        raise UserError(
            f"latency.budget_ms is {budget_ms:g}, but the fastest network of the space {record.space} takes"
            f" {record.fastest_ms:.3g} ms on this device ({record.processor or record.origin}); raise the budget above that, or make"
            " the networks smaller in section retrain"
        )


def penalties_of(params: Params, space: SearchSpace, device: torch.device) -> list[Penalty]:
    """The penalty with which the search heeds latency, if params.yaml asks for it.

    Raises UserError when the stage measure has not run, or when no network keeps to the budget.
    """
    config = params.latency
    if not config.in_search():
        return []
    check_budget(config.budget_ms, read_record(tasks.metric(params)))
    penalty = Latency(
        space,
        read_predictor(space),
        generator(params.search.seed, "latency"),
        budget_ms=config.budget_ms,
        weight=None if config.weight == "auto" else config.weight,
        mode=_MODES[config.mode],
        samples=config.draws,
        rate=params.search.alpha.learning_rate,
        device=device,
    )
    return [penalty]
