"""What is added to the loss that alpha descends: a function of alpha alone, times a weight.

Those here make the mix decide. They rise over the epochs: at first the loss of the network moves alpha, in the end the
penalty does. Another one keeps a budget of latency (models/search/latency/penalty.py). A penalty fits every estimator,
because its gradient is added to the estimator's.

Axes: E edges, O operations.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from models.errors import InvalidInput
from models.search.discretize import discretize, one_hot
from models.search.objective import Mix
from models.search.spaces import SearchSpace, restricted, shapes_of
from models.training.schedules import linear

Measure = Callable[[Mapping[str, Tensor], Mix], Tensor]


class Penalty(Protocol):
    """A term of alpha's loss that depends on alpha alone."""

    @property
    def weight(self) -> float | Tensor:
        """The factor of the term in this step."""
        ...

    def start_epoch(self, epoch: int) -> None: ...

    def __call__(self, logits: Mapping[str, Tensor], mix: Mix) -> Tensor:
        """The term before it is weighted, a scalar, differentiable in both: group -> (E, O).

        ``mix`` is the relaxation of ``logits``.
        """
        ...

    def report(self, mix: Mix) -> dict[str, float | None]:
        """Columns of the history of its own, at the end of an epoch."""
        ...

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Constant:
    """A measure whose weight is the same in all epochs. Raises InvalidInput for a negative one."""

    def __init__(self, measure: Measure, weight: float):
        if not weight >= 0:
            raise InvalidInput(f"the weight of a penalty is {weight}; set 0 or more")
        self.measure, self.weight = measure, weight

    def start_epoch(self, epoch: int) -> None:
        pass

    def __call__(self, logits: Mapping[str, Tensor], mix: Mix) -> Tensor:
        return self.measure(logits, mix)

    def report(self, mix: Mix) -> dict[str, float | None]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        pass


class Rising(Constant):
    """A measure whose weight is 0 up to epoch ``start`` and rises linearly from there to ``weight`` in the last epoch.

    Epochs count from 0. Raises InvalidInput for a negative weight, or a start that is no epoch.
    """

    def __init__(self, measure: Measure, weight: float, epochs: int, start: int = 0):
        super().__init__(measure, weight)
        if not 0 <= start < epochs:
            raise InvalidInput(
                f"a penalty starts in epoch {start} of {epochs}; set one from 0 to {epochs - 1}"
            )
        self.last, self.epochs, self.start = weight, epochs, start
        self.weight = 0.0

    def start_epoch(self, epoch: int) -> None:
        self.weight = linear(0.0, self.last, max(epoch - self.start, 0), self.epochs - self.start)


def repetition(logits: Mapping[str, Tensor], mix: Mix) -> Tensor:
    """The sum over neighbouring rows i, i + 1 of the probability that both have the same operation.

    Of a regularizer of DQAS (arXiv 2010.08561), which keeps equal layers from following each other.
    """
    return torch.stack([(rows[:-1] * rows[1:]).sum() for rows in mix.values()]).sum()


@dataclass(frozen=True)
class Cost:
    """The expected cost of the architecture, where ``costs`` (O,) are those of the operations (arXiv 2010.08561)."""

    costs: Tensor

    def __call__(self, logits: Mapping[str, Tensor], mix: Mix) -> Tensor:
        return torch.stack([(rows * self.costs.to(rows)).sum() for rows in mix.values()]).sum()


def beta(logits: Mapping[str, Tensor], mix: Mix) -> Tensor:
    """The mean over all edges of logsumexp(alpha) (beta-DARTS, arXiv 2203.01665).

    Its gradient with respect to a row of alpha is the row's softmax divided by the number of edges: strong
    operations are held back most. Published weight in the last epoch: 50, without weight decay on alpha.
    """
    return torch.cat([alpha.logsumexp(dim=-1) for alpha in logits.values()]).mean()


def entropy(logits: Mapping[str, Tensor], mix: Mix) -> Tensor:
    """The mean over all edges of the mix's entropy in nats (discretization-aware search, arXiv 2007.03154).

    It falls as every edge settles on its strongest operation. Rows are divided by their sums first, which
    matters for sigmoid weights only.
    """
    # A pruned operation has the share 0, where the slope of the entropy is infinite.
    least = [shares(rows).clamp_min(torch.finfo(rows.dtype).tiny) for rows in mix.values()]
    return torch.cat([torch.special.entr(rows).sum(dim=-1) for rows in least]).mean()


@dataclass(frozen=True)
class Discretization:
    """The mean over the edges of the cross-entropy in nats between the mix and its own discretization.

    An edge that the genotype keeps is pulled to its operation. An edge that the genotype drops is pulled to
    ``none``, so that leaving it out changes nothing; without ``none`` among its operations, such an edge is
    left alone. Unlike ``entropy``, this also decides which edges stay (arXiv 2007.03154 has parameters of
    their own for that). ``space`` is the largest one of a search that grows.
    """

    space: SearchSpace

    def __call__(self, logits: Mapping[str, Tensor], mix: Mix) -> Tensor:
        space = restricted(self.space, shapes_of(mix))
        chosen = one_hot(space, discretize(space, mix))
        terms = []
        for group, edges in space.groups.items():
            target = chosen[group].to(mix[group])
            for row, edge in enumerate(edges):
                if "none" in edge.ops and not target[row].any():
                    target[row, edge.ops.index("none")] = 1.0
            logshares = shares(mix[group]).clamp_min(torch.finfo(target.dtype).tiny).log()
            terms.append(-(target * logshares).sum(dim=-1))
        return torch.cat(terms).mean()


def shares(rows_EO: Tensor) -> Tensor:
    """The rows of a mix divided by their sums."""
    return rows_EO / rows_EO.sum(dim=-1, keepdim=True)
