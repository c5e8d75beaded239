"""Evaluates a fitted curve on the test points, in torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from models.curves.cells import Curve
from numpy.typing import NDArray
from safetensors.torch import load_file
from stages.curves.data import read_split
from stages.curves.params import Params

from stages.evaluation import Evaluation
from stages.genotypes import read_genotype
from stages.plumbing.files import DATA, sha256_of


def evaluation_of(answers: NDArray[np.float32], **costs: float) -> Evaluation:
    errors = (answers.astype(np.float64) - read_split("test")[:, 1]) ** 2
    return Evaluation(float(errors.mean()), errors, sha256_of(DATA / "test.npy"), costs)


def load_curve(weights: Path) -> Curve:
    network = Curve(read_genotype("curves"))
    network.load_state_dict(load_file(weights))
    return network.eval()


def evaluate_weights(params: Params, weights: Path) -> Evaluation:
    network = load_curve(weights)
    with torch.no_grad():
        answers = network(torch.from_numpy(read_split("test")[:, 0].copy())).numpy()
    return evaluation_of(answers, params=sum(weight.numel() for weight in network.parameters()))


def class_scores(evaluation: Evaluation) -> Mapping[str, float | None] | None:
    return None


def notices(evaluation: Evaluation) -> Sequence[str]:
    return ()


def write_results(folder: Path, evaluation: Evaluation) -> None:
    pass
