"""The retrained networks in torch."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from models.sequences import retrain
from models.sequences.builders import networks
from models.sequences.deploy import DeployedForecaster
from models.training.costs import count_parameters
from stages.errors import UserError
from stages.evaluation import Evaluation
from stages.genotypes import read_genotype
from stages.sequences.data import SequenceCard, read_card, shape_of
from stages.sequences.params import TEXT, RetrainParams
from stages.sequences.testing import series, text


def load_networks(config: RetrainParams, weights: Path) -> dict[str, nn.Module]:
    """The found network and, where they were trained, those it is compared with, in evaluation mode on the CPU."""
    shape = shape_of(read_card(), config.embedding)
    made = networks(read_genotype("sequences"), shape, config.hidden, seed=config.seed, baselines=config.baselines)  # fmt: skip
    return loaded(made, weights)


def loaded(made: dict[str, nn.Module], weights: Path) -> dict[str, nn.Module]:
    """The networks with their weights, in evaluation mode."""
    try:
        every = load_file(weights)
        for name, network in made.items():
            network.load_state_dict(part_of(every, name))
            network.eval()
    except FileNotFoundError:
        raise UserError(f"{weights} is missing; `dvc repro retrain` makes it") from None
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{weights} does not fit the network ({reason}); run `dvc repro retrain`") from None
    return made


def part_of(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The weights of one network."""
    return {
        key.removeprefix(f"{name}."): tensor for key, tensor in weights.items() if key.startswith(f"{name}.")
    }


def evaluated(made: Mapping[str, nn.Module], card: SequenceCard) -> Evaluation:
    """The networks on the test cases; the one called "network" is the one that counts."""
    params = {name: count_parameters(network) for name, network in made.items()}
    if card.kind == TEXT:
        test = text.read_test_text(card)
        bits = {name: text.bits_of(text_answer(network), test) for name, network in made.items()}
        own = bits.pop(retrain.FOUND)
        others: dict[str, Any] = {name: (some, params[name]) for name, some in bits.items()}
        return text.evaluation_of(own, test, others, params=params[retrain.FOUND])
    windows = series.read_test_windows(card)
    forecasts = {
        name: series.in_batches(series_answer(network, card), windows) for name, network in made.items()
    }
    found = forecasts.pop(retrain.FOUND)
    others = {name: (some, params[name]) for name, some in forecasts.items()}
    return series.evaluation_of(found, windows, others, params=params[retrain.FOUND])


def deployed(network: nn.Module, card: SequenceCard) -> DeployedForecaster:
    """The network for values in the user's units, in evaluation mode."""
    return DeployedForecaster(network, len(card.targets), card.mean, card.std).eval()


def series_answer(network: nn.Module, card: SequenceCard) -> series.Answer:
    whole = deployed(network, card)

    @torch.inference_mode()
    def answer(windows: NDArray[np.float32]) -> NDArray[np.float32]:
        return whole(torch.from_numpy(windows)).numpy()

    return answer


def text_answer(network: nn.Module) -> text.Answer:
    @torch.inference_mode()
    def answer(
        tokens: NDArray[np.int64], state: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        before = None if state is None else torch.from_numpy(np.ascontiguousarray(state))
        logits, after = network(torch.from_numpy(tokens), before)
        return logits.numpy(), after.numpy()

    return answer
