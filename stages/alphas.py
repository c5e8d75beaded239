"""alphas.safetensors: the architecture parameters after each epoch, and how they become a mix."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from models.search.gradients import Relaxation
from models.search.objective import Mix
from stages.errors import UserError, of_system
from stages.records import SearchAbout
from stages.strategies import RELAXATIONS

_GROWN = "epoch"  # group/epoch/N: one entry per epoch, when the shapes differ between epochs


@dataclass(frozen=True)
class Alphas:
    """The architecture parameters that a search has saved, and how to read them."""

    epochs: Sequence[Mapping[str, Tensor]]  # group -> (edges, operations)
    about: SearchAbout

    def mix(self, epoch: int) -> Mix:
        """The mix after an epoch, counted from 1."""
        relaxation: Relaxation = RELAXATIONS[self.about.relaxation]
        return {group: relaxation(alpha) for group, alpha in self.epochs[epoch - 1].items()}


def save_alphas(path: Path, epochs: Sequence[Mapping[str, Tensor]], about: SearchAbout) -> None:
    """Writes group -> (epochs, edges, operations), or one entry per epoch for a group whose shape has grown."""
    tensors: dict[str, Tensor] = {}
    for group in epochs[-1]:
        rows = [alphas[group] for alphas in epochs if group in alphas]
        if len(rows) == len(epochs) and len({alpha.shape for alpha in rows}) == 1:
            tensors[group] = torch.stack(rows)
        else:
            first = len(epochs) - len(rows)
            tensors |= {
                f"{group}/{_GROWN}/{first + number}": alpha for number, alpha in enumerate(rows, start=1)
            }
    # One metadata entry only: safetensors writes several entries in an order that differs between processes.
    save_file(tensors, path, {"search": json.dumps(about.model_dump())})


def read_alphas(path: Path) -> Alphas:
    """Reads what ``save_alphas`` wrote. Raises UserError when the file is missing or damaged."""
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            about = SearchAbout.model_validate_json((file.metadata() or {})["search"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise UserError(f"{path} is missing; `dvc repro search` makes it") from None
    except (safetensors.SafetensorError, OSError, KeyError, ValidationError) as error:
        known = of_system(error, path) if isinstance(error, OSError) else None
        reason = " ".join(str(error).split())[:200]
        raise known or UserError(
            f"{path} is damaged ({reason}); delete {path.parent} and run `dvc repro`"
        ) from None
    epochs: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        group, grown, number = name.partition(f"/{_GROWN}/")
        rows = {int(number): tensor} if grown else dict(enumerate(tensor, start=1))
        for epoch, alpha in rows.items():
            epochs.setdefault(epoch, {})[group] = alpha
    return Alphas([epochs[epoch] for epoch in sorted(epochs)], about)
