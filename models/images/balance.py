"""Classes with the same weight, however many images each has: in the loss of a training, and in a score."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from models.training.evaluation import Criterion


def balanced_weights(labels: Tensor, classes: int) -> Tensor:
    """Weights (classes,) float64 with which every class counts the same among ``labels`` (N,).

    A class with n of the N labels has the weight N / (K n), where K is the number of classes that have labels; classes
    without labels have the weight 0. The mean weight of the labels is 1. Source: the weighted likelihood of King and
    Zeng 2001, "Logistic regression in rare events data", as if every class were 1 / K of the population; it is
    "balanced" in scikit-learn.
    """
    counts_C = torch.bincount(labels, minlength=classes).double()
    weights_C = len(labels) / (counts_C.count_nonzero() * counts_C)
    return torch.where(counts_C > 0, weights_C, 0.0)


@dataclass(frozen=True)
class WithBalancedAccuracy:
    """A criterion that also measures the balanced accuracy: the mean of the recalls of the classes that have images.

    ``weights`` (classes,) are the ``balanced_weights`` of all labels that are evaluated, on the device of the logits.
    """

    criterion: Criterion
    weights: Tensor

    def loss(self, output: Any, target: Tensor) -> Tensor:
        return self.criterion.loss(output, target)

    def measures(self, output: Tensor, target: Tensor) -> Mapping[str, Tensor]:
        right_B = output.argmax(dim=1) == target
        return {
            **self.criterion.measures(output, target),
            "balanced_accuracy": (self.weights[target] * right_B).sum(),
        }
