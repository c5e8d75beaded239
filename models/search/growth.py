"""A search that grows while it trains: nodes, operations and width are added, and weak candidates pruned.

Source: the abstract of arXiv 2106.07211 (Jie and Gao), which grows a small cell by morphisms that preserve its function
and combines growing with pruning in two modes. The edits are our reconstruction:

    AddNode        the node's output weighs nothing at first; exact
    AddOperation   the candidate gets the mean weight of its edge's candidates in the mix, and a gate of 0 in the supernet,
                   where the gates of the others make up for what it takes from them; exact. An infinitesimal share of the
                   mix would be exact too, but would never be learned
    Widen          Net2Wider (models/search/widening.py); exact. Copies of a unit divide its outgoing weights unequally,
                   so that they do not stay copies; no noise is needed
    Prune          not exact (models/search/pruning.py)

The modes: "grow-then-prune" makes one edit whenever the trigger fires and, if there is a budget, prunes in the end.
"alternating" prunes to the budget after each edit. The trigger fires when ``every`` epochs have passed since the last edit
or, with ``patience``, when the validation loss has improved by less than 1% in that many epochs.

What knows the networks is a ``Growable`` supernet. Weights, architecture parameters and the state of both optimizers carry
over. Early stopping waits until the structure has stopped changing, and never returns to an epoch before that.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal, Protocol

import torch
from torch import nn

from models.errors import InvalidInput
from models.search.objective import Mix
from models.search.pruning import count, least, pruned
from models.search.spaces import SearchSpace
from models.search.strategies import Strategy, detached
from models.training.events import Row
from models.training.optimizers import follow

ENOUGH = 0.01  # the relative improvement of the validation loss below which it is on a plateau


@dataclass(frozen=True)
class AddNode:
    """Adds a node to every cell type."""

    def __str__(self) -> str:
        return "added a node"


@dataclass(frozen=True)
class AddOperation:
    """Adds a candidate to every edge."""

    name: str

    def __str__(self) -> str:
        return f"added the operation {self.name}"


@dataclass(frozen=True)
class Widen:
    """Widens all layers to ``width`` units."""

    width: int

    def __str__(self) -> str:
        return f"widened to {self.width} units"


@dataclass(frozen=True)
class Prune:
    """Keeps at most ``operations`` candidates."""

    operations: int

    def __str__(self) -> str:
        return f"pruned to {self.operations} operations"


Growing = AddNode | AddOperation | Widen
_EDITS: Mapping[str, type[AddNode | AddOperation | Widen | Prune]] = {
    kind.__name__: kind for kind in (AddNode, AddOperation, Widen, Prune)
}


class Growable(Protocol):
    """A supernet that grows. An edit appends edges and operations to the space.

    A parameter keeps its name. One that gets larger is replaced by another object, of which the earlier values, or for
    ``Widen`` those of the same units, are the leading block.
    """

    @property
    def space(self) -> SearchSpace:
        """The present search space."""
        ...

    def sizes(self) -> Mapping[str, int]:
        """Columns of the history, such as the number of nodes."""
        ...

    def grow(self, edit: Growing, generator: torch.Generator) -> None:
        """Grows without changing the function at the present mix. Raises InvalidInput for what it cannot do."""
        ...

    def rebalance(self, before: Mix, after: Mix) -> None:
        """Changes gates so that at the mix ``after`` the candidates of ``before`` weigh what they did there."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]: ...


@dataclass(frozen=True)
class GrowthConfig:
    """What grows, in which order, and when.

    ``budget`` is how many candidates besides ``none`` may be live after pruning, over all edges. The mode "alternating"
    needs one. ``patience`` makes the trigger a plateau, and ``every`` is then not used.
    """

    edits: Sequence[Growing]
    mode: Literal["grow-then-prune", "alternating"] = "grow-then-prune"
    every: int = 4
    patience: int | None = None
    budget: int | None = None

    def turns(self) -> list[list[Growing | Prune]]:
        """The edits of each firing of the trigger."""
        grown: list[list[Growing | Prune]] = [[edit] for edit in self.edits]
        if self.budget is None:
            return grown
        if self.mode == "alternating":
            return [[*edits, Prune(self.budget)] for edits in grown]
        return [*grown, [Prune(self.budget)]]

    def check(self, epochs: int, space: SearchSpace) -> None:
        """Raises InvalidInput for settings that cannot be met in so many epochs, or by the largest space."""
        if self.every < 1 or (self.patience is not None and self.patience < 1):
            raise InvalidInput(
                f"search.growth waits {self.every if self.patience is None else self.patience} epochs between two steps; set 1 or more"
            )
        if self.patience is None and len(self.turns()) * self.every >= epochs:
            raise InvalidInput(
                f"search.growth changes the cell {len(self.turns())} times, every {self.every} epochs, which takes more than"
                f" search.epochs ({epochs}); set search.epochs to {len(self.turns()) * self.every + 1} or more, or lower"
                " search.growth.every"
            )
        if self.mode == "alternating" and self.budget is None:
            raise InvalidInput(
                "search.growth alternates with pruning, which needs a budget; set search.growth.budget"
            )
        if self.budget is not None and self.budget < least(space):
            raise InvalidInput(
                f"search.growth.budget is {self.budget}, but the cells need {least(space)} operations; set at least that"
            )


