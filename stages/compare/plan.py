"""Chooses the networks of a comparison and names their trainings: ``python -m stages.compare.plan SEEDS RANDOM``.

SEEDS are numbers separated by commas, RANDOM is how many random cells there are at most. The plan is a function of
params.yaml, the data, the found cell and these two. It is kept in .checkpoints/compare/plan.json.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from stages import tasks
from stages.compare.jobs import PLAN, TRAININGS, Job, Plan, PlannedArm, is_done, remove_jobs
from stages.compare.train import training_key
from stages.comparison import identity
from stages.contracts import Arm
from stages.genotypes import read_genotype
from stages.plumbing.files import write_text
from stages.plumbing.runtime import run

if TYPE_CHECKING:
    from models.search.genotype import Genotype
    from stages.params import Params

TOLERANCE = 0.05  # of the number of parameters: beyond, networks are not of equal size


def main(params: Params, seeds: str, random: str) -> None:
    numbers, genotype = [int(seed) for seed in seeds.split(",")], read_genotype(params.task)
    arms, notices = arms_of(params, genotype, int(random))
    planned = [
        PlannedArm(**asdict(arm), keys={seed: training_key(params, arm.network, seed) for seed in numbers})
        for arm in arms
    ]
    plan = Plan(identity=identity(params), seeds=numbers, arms=planned, notices=notices)
    PLAN.parent.mkdir(parents=True, exist_ok=True)
    write_text(PLAN, plan.model_dump_json(indent=2) + "\n")
    remove_jobs()
    missing = [training for training in plan.trainings() if not is_done(training[2])]
    for arm, seed, key in missing:
        Job(name=arm.name, network=arm.network, seed=seed).write(key)
    for arm in arms:
        if arm.params is not None:
            size = "" if arm.macs is None else f", {arm.macs:,} MACs"
            print(f"compare: {arm.name}: {arm.params:,} parameters{size}")
    for notice in notices:
        print(f"compare: notice: {notice}")
    print(f"compare: {len(plan.trainings())} trainings, of which {len(missing)} are not in {TRAININGS} yet")


def arms_of(params: Params, genotype: Genotype, count: int) -> tuple[list[Arm], list[str]]:
    """All networks, the found one first, and what is left out."""
    part, task = tasks.comparison(params.task), params.task
    if part is None:
        return [Arm("found", "found", {}, None)], [
            f"the task {task} offers no networks to compare with (it has no part comparison), so only the found"
            " cell is trained"
        ]
    arms, notices = [part.found(params, genotype)], []
    cells, by_hand = part.random(params, genotype, count), part.baselines(params, genotype)
    if len(cells) < count:
        notices.append(f"the space has only {len(cells)} other cells, so there are no {count} random ones")
    if not by_hand:
        notices.append(f"the task {task} has no networks made by hand, so there are none")
    arms += [*cells, *by_hand]
    return arms, notices + _unequal(arms, params)


def _unequal(arms: Sequence[Arm], params: Params) -> list[str]:
    """A notice about networks whose number of parameters differs too much, and one about devices."""
    found = arms[0].params or 0
    sizes = {arm.name: arm.params for arm in arms if arm.params is not None}
    unequal = [
        f"{name} has {size:,}" for name, size in sizes.items() if abs(size - found) > TOLERANCE * found
    ]
    notices = []
    if unequal:
        notices.append(
            f"not all networks have the {found:,} parameters of the found one within {TOLERANCE:.0%}:"
            f" {', '.join(unequal)}; more channels allow it"
        )
    if params.train.devices > 1:
        notices.append(
            f"train.devices is {params.train.devices}, but each training of a comparison has one device; several"
            " run side by side"
        )
    return notices


if __name__ == "__main__":
    sys.exit(run("compare-plan", main, seeds="seeds, separated by commas", random="how many random cells"))
