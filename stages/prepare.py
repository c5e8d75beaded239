"""prepare: writes the user's data as arrays, in the splits that all later stages use."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from stages import tasks
from stages.plumbing.files import DATA, replacing
from stages.plumbing.runtime import run
from stages.plumbing.tracking import stage_run

if TYPE_CHECKING:
    from stages.params import Params


def main(params: Params) -> None:
    metric = tasks.metric(params)
    with stage_run("prepare", params.data.active()) as tracked:
        with replacing(DATA) as folder:
            card = tasks.preparation(params.task).prepare(params, folder)
            card.write(folder / "data.json", metric)
        tracked.dataset(card, params.data.root)
        tracked.metrics({f"{metric.case}s_{split}": count for split, count in card.counts.items()})
        tracked.artifacts(DATA / "data.json")
    counts = ", ".join(f"{count} {split}" for split, count in card.counts.items())
    print(f"prepare: {params.data.name}, {card.in_words()}: {counts}")
    for notice in card.notices():
        print(f"prepare: {notice}")


if __name__ == "__main__":
    sys.exit(run("prepare", main))
