"""The latency budget at the gate: it is what registry.max_latency_ms means where that is null.

The gate's own latency is that of one case on all cores. A budget has conditions of its own (threads, cases per call), so
the exported file is measured under these, by the program that has measured the table. Where this machine is not the
budget's device, the gate has no limit.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from stages import tasks
from stages.found_latency import FoundLatency, is_device, most
from stages.registry.gate import Budget

if TYPE_CHECKING:
    from stages.params import Params, RegistryParams

_TRIES = 3  # of a measurement, until one keeps to the budget


def applies(params: Params, found: FoundLatency | None) -> bool:
    """Whether the budget of the found network limits what the exported file may take on this machine."""
    if found is None or found.budget_ms is None or params.registry.max_latency_ms is not None:
        return False
    from stages.measuring.bench import described  # here, because most calls need no ONNX Runtime

    return is_device(found, described(params.latency.threads))


def limits_of(params: Params, found: FoundLatency | None) -> RegistryParams:
    """The gate's settings, with what the budget makes of max_latency_ms."""
    if found is None or not applies(params, found):
        return params.registry
    return params.registry.model_copy(update={"max_latency_ms": found.most_ms})


def measured(params: Params, found: FoundLatency | None, file: Path) -> Budget | None:
    """How long the exported file takes under the budget's conditions, here and now; None where the budget is no limit.

    A file that takes too long is measured again, because other programs make it slower, and never faster.
    """
    part = tasks.latency(params.task)
    if found is None or found.budget_ms is None or part is None or not applies(params, found):
        return None
    limit_ms = most(found.budget_ms, found.tolerance or 0.0)
    from stages.measuring import bench

    config, threads = params.latency, found.threads or params.latency.threads
    feed = bench.feed_of(part.inputs(params), found.batch_size or config.batch_size)
    network, taken_ms = file.read_bytes(), float("inf")
    for _ in range(_TRIES):
        ((ms, _spread),) = bench.measured([network], feed, threads, config.repeats, config.warmup)
        if (taken_ms := min(taken_ms, ms)) <= limit_ms:
            break
    return Budget(found.budget_ms, taken_ms, found.conditions)


def measures(timed: Budget | None) -> dict[str, float]:
    """The same as a further number of a version."""
    return {} if timed is None else {"budgeted_latency_ms": timed.taken_ms}
