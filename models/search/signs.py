"""What is measured of a search besides its loss: signs that it falls apart, or that it does not decide."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from models.search.discretize import discretize, one_hot
from models.search.genotype import Genotype
from models.search.objective import Domain, Mix
from models.search.spaces import restricted, shapes_of
from models.search.strategies import detached, largest_weight, row_entropy
from models.training.evaluation import evaluate

if TYPE_CHECKING:
    from models.search.program import Loaders


def stability(mix: Mix, genotype: Genotype, before: Genotype | None) -> dict[str, int | float | None]:
    """Signs of a search that falls apart or does not decide: entropy, skip connections, edges that keep changing.

    Entropy and skip connections are given over all groups and per group. Changes are counted from the
    genotype ``before``.
    """
    entropy = {group: row_entropy(rows) for group, rows in mix.items()}
    skip_connects = {group: genotype.count("skip_connect", group) for group in mix}
    rows = sum(map(len, mix.values()))
    return {
        "entropy": sum(entropy[group] * len(rows_EO) for group, rows_EO in mix.items()) / rows,
        **{f"entropy_{group}": value for group, value in entropy.items()},
        "largest_weight": largest_weight(mix),
        "skip_connects": sum(skip_connects.values()),
        **{f"skip_connects_{group}": count for group, count in skip_connects.items()},
        "genotype_changes": None if before is None else genotype.changes(before),
    }


def discretization_gap(domain: Domain, supernet: nn.Module, mix: Mix, loaders: Loaders) -> dict[str, float]:
    """The metric of the supernet at the mix and at the discretized mix, and by how much the second is worse.

    Both are measured on the validation cases with the same weights, each after ``Domain.recalibrated`` on the
    calibration cases.
    """
    mix = detached(mix)
    space = restricted(domain.space, shapes_of(mix))
    chosen = one_hot(space, discretize(space, mix))
    discrete = {group: rows.to(mix[group]) for group, rows in chosen.items()}

    def metric(at: Mix) -> float:
        def output(x: Any) -> Any:
            return supernet(x, at)

        with domain.recalibrated(supernet, output, loaders.calibration()):
            return evaluate(supernet, output, loaders.valid(), domain)[domain.metric]

    continuous, discretized = metric(mix), metric(discrete)
    return {
        f"supernet_{domain.metric}": continuous,
        f"discretized_{domain.metric}": discretized,
        "discretization_gap": continuous - discretized
        if domain.higher_is_better
        else discretized - continuous,
    }
