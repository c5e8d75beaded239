"""discretize: turns the architecture parameters of one epoch into a genotype, and draws each cell."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from models.search.discretize import discretize
from stages import pictures, tasks
from stages.alphas import read_alphas
from stages.plumbing.files import ALPHAS, GENOTYPE, SEARCH, replacing, write_json
from stages.plumbing.runtime import run
from stages.plumbing.tracking import stage_run
from stages.records import SearchSummary

if TYPE_CHECKING:
    from stages.params import Params


def main(params: Params) -> None:
    architectures = tasks.architectures(params.task)
    alphas = read_alphas(ALPHAS)
    summary = SearchSummary.read(SEARCH / "summary.json", tasks.metric(params.task))
    epoch = summary.chosen_epoch(params.discretize.epoch)
    space = architectures.space(alphas.about.space, exclude_none=alphas.about.exclude_none)
    genotype = discretize(space, alphas.mix(epoch))
    with stage_run("discretize", params.discretize.active()) as tracked:
        with replacing(GENOTYPE) as folder:
            write_json(folder / "genotype.json", architectures.genotype_json(genotype))
            for group in genotype.groups:
                pictures.cell(folder / f"{group}.png", genotype, group, architectures.layout(genotype))
        tracked.metrics({"epoch_used": epoch})
        tracked.artifacts(GENOTYPE)
    for group, edges in genotype.groups.items():
        print(f"discretize: {group} cell: {', '.join(f'{src}->{dst} {op}' for src, dst, op in edges)}")


if __name__ == "__main__":
    sys.exit(run("discretize", main))
