"""The score function as an estimator: alpha moves by the losses of sampled architectures (DQAS, arXiv 2010.08561).

Each sample k has one operation per edge, drawn from the mix P. With its loss L and a baseline b, the gradient with
respect to alpha is the mean over the samples of (L - b) grad ln P(k), because E[grad ln P(k)] = 0 (Williams 1992).
The weights descend the mean loss of the same samples. Nothing is differentiated through the mix, so a network need
not make sense at a mix.

Axes: N samples, E edges, O operations, T losses.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from models.errors import InvalidInput
from models.search.gradients import Estimate, Relaxation, Step
from models.search.objective import Pass, leaves

Baseline = Literal["previous", "running", "none"]
RUNNING = 0.9  # what a running baseline keeps of its value in each step


@dataclass(frozen=True)
class ScoreFunctionConfig:
    """The samples of a step, and what their losses are compared with; defaults are the published ones.

    samples   how many architectures are drawn per step
    baseline  the mean loss of the step before ("previous"), a running mean ("running"), or 0 ("none")
    clip      probabilities are kept between (1 - clip) / operations and clip; None: as they are
    best      the share of the samples, those with the lowest losses, that moves alpha. Below 1, it follows the mean of
              these instead of the mean of all (risk-seeking policy gradient, arXiv 1912.04871), and the highest loss
              among them takes the place of the baseline
    """

    samples: int = 128
    baseline: Baseline = "previous"
    clip: float | None = None
    best: float = 1.0


class ScoreFunction:
    """Estimates the gradients of alpha and of the weights from the same samples.

    In the first step, the baseline is 0. Raises InvalidInput for settings out of range.
    """

    moves_together = True

    def __init__(self, config: ScoreFunctionConfig, generator: torch.Generator):
        if config.samples < 1:
            raise InvalidInput(f"{config.samples} samples per step; set 1 or more")
        if config.clip is not None and not 0 < config.clip <= 1:
            raise InvalidInput(f"probabilities are clipped at {config.clip}; set more than 0 and at most 1")
        if not 0 < config.best <= 1:
            raise InvalidInput(
                f"the best {config.best} of the samples move alpha; set more than 0 and at most 1"
            )
        self.config, self.generator = config, generator
        self.baseline_T: Tensor | None = None

    def __call__(self, alphas: Mapping[str, Tensor], relaxation: Relaxation, step: Step) -> Estimate:
        logarithms = {
            group: relaxation(alpha).clamp_min(torch.finfo(alpha.dtype).tiny).log()
            for group, alpha in alphas.items()
        }
        probabilities = self._probabilities(logarithms)
        weights, chosen, losses_NT = self._pass(probabilities, step)
        excess_NT = self._excess(losses_NT)
        gradients = {}
        for column, (group, probabilities_EO) in enumerate(probabilities.items()):
            excess_N = excess_NT[:, min(column, losses_NT.shape[1] - 1)]
            scores_NEO = chosen[group] - probabilities_EO
            gradients[group] = torch.tensordot(excess_N, scores_NEO, dims=1) / len(excess_N)
        self._update(losses_NT.mean(dim=0))
        of_alphas = torch.autograd.grad(
            list(logarithms.values()), list(alphas.values()), [gradients[group] for group in logarithms]
        )
        return Estimate(weights.loss, dict(zip(alphas, of_alphas, strict=True)), weights)

    def while_frozen(self, alphas: Mapping[str, Tensor], relaxation: Relaxation, step: Step) -> Pass:
        with torch.no_grad():
            logarithms = {group: relaxation(alpha).log() for group, alpha in alphas.items()}
        weights, _, losses_NT = self._pass(self._probabilities(logarithms), step)
        self._update(losses_NT.mean(dim=0))
        return weights

    def _pass(
        self, probabilities: Mapping[str, Tensor], step: Step
    ) -> tuple[Pass, dict[str, Tensor], Tensor]:
        """Draws samples: the weights' pass over them, the samples (N, E, O) per group, and their losses (N, T)."""
        chosen = {group: self._drawn(rows) for group, rows in probabilities.items()}
        params = leaves(step.params)
        samples = step.train.sampled(params, chosen)
        total = samples.losses.mean(dim=0).sum()
        found: Sequence[Tensor | None] = [None] * len(params)
        if total.requires_grad:  # it does not where no sampled operation has a weight
            found = torch.autograd.grad(total, list(params.values()), allow_unused=True)
        gradients = {
            name: torch.zeros_like(weight) if gradient is None else gradient
            for (name, weight), gradient in zip(params.items(), found, strict=True)
        }
        losses_NT = samples.losses.detach()
        return Pass(losses_NT.mean(), samples.output, gradients), chosen, losses_NT

    def _drawn(self, probabilities_EO: Tensor) -> Tensor:
        """Samples (N, E, O): 1 at the operations drawn, 0 elsewhere."""
        indices_EN = torch.multinomial(
            probabilities_EO.cpu(), self.config.samples, replacement=True, generator=self.generator
        )
        one_hot_ENO = torch.nn.functional.one_hot(indices_EN, probabilities_EO.shape[1])
        return one_hot_ENO.transpose(0, 1).to(probabilities_EO)

    def _probabilities(self, logarithms: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What samples are drawn from, group -> (E, O): the rows of the mix divided by their sums, and clipped."""
        found = {}
        for group, rows_EO in logarithms.items():
            shares_EO = torch.softmax(rows_EO.detach(), dim=-1)
            if self.config.clip is not None:
                lowest = (1 - self.config.clip) / rows_EO.shape[1]
                shares_EO = shares_EO.clamp(lowest, max(self.config.clip, 1 / rows_EO.shape[1]))
                shares_EO = shares_EO / shares_EO.sum(dim=-1, keepdim=True)
            found[group] = shares_EO
        return found

    def _excess(self, losses_NT: Tensor) -> Tensor:
        """By how much each loss is worse than what it is compared with."""
        if self.config.best < 1:
            limit_T = torch.quantile(losses_NT, self.config.best, dim=0)
            return (losses_NT - limit_T).clamp_max(0.0) / self.config.best
        return losses_NT if self.baseline_T is None else losses_NT - self.baseline_T

    def _update(self, losses_T: Tensor) -> None:
        match self.config.baseline:
            case "previous":
                self.baseline_T = losses_T
            case "running":
                before = losses_T if self.baseline_T is None else self.baseline_T
                self.baseline_T = RUNNING * before + (1 - RUNNING) * losses_T
            case "none":
                pass

    def state_dict(self) -> dict[str, Any]:
        return {"baseline": self.baseline_T, "generator": self.generator.get_state()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.baseline_T = state["baseline"]
        self.generator.set_state(state["generator"])
