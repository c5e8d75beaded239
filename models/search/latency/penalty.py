"""The latency of the architecture as a term of alpha's loss (arXiv 2001.06392).

Discrete architectures are drawn from the mix, so that the predictor sees nothing but codes of networks that exist, and
the gradient goes straight through the draw (models/search/latency/sampling.py). What is penalized is

    by how much drawn architectures exceed the budget, in relation to it: max(0, ms / budget - 1)

times a multiplier. By dual ascent, the multiplier rises while the architecture that discretization would make takes
longer than the budget, the faster the longer that lasts, and falls slowly while it does not. Its logarithm moves,
because nobody knows its magnitude, and at first it moves as fast as alpha does. Architectures within the budget are
not penalized, so a multiplier that has become too large costs no accuracy once alpha has decided for one of them. With
a fixed weight instead of a budget, the term is ms in relation to the mean latency of the space, as published.

Axes: N architectures (the discretization of the mix first), D columns of a code.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from models.errors import InvalidInput
from models.search.discretize import discretize
from models.search.latency.encoding import Encoding
from models.search.latency.predictors import Predictor
from models.search.latency.sampling import Sampler
from models.search.objective import Mix
from models.search.spaces import SearchSpace
from models.training.averages import Averages

Mode = Literal["st", "sf", "soft"]
MODES: tuple[Mode, ...] = ("st", "sf", "soft")

FIRST, LEAST, MOST = 0.1, 1e-3, 1e4  # multiplier at the start, and between what it stays
FULL_SPEED = 0.2  # over the budget by this share, the multiplier rises at full speed
SLOWLY = 0.25  # of the full speed: at least so fast it rises, and at most so fast it falls
PATIENCE = (
    2.5  # while the budget is exceeded, the speed grows by itself each time that alpha can move this far
)
REFERENCES = 512  # random architectures whose mean latency is the reference


class Latency:
    """A penalty whose multiplier follows a budget in ms, or has a fixed ``weight``.

    mode      st: straight-through, as above; sf: score function, unbiased and noisier; soft: the predictor is given
              the shares of the operations, which it has never seen in training
    samples   architectures drawn per step
    rate      of the multiplier's logarithm per step; the learning rate of alpha

    ``reference_ms`` is the mean latency of the space, predicted. Raises InvalidInput for settings out of range, and
    without budget and weight.
    """

    def __init__(
        self,
        space: SearchSpace,
        predictor: Predictor,
        generator: torch.Generator,
        *,
        budget_ms: float | None,
        weight: float | None = None,
        mode: Mode = "st",
        samples: int = 16,
        temperature: float = 1.0,
        rate: float = 0.1,
        device: torch.device | None = None,
    ):
        _check(budget_ms, weight, mode, samples, temperature)
        self.space, self.generator, self.budget_ms = space, generator, budget_ms
        self.mode, self.samples, self.rate, self.fixed = mode, samples, rate, weight is not None
        self.predictor = predictor.to(device).requires_grad_(False)
        self.sampler = Sampler(Encoding(space), temperature).to(device)
        self.multiplier = torch.tensor(FIRST if weight is None else weight, device=device)
        self.exceeded = torch.zeros(
            (), device=device
        )  # how far alpha could move since the budget was last met
        self.reference_ms = self._reference(device)
        self.averages = Averages()

    @property
    def weight(self) -> Tensor:
        return self.multiplier

    def start_epoch(self, epoch: int) -> None:
        self.averages = Averages()

    def __call__(self, logits: Mapping[str, Tensor], mix: Mix) -> Tensor:
        """The term before the multiplier, which then moves for the next step."""
        drawn = self.sampler(logits, mix, self.sampler.noise(self.samples, self.generator))
        codes_ND = self.sampler.encoding.encode_table(drawn.chosen_NRO)
        if self.mode == "soft":
            soft_1RO = self.sampler.soft(logits, drawn.chosen_NRO[:1])
            codes_ND = torch.cat([codes_ND[:1].detach(), self.sampler.encoding.encode_table(soft_1RO)])
        ms_N = self.predictor(codes_ND.float())
        excess_N = self._excess(ms_N[1:])
        if self.budget_ms is not None:
            self.averages.add({"latency_over_budget": (ms_N[1:] > self.budget_ms).float().mean()})
            if not self.fixed:
                self._ascend(ms_N[0].detach())
        if self.mode == "sf":
            return _score_function(excess_N.detach(), drawn.log_probability_N[1:])
        return excess_N.mean()

    def _excess(self, ms_N: Tensor) -> Tensor:
        if self.fixed or self.budget_ms is None:
            return ms_N / self.reference_ms
        return (ms_N / self.budget_ms - 1).clamp_min(0.0)

    def _ascend(self, ms: Tensor) -> None:
        assert self.budget_ms is not None
        over = (ms / self.budget_ms - 1) / FULL_SPEED
        self.exceeded = torch.where(over > 0, self.exceeded + self.rate, 0.0)
        rise = over.clamp(SLOWLY, 1.0) * (1 + self.exceeded / PATIENCE)
        speed = torch.where(over > 0, rise, over.clamp(-SLOWLY, 0.0))
        self.multiplier = (self.multiplier * (self.rate * speed).exp()).clamp(LEAST, MOST)

    def report(self, mix: Mix) -> dict[str, float | None]:
        """The predicted latency of the mix's genotype, and the multiplier; over the epoch, samples over the budget."""
        code_D = self.sampler.encoding.encode(discretize(self.space, mix))
        return {
            "latency_ms": float(self.predictor(code_D[None])),
            "latency_multiplier": float(self.multiplier),
            "latency_over_budget": None,
            **self.averages.means(),
        }

    def state_dict(self) -> dict[str, Any]:
        return {
            "generator": self.generator.get_state(),
            "multiplier": self.multiplier,
            "exceeded": self.exceeded,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.generator.set_state(state["generator"])
        self.multiplier = state["multiplier"].to(self.multiplier)
        self.exceeded = state["exceeded"].to(self.exceeded)

    def _reference(self, device: torch.device | None) -> float:
        even = {group: torch.zeros(shape, device=device) for group, shape in self.space.shapes().items()}
        shares = {group: torch.softmax(rows, dim=-1) for group, rows in even.items()}
        noise = self.sampler.noise(REFERENCES, torch.Generator().manual_seed(0))
        codes_ND = self.sampler.encoding.encode_table(self.sampler(even, shares, noise).chosen_NRO)
        return float(self.predictor(codes_ND.float()[1:]).mean())


def _score_function(value_N: Tensor, log_probability_N: Tensor) -> Tensor:
    """The mean of the values, whose gradient is that of their expectation (REINFORCE).

    The baseline of a sample is the mean of the others.
    """
    others_N = (value_N.sum() - value_N) / max(len(value_N) - 1, 1)
    scores = ((value_N - others_N) * log_probability_N).mean()
    return value_N.mean() + (scores - scores.detach())


def _check(
    budget_ms: float | None, weight: float | None, mode: str, samples: int, temperature: float
) -> None:
    if budget_ms is None and weight is None:
        raise InvalidInput("latency.budget_ms and latency.weight are null; set one of them")
    if budget_ms is not None and not budget_ms > 0:
        raise InvalidInput(f"latency.budget_ms is {budget_ms}; set a positive number of ms")
    if weight is not None and not weight >= 0:
        raise InvalidInput(f"latency.weight is {weight}; set 0 or more")
    if mode not in MODES:
        raise InvalidInput(f"latency.mode is {mode!r}; choose one of {', '.join(MODES)}")
    if samples < 1 or (mode == "sf" and samples < 2):
        raise InvalidInput(f"latency.draws is {samples}; set 1 or more, and 2 or more with mode sf")
    if not temperature > 0:
        raise InvalidInput(f"latency.temperature is {temperature}; set a positive number")
