"""The work of the stage measure: table, predictor, record and picture."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from models.search.latency.cells import fastest
from models.search.latency.encoding import Encoding
from models.training.seeds import generator
from stages import tasks
from stages.latencies import (
    LatencyRecord,
    Measurement,
    check_budget,
    read_predictor,
    read_record,
    save_predictor,
    write_table,
)
from stages.measuring import here, kit, picture, tables
from stages.measuring.fitting import Assessment, assess
from stages.measuring.journal import Journal
from stages.plumbing.checkpoint import Checkpoint, key
from stages.plumbing.counting import counting
from stages.plumbing.files import LATENCY, LATENCY_JSON, PREDICTOR, replacing, sha256_of

if TYPE_CHECKING:
    from models.search.spaces import SearchSpace
    from stages.contracts import Latency
    from stages.params import Params

_HELD_OUT = 5  # a table has at least this many times its held-out rows


def measure(params: Params, part: Latency) -> list[str]:
    """Writes artifacts/latency, unless it is there already for the same settings and device. Returns lines to print.

    Raises UserError when the table cannot be used, or when no network keeps to the budget.
    """
    metric, space = tasks.metric(params), space_of(params)
    identity = identity_of(params, part, space)
    record, news = (read_record(metric) if LATENCY_JSON.is_file() else LatencyRecord()), False
    if record.identity != identity or not PREDICTOR.is_file():
        record, news = made(params, part, space, identity), True
    check_budget(params.latency.budget_ms, record)
    return said(record, news=news)


def made(params: Params, part: Latency, space: SearchSpace, identity: str) -> LatencyRecord:
    """Table, predictor, record and picture, written to artifacts/latency."""
    from stages.plumbing.tracking import stage_run  # here, because MLflow takes a second to import

    metric, settings = tasks.metric(params), params.latency
    checkpoint = Checkpoint("measure", identity)
    with stage_run("measure", settings.active(), checkpoint.noted().get("run_id")) as tracked:
        checkpoint.note(run_id=tracked.id)
        rows, found = (from_table if settings.measurements else from_here)(params, part, space, checkpoint)
        others = [read_predictor(space, Path(path), "latency.predictors") for path in settings.predictors]
        encoding = Encoding(space)
        assessed = assess(rows, encoding, lambda genotype: part.macs(params, genotype), others, settings.seed)
        lowest = min(fastest(space, assessed.predictor), *(row.ms for row in rows))
        found |= {"identity": identity, "fastest_ms": max(lowest, 0.0)}
        record = record_of(params, part, space, assessed, rows, found)
        with replacing(LATENCY) as folder:
            write_table(folder / "measurements.csv", rows, tasks.architectures(params.task))
            about = {name: found.get(name) for name in ("device", "processor", "threads", "runtime")}
            save_predictor(
                folder / PREDICTOR.name, assessed.predictor, {**kit.statements(params, part, space), **about}
            )
            picture.draw(folder / "predicted.png", assessed.predicted, assessed.measured, record)
            record.write(folder / LATENCY_JSON.name, metric)
        tracked.metrics(record.content(metric))
        tracked.artifacts(LATENCY)
    checkpoint.remove()
    return record


def from_here(
    params: Params, part: Latency, space: SearchSpace, checkpoint: Checkpoint
) -> tuple[list[Measurement], dict[str, Any]]:
    """Measurements on this machine, and what the record says about them."""
    journal = Journal(checkpoint.folder / "measurements.jsonl")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # no thread of torch shall wait beside what is measured
    try:
        with counting("measure", resumed="measurements") as count:
            architectures, work = tasks.architectures(params.task), here.Bench(params, part)
            survey = here.Survey(params.latency, space, architectures, work, journal, count)
            rows, noise = survey.run()
    finally:
        torch.set_num_threads(threads)
    return rows, {"origin": "measured here", "noise": noise, **here.device(params.latency.threads)}


def from_table(
    params: Params, part: Latency, space: SearchSpace, _: Checkpoint
) -> tuple[list[Measurement], dict[str, Any]]:
    """The rows of the user's table, some of them held out at random, and what the record says about them."""
    config = params.latency
    assert config.measurements is not None
    path = Path(config.measurements).expanduser()
    about = kit.statements(params, part, space)
    table = tables.read(path, space, about, tasks.architectures(params.task))
    tables.check_size(path, table, len(config.predictors))
    work = here.Bench(params, part)
    processor = here.device(config.threads)["processor"]
    tables.check_unit(path, table, processor, lambda genotype: work([genotype])[0][0])
    order = torch.randperm(len(table.rows), generator=generator(config.seed, "held-out rows")).tolist()
    held_out = set(order[: min(config.held_out, len(order) // _HELD_OUT)])
    rows = [replace(row, held_out=place in held_out) for place, row in enumerate(table.rows)]
    threads = table.device.get("threads")
    device = {**table.device, **({"threads": int(threads)} if threads else {})}
    return rows, {"origin": path.name, "noise": table.noise, **device}


def record_of(
    params: Params,
    part: Latency,
    space: SearchSpace,
    assessed: Assessment,
    rows: Sequence[Measurement],
    found: Mapping[str, Any],
) -> LatencyRecord:
    """The content of latency.json."""
    fields = {
        **kit.statements(params, part, space),
        **found,
        "samples": len(rows),
        "held_out": sum(row.held_out for row in rows),
        "kind": assessed.predictor.kind,
        **assessed.own.model_dump(),
        "flops_spearman": assessed.flops.spearman,
        "flops": assessed.flops,
        "additive": assessed.additive,
        "cross_validation": assessed.cross_validation,
    }
    return LatencyRecord.model_validate({name: value for name, value in fields.items() if value is not None})


def said(record: LatencyRecord, *, news: bool) -> list[str]:
    """What the stage prints."""
    if not news:
        return [f"{record.samples} architectures are known already ({record.origin}, {record.processor})"]
    lines = [
        f"{record.samples} architectures, {record.origin} ({record.processor or 'device unknown'}); predictor"
        f" {record.kind}: mean error {100 * (record.mean_relative_error or 0):.1f}%,"
        f" {100 * (record.within_10_percent or 0):.1f}% within 10%, Spearman {record.spearman:.3f} on"
        f" {record.held_out} held out (multiply-accumulates alone: {record.flops_spearman:.3f})"
    ]
    if record.noise is not None:
        lines.append(f"two measurements of an architecture differ by {100 * record.noise:.1f}% on average")
    return lines


def pack(params: Params, part: Latency, path: Path) -> int:
    """Writes a kit and returns how many networks it has."""
    with counting("measure", resumed="") as count:
        return kit.pack(path, params, part, space_of(params), tasks.architectures(params.task), count)


def space_of(params: Params) -> SearchSpace:
    """The space that the search searches in."""
    without_none = bool(params.search.active().get("exclude_none", False))
    return tasks.architectures(params.task).space(params.search.space, exclude_none=without_none)


def identity_of(params: Params, part: Latency, space: SearchSpace) -> str:
    """The hash of all that table and predictor depend on: settings, sizes, code, and the device or the user's table."""
    config = params.latency
    files = [Path(path).expanduser() for path in (config.measurements, *config.predictors) if path]
    content = {
        "about": {
            **kit.statements(params, part, space),
            "exclude_none": space.exclude_none,
            "opset": part.opset(params),
        },
        "device": None if config.measurements else here.device(config.threads),
        "files": [sha256_of(path) if path.is_file() else "" for path in files],
    }
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    return key("measure", params.task, params.latency.of_table(), {"measured": digest})
