"""discretize: turns the architecture parameters of one epoch into a genotype, and draws each cell.

Where latency is known, the network is measured, and with a budget another one is taken where it misses the budget.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from models.search.discretize import discretize
from models.search.spaces import restricted, shapes_of
from stages import pictures, tasks
from stages.alphas import read_alphas
from stages.errors import UserError
from stages.plumbing.files import ALPHAS, FOUND_LATENCY, GENOTYPE, SEARCH, replacing, write_json
from stages.plumbing.runtime import run
from stages.plumbing.tracking import stage_run
from stages.records import SearchSummary

if TYPE_CHECKING:
    from models.search.genotype import Genotype
    from models.search.objective import Mix
    from models.search.spaces import SearchSpace
    from stages.found_latency import FoundLatency
    from stages.params import Params


def main(params: Params) -> None:
    architectures = tasks.architectures(params.task)
    alphas = read_alphas(ALPHAS)
    summary = SearchSummary.read(SEARCH / "summary.json", tasks.metric(params))
    epoch = summary.chosen_epoch(params.discretize.epoch)
    whole = architectures.space(alphas.about.space, exclude_none=alphas.about.exclude_none)
    space = restricted(
        whole, shapes_of(alphas.mix(epoch))
    )  # where the search has grown, it is that of the epoch
    genotype, latency = discretize(space, alphas.mix(epoch)), None
    if params.latency.known():
        genotype, latency = within_budget(params, space, alphas.mix(epoch), genotype)
    with stage_run("discretize", params.discretize.active()) as tracked:
        with replacing(GENOTYPE) as folder:
            write_json(folder / "genotype.json", architectures.genotype_json(genotype))
            layout = architectures.layout(genotype)
            for name in layout.pictures(genotype):
                pictures.cell(folder / f"{name}.png", genotype, name, layout)
            if latency is not None:
                latency.write(folder / FOUND_LATENCY.name, tasks.metric(params))
        tracked.metrics({"epoch_used": epoch})
        if latency is not None:
            tracked.metrics(latency.metrics())
            tracked.tags(latency_attempts=str(latency.attempts))
        tracked.artifacts(GENOTYPE)
    for group, edges in genotype.groups.items():
        ways = (f"{src}->{dst} {op}" if src != dst else f"{dst} {op}" for src, dst, op in edges)
        named = (f"{row} {edge[2]}" for row, edge in zip(layout.rows, edges, strict=False))
        print(f"discretize: {layout.title(group)}: {', '.join(named if layout.rows else ways)}")
    for line in latency.lines() if latency is not None else ():
        print(f"discretize: {line}")


def within_budget(
    params: Params, space: SearchSpace, mix: Mix, genotype: Genotype
) -> tuple[Genotype, FoundLatency]:
    """The genotype that keeps to the budget, and how long its network takes."""
    from stages.measuring.found import found  # here, because most runs need no ONNX Runtime

    if (part := tasks.latency(params.task)) is None:
        raise UserError(
            f"the task {params.task} cannot measure the latency of its networks; set latency.budget_ms and"
            " latency.measurements to null, and latency.weight to auto"
        )
    return found(params, part, space, mix, genotype)


if __name__ == "__main__":
    sys.exit(run("discretize", main))
