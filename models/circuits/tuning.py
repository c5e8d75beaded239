"""Fine-tunes the angles of a found circuit by Adam, from several starts in one batch, as a program of the loop.

The result is the start and the epoch with the lowest loss on the validation target. All is computed in float64.

Axes: S starts, P places, L angles.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from models.circuits.circuit import Gate, Place, SuperCircuit
from models.circuits.objective import ANGLES, CircuitObjective
from models.circuits.targets import Target
from models.errors import InvalidInput
from models.search.genotype import Genotype
from models.training.ahead import Ahead
from models.training.events import Listener, Row, State
from models.training.optimizers import Adam
from models.training.schedules import geometric
from models.training.seeds import generator
from models.training.trained import Trained


@dataclass(frozen=True)
class TuningConfig:
    """Adam on the angles of each start; the rate falls by equal factors.

    ``initial_angles`` is the standard deviation, in radians, of the angles that starts are drawn with.
    """

    epochs: int = 20
    steps: int = 20  # per epoch
    starts: int = 8
    learning_rate: float = 0.1
    learning_rate_end: float = 0.001
    initial_angles: float = 1.0


def decided(circuit: SuperCircuit, genotype: Genotype) -> SuperCircuit:
    """The circuit in which every place has one candidate, that of the genotype. Raises InvalidInput."""
    chosen = iter(circuit.chosen(genotype))

    def only(element: Gate | Place) -> Gate | Place:
        return Place((element.candidates[next(chosen)],)) if isinstance(element, Place) else element

    moments = tuple(tuple(only(element) for element in moment) for moment in circuit.moments)
    return SuperCircuit(circuit.qubits, moments, circuit.couplings, circuit.noise)


def tuning(
    circuit: SuperCircuit,
    genotype: Genotype,
    train: Target,
    valid: Target,
    config: TuningConfig,
    seed: int,
    *,
    start: Tensor | None = None,
    device: torch.device = torch.device("cpu"),
) -> Tuning:
    """The tuning of a genotype's angles. ``start`` (P, L or more), such as the search's angles, is the first start."""
    if config.starts < 1:
        raise InvalidInput(f"{config.starts} starts; set 1 or more")
    return Tuning(decided(circuit, genotype), train, valid, config, seed, start, device)


class Tuning:
    """``Trained.weights``: ``angles`` (P, L) of the best start, and ``starts`` (S, P, L), each at its best epoch."""

    remedy = "lower retrain.learning_rate"
    inputs: Collection[Ahead] = ()

    def __init__(
        self,
        circuit: SuperCircuit,
        train: Target,
        valid: Target,
        config: TuningConfig,
        seed: int,
        start: Tensor | None,
        device: torch.device,
    ):
        self.config = config
        self.train, self.valid = CircuitObjective(circuit, train), CircuitObjective(circuit, valid)
        shape = (config.starts, len(circuit.places), circuit.num_angles)
        source = generator(seed, "starts")
        angles = config.initial_angles * torch.randn(shape, generator=source, dtype=torch.float64)
        if start is not None:
            angles[0] = start[:, : circuit.num_angles]
        self.angles = angles.to(device).requires_grad_()
        self.optimizer = Adam([self.angles], lr=config.learning_rate)
        self.best_losses = torch.full((config.starts,), torch.inf, dtype=torch.float64)
        self.best_angles, self.best_epochs = angles.clone(), torch.zeros(config.starts, dtype=torch.int64)

    @property
    def epochs(self) -> int:
        return self.config.epochs

    def start_epoch(self, epoch: int) -> int:
        config = self.config
        self.rate = geometric(config.learning_rate, config.learning_rate_end, epoch, self.epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate
        self.trained: list[Tensor] = []
        return config.steps

    def step(self) -> None:
        losses_S, scores_S = self._measured(self.train)
        self.optimizer.zero_grad()
        if losses_S.requires_grad:  # it does not where the circuit has no free angles
            losses_S.sum().backward()
            self.optimizer.step()
        self.trained.append(torch.stack([losses_S.detach(), scores_S]))

    @torch.no_grad()
    def end_epoch(self, history: Sequence[Row], on_event: Listener) -> Row:
        losses_S, scores_S = self._measured(self.valid)
        losses_S = losses_S.cpu()
        better = losses_S < self.best_losses
        self.best_losses = torch.where(better, losses_S, self.best_losses)
        self.best_angles[better] = self.angles.detach().cpu()[better]
        self.best_epochs[better] = len(history) + 1
        now, metric = int(losses_S.argmin()), self.valid.target.metric
        trained = torch.stack(self.trained).mean(dim=0)[:, now]
        return {
            "train_loss": float(trained[0]),
            f"train_{metric}": float(trained[1]),
            "valid_loss": float(losses_S[now]),
            f"valid_{metric}": float(scores_S[now]),
            "start": now + 1,
            "learning_rate": self.rate,
        }

    def _measured(self, objective: CircuitObjective) -> tuple[Tensor, Tensor]:
        """The losses and scores of the starts, each (S,)."""
        sets = torch.arange(len(self.angles), device=self.angles.device)
        choices = torch.zeros(len(sets), self.angles.shape[1], dtype=torch.int64, device=self.angles.device)
        values = objective.circuits(self.angles[:, :, None], sets, choices)
        return objective.target.losses(values), objective.target.scores(values.detach()).mean(dim=0)

    def stopped(self, history: Sequence[Row]) -> bool:
        return False

    def state(self) -> State:
        return {
            "angles": self.angles.detach(),
            "optimizer": self.optimizer.state_dict(),
            "best": [self.best_losses, self.best_angles, self.best_epochs],
        }

    def restore(self, state: State) -> None:
        with torch.no_grad():
            self.angles.copy_(state["angles"])
        self.optimizer.load_state_dict(state["optimizer"])
        losses, angles, epochs = state["best"]
        self.best_losses, self.best_angles, self.best_epochs = losses, angles.clone(), epochs.clone()

    def result(self, history: Sequence[Row], on_event: Listener) -> Trained:
        best = int(self.best_losses.argmin())
        weights = {ANGLES: self.best_angles[best].clone(), "starts": self.best_angles.clone()}
        return Trained(history, weights, int(self.best_epochs[best]))