class Growth:
    """The growth of one search. ``generator`` draws new weights."""

    def __init__(self, supernet: Growable, config: GrowthConfig, generator: torch.Generator):
        self.supernet, self.config, self.generator = supernet, config, generator
        self.pending = config.turns()
        self.done: list[Growing | Prune] = []
        self.settled = 0  # epochs before the last edit
        self.losses: list[float] = []  # on the validation cases, since the last edit
        self.messages: list[str] = []

    @property
    def finished(self) -> bool:
        """Whether the structure stays as it is from now on."""
        return not self.pending

    def start_epoch(self, epoch: int, strategy: Strategy, optimizer: torch.optim.Optimizer) -> None:
        """Changes the structure if the trigger fires. Epochs count from 0."""
        if not self.pending or not self._fires():
            return
        for edit in self.pending.pop(0):
            if isinstance(edit, Prune):
                space = self.supernet.space
                mix = detached(strategy.mix())
                strategy.prune(pruned(space, mix, strategy.live(), edit.operations))
            else:
                self._grow(edit, strategy, optimizer)
            self.done.append(edit)
            self.messages.append(f"the search {edit} before epoch {epoch + 1}")
        self.settled, self.losses = epoch, []

    def _grow(self, edit: Growing, strategy: Strategy, optimizer: torch.optim.Optimizer) -> None:
        before, parameters = detached(strategy.mix()), dict(self.supernet.named_parameters())
        self.supernet.grow(edit, self.generator)
        strategy.grow(self.supernet.space.shapes())
        self.supernet.rebalance(before, detached(strategy.mix()))
        follow(optimizer, parameters, dict(self.supernet.named_parameters()))

    def _fires(self) -> bool:
        patience = self.config.patience
        if patience is None:
            return len(self.losses) >= self.config.every
        if len(self.losses) <= patience:
            return False
        before, since = min(self.losses[:-patience]), min(self.losses[-patience:])
        return before - since < ENOUGH * abs(before)

    def end_epoch(self, valid_loss: float) -> None:
        """Takes the epoch's validation loss into account."""
        self.losses.append(valid_loss)

    def since(self, history: Sequence[Row]) -> Sequence[Row]:
        """The epochs with the last structure; none while that is still to come."""
        return history[self.settled :] if self.finished else ()

    def report(self, live: Mapping[str, torch.Tensor]) -> dict[str, int]:
        """Columns of the history: the sizes of the supernet, and how many candidates besides ``none`` are live."""
        return {**self.supernet.sizes(), "operations": count(self.supernet.space, live)}

    def notices(self) -> list[str]:
        """What the user should be told. A notice is given once."""
        messages, self.messages = self.messages, []
        return messages

    def state_dict(self) -> dict[str, Any]:
        return {
            "done": [{"edit": type(edit).__name__, **asdict(edit)} for edit in self.done],
            "turns": len(self.config.turns()) - len(self.pending),
            "settled": self.settled,
            "losses": self.losses,
            "generator": self.generator.get_state(),
        }

    def restore(self, state: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> None:
        """Rebuilds the structure of a state. Weights, architecture parameters and optimizers are to be loaded afterwards."""
        self.done = [
            _EDITS[entry["edit"]](**{name: value for name, value in entry.items() if name != "edit"})
            for entry in state["done"]
        ]
        parameters = dict(self.supernet.named_parameters())
        for edit in self.done:
            if not isinstance(edit, Prune):
                self.supernet.grow(edit, self.generator)
        follow(optimizer, parameters, dict(self.supernet.named_parameters()))
        self.pending = self.config.turns()[state["turns"] :]
        self.settled, self.losses = state["settled"], list(state["losses"])
        self.generator.set_state(state["generator"])
