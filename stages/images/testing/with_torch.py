"""The retrained network in torch, with which the exported file is compared."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from models.images.deploy import Deployed
from models.images.task import found_network
from stages.errors import UserError
from stages.genotypes import read_genotype
from stages.images.data import read_card
from stages.images.params import RetrainParams
from stages.images.testing.cases import Answer


def load_deployed(config: RetrainParams, weights: Path) -> Deployed:
    """The retrained network in evaluation mode on the CPU, with normalization and softmax inside."""
    card = read_card()
    network = found_network(
        read_genotype("images"),
        card.image_shape,
        len(card.classes),
        **config.network(),
        auxiliary=False,
    )
    try:
        network.load_state_dict(load_file(weights))
    except FileNotFoundError:
        raise UserError(f"{weights} is missing; `dvc repro retrain` makes it") from None
    except (safetensors.SafetensorError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{weights} does not fit the network ({reason}); run `dvc repro retrain`") from None
    return Deployed(network, card.mean, card.std).eval()


def with_torch(deployed: Deployed) -> Answer:
    @torch.inference_mode()
    def answer(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return deployed(torch.from_numpy(np.ascontiguousarray(images))).numpy()

    return answer


def torch_threads() -> int:
    """How many threads torch computes with, so that ONNX Runtime can use as many."""
    return torch.get_num_threads()
