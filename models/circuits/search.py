"""The search of a circuit as a program of the training loop: the strategy moves the mix, Adam the angles.

Restarts run side by side in one batch, and the best one is the result. The published algorithm (DQAS, arXiv
2010.08561) is the strategy ``Alternating`` with the estimator ``ScoreFunction``; with the estimator ``Joint``, the
same program follows the exact mean over all circuits (RhoDARTS, arXiv 2506.03697). It differs from the
publication in that an epoch is several steps, because the history has one row per epoch.

Axes: R restarts, P places, O candidates, L angles.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.circuits.circuit import GROUP, SuperCircuit, space
from models.circuits.objective import ANGLES, AngleNoise, CircuitObjective, restarts_space, stacked
from models.circuits.targets import Target
from models.errors import InvalidInput
from models.search.discretize import discretize
from models.search.genotype import Genotype
from models.search.gradients import Descent, Step
from models.search.objective import Mix
from models.search.program import Found
from models.search.signs import stability
from models.search.spaces import SearchSpace
from models.search.strategies import Strategy, detached, indecision, largest_weight
from models.training.ahead import Ahead
from models.training.events import Listener, Notice, Row, State
from models.training.optimizers import Adam
from models.training.schedules import geometric
from models.training.seeds import generator

EXACT_BITS = (
    12  # up to 2**12 numbers per restart, scores at a mix are exact; beyond, means over drawn circuits
)
DRAWN = 512  # how many


@dataclass(frozen=True)
class CircuitSearchConfig:
    """Adam on the angles of all candidates.

    learning_rate   falls by equal factors to ``learning_rate_end`` in the last epoch
    initial_angles  the standard deviation, in radians, of the angles at the start
    angle_noise     the standard deviation of noise on the angles of every sample
    """

    epochs: int = 20
    steps: int = 20  # per epoch
    restarts: int = 1
    learning_rate: float = 0.1
    learning_rate_end: float = 0.1
    initial_angles: float = 0.3
    angle_noise: float = 0.0


@dataclass(frozen=True)
class _Standing:
    """How the restarts stand: of each (R,) at its mix and for its most likely circuit. ``best`` has the lowest loss."""

    mixed_loss: Tensor
    mixed_score: Tensor
    loss: Tensor
    score: Tensor

    @property
    def best(self) -> int:
        return int(self.loss.argmin())


def circuit_search(
    circuit: SuperCircuit,
    train: Target,
    valid: Target,
    strategy_of: Callable[[SearchSpace], Strategy],
    config: CircuitSearchConfig,
    seed: int,
    *,
    device: torch.device = torch.device("cpu"),
) -> CircuitSearch:
    """The search. ``strategy_of`` makes a strategy for a space that has one group per restart. Raises InvalidInput."""
    if not circuit.places:
        raise InvalidInput("the circuit has no places, so there is nothing to search")
    return CircuitSearch(
        circuit, train, valid, strategy_of(restarts_space(circuit, config.restarts)), config, seed, device
    )


class CircuitSearch:
    """``Found`` has one group, that of the best restart, and the angles (P, L) of its most likely circuit.

    The best restart is the one whose most likely circuit has the lowest loss on ``valid``. Each row is that of the
    restart which is best in its epoch.
    """

    remedy = "lower search.learning_rate"
    inputs: Collection[Ahead] = ()

    def __init__(
        self,
        circuit: SuperCircuit,
        train: Target,
        valid: Target,
        strategy: Strategy,
        config: CircuitSearchConfig,
        seed: int,
        device: torch.device,
    ):
        self.circuit, self.strategy, self.config, self.seed = circuit, strategy, config, seed
        shape = (config.restarts, len(circuit.places), circuit.num_candidates, circuit.num_angles)
        start = config.initial_angles * torch.randn(shape, generator=generator(seed, "angles"))
        self.angles = start.to(device).requires_grad_()
        self.noise = generator(seed, "angle noise")
        noise = AngleNoise(config.angle_noise, self.noise) if config.angle_noise else None
        self.train, self.valid = CircuitObjective(circuit, train, noise), CircuitObjective(circuit, valid)
        self.optimizer = Adam([self.angles], lr=config.learning_rate)
        self.alphas: list[dict[str, Tensor]] = []

    @property
    def epochs(self) -> int:
        return self.config.epochs

    def start_epoch(self, epoch: int) -> int:
        config = self.config
        self.rate = geometric(config.learning_rate, config.learning_rate_end, epoch, self.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.strategy.start_epoch(epoch)
        self.trained: list[Tensor] = []
        return config.steps

    def step(self) -> None:
        params = {ANGLES: self.angles}
        update = self.strategy.step(Step(params, self.train, self.valid, _no_descent))
        weights = update.weights or self.train.joint_pass(params, update.mix)[0]
        self.angles.grad = weights.gradients[ANGLES]
        self.optimizer.step()
        self.trained.append(weights.output)

    def end_epoch(self, history: Sequence[Row], on_event: Listener) -> Row:
        mix = detached(self.strategy.mix())
        standing = self._standing(mix, len(history) + 1)
        best, metric = standing.best, self.valid.target.metric
        before = self._found(self._mix_after(len(history)), best) if history else None
        self.alphas.append({group: alpha.cpu() for group, alpha in self.strategy.alphas().items()})
        for message in self.strategy.notices():
            on_event(Notice(message))
        trained = torch.stack(self.trained).mean(dim=0)[:, best]
        return {
            "train_loss": float(trained[0]),
            f"train_{metric}": float(trained[1]),
            "valid_loss": float(standing.mixed_loss[best]),
            f"valid_{metric}": float(standing.mixed_score[best]),
            f"likeliest_{metric}": float(standing.score[best]),
            "restart": best + 1,
            "learning_rate": self.rate,
            **self.strategy.report(),
            **stability(_one(mix, best), self._found(mix, best), before),
        }

    def stopped(self, history: Sequence[Row]) -> bool:
        return False

    def state(self) -> State:
        return {
            "angles": self.angles.detach(),
            "optimizer": self.optimizer.state_dict(),
            "strategy": self.strategy.state_dict(),
            "noise": self.noise.get_state(),
            "alphas": self.alphas,
        }

    def restore(self, state: State) -> None:
        with torch.no_grad():
            self.angles.copy_(state["angles"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.strategy.load_state_dict(state["strategy"])
        self.noise.set_state(state["noise"])
        self.alphas = state["alphas"]

    def result(self, history: Sequence[Row], on_event: Listener) -> Found:
        mix, metric = self._mix_after(len(history)), self.valid.target.metric
        standing = self._standing(mix, len(history))
        best = standing.best
        own, found = _one(mix, best), self._found(mix, best)
        at_mix, likeliest = float(standing.mixed_score[best]), float(standing.score[best])
        worse = at_mix - likeliest if self.valid.target.higher_is_better else likeliest - at_mix
        summary = {
            f"supernet_{metric}": at_mix,
            f"discretized_{metric}": likeliest,
            "discretization_gap": worse,
            "largest_weight": largest_weight(own),
            "indecision": indecision(own),
        }
        chosen = torch.tensor(self.circuit.chosen(found))
        angles = self.angles.detach()[best].cpu()[torch.arange(len(chosen)), chosen].double()
        alphas = [_one(epoch, best) for epoch in self.alphas]
        return Found(history, alphas, {ANGLES: angles.contiguous()}, summary, found, len(history))

    def _mix_after(self, epoch: int) -> dict[str, Tensor]:
        """The mix after an epoch, counted from 1."""
        alphas = {group: rows.to(self.angles.device) for group, rows in self.alphas[epoch - 1].items()}
        return detached(self.strategy.mix(alphas))

    def _found(self, mix: Mix, restart: int) -> Genotype:
        return discretize(space(self.circuit), _one(mix, restart))

    @torch.no_grad()
    def _standing(self, mix: Mix, epoch: int) -> _Standing:
        rows, target, angles = stacked(mix), self.valid.target, self.angles.detach()
        restarts = torch.arange(len(rows), device=rows.device)
        likeliest = torch.stack(
            [torch.tensor(self.circuit.chosen(self._found(mix, one))) for one in range(len(rows))]
        )
        found = self.valid.circuits(angles, restarts, likeliest.to(rows.device))
        if target.start(True, angles.dtype)[..., 0].numel() <= 2**EXACT_BITS:
            mixed = self.valid.mixed(angles, rows)
        else:
            mixed = self._mean_of_drawn(angles, rows, epoch)
        return _Standing(
            target.losses(mixed),
            target.scores(mixed).mean(dim=0),
            target.losses(found),
            target.scores(found).mean(dim=0),
        )

    def _mean_of_drawn(self, angles: Tensor, mix_RPO: Tensor, epoch: int) -> Tensor:
        """The mean values (C, R) of drawn circuits, which are the same whenever an epoch is measured."""
        source = generator(self.seed, f"measured circuits of epoch {epoch}")
        rows = mix_RPO.flatten(0, 1).cpu()
        drawn = torch.multinomial(rows, DRAWN, replacement=True, generator=source)
        choices = drawn.reshape(*mix_RPO.shape[:2], DRAWN).permute(2, 0, 1).to(mix_RPO.device)
        sets = torch.arange(len(mix_RPO), device=mix_RPO.device).repeat(DRAWN)
        values = self.valid.circuits(angles, sets, choices.flatten(0, 1))
        return values.unflatten(1, (DRAWN, -1)).mean(dim=1)


def _one(mix: Mix, restart: int) -> dict[str, Tensor]:
    """The rows of one restart, as those of a single circuit."""
    return {GROUP: list(mix.values())[restart]}


def _no_descent() -> Descent:
    raise InvalidInput(
        "the angles move by Adam, so no step of SGD can be looked ahead to; choose another estimator"
    )
