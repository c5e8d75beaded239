"""Networks made by hand, and networks of equal size."""

from __future__ import annotations

import itertools

import pytest
import torch

from models.images.baselines import BASELINES, baseline_network, baseline_widths
from models.images.builders import network_of
from models.images.equal import TOLERANCE, nearest_widths, parameters_of
from models.images.families import family_of
from models.images.spaces import SPACES, search_space
from models.search.genotype import Genotype
from models.search.random_cells import random_cells
from models.training.costs import count_parameters
from models.training.seeds import generator

DIGITS, CIFAR = (8, 8, 1), (32, 32, 3)


def test_resnet_20_has_the_published_size() -> None:
    network = baseline_network("ResNet-20", (16, 32, 64), CIFAR, 10, seed=0)
    shortcuts = 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert count_parameters(network) == 269_722 + shortcuts  # 0.27 M without the shortcuts' convolutions
    convolutions = [layer for layer in network.modules() if isinstance(layer, torch.nn.Conv2d)]
    assert sum(layer.kernel_size == (3, 3) for layer in convolutions) + 1 == 20  # and the linear layer


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("shape", [DIGITS, (9, 7, 3), CIFAR, (130, 130, 3)])
def test_baselines_answer_as_found_networks_do(name: str, shape: tuple[int, int, int]) -> None:
    widths = baseline_widths(name, shape, 7, 10_000)
    network = baseline_network(name, widths, shape, 7, seed=0)
    logits, auxiliary = network(torch.randn(2, shape[2], *shape[:2]))
    assert logits.shape == (2, 7) and auxiliary is None
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize("name", BASELINES)
def test_weights_follow_the_seed(name: str) -> None:
    def weights(seed: int) -> torch.Tensor:
        network = baseline_network(name, baseline_widths(name, DIGITS, 3, 2_000), DIGITS, 3, seed=seed)
        return torch.cat([parameter.flatten() for parameter in network.parameters()])

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


@pytest.mark.parametrize("name", BASELINES)
def test_the_last_feature_maps_have_a_quarter_of_the_side(name: str) -> None:
    network = baseline_network(name, baseline_widths(name, CIFAR, 10, 50_000), CIFAR, 10, seed=0)
    assert network.features(torch.zeros(1, 3, 32, 32)).shape[2:] == (8, 8)


def test_the_nearest_widths_are_those_of_brute_force() -> None:
    def count(widths: tuple[int, ...]) -> int:
        return 3 * widths[0] ** 2 + 5 * widths[0] * widths[1] + widths[1] ** 2

    for target in (50, 333, 1_000, 12_345):
        found = count(nearest_widths(count, (1, 2), target))
        every = {count(pair) for pair in itertools.product(range(1, 200), repeat=2)}
        best = min(every, key=lambda size: abs(size - target))
        assert abs(found - target) <= max(0.02 * target, abs(best - target))


def test_no_width_is_below_the_least() -> None:
    assert nearest_widths(sum, (1, 2, 4), 3, least=2) == (2, 2, 2)


@pytest.mark.parametrize(("shape", "channels", "cells"), [(DIGITS, 16, 5), (CIFAR, 8, 5), (CIFAR, 16, 5)])
@pytest.mark.parametrize("name", SPACES)
def test_random_cells_and_baselines_have_equal_parameters(
    name: str, shape: tuple[int, int, int], channels: int, cells: int
) -> None:
    """Within 5% of the found network, at the sizes of the digits and of small runs on CIFAR-10."""
    space = search_space(name)
    cells = cells if family_of(space).cells_of == "network" else 1
    drawn = random_cells(space, generator(0, "test"))
    found = next(drawn)

    def size(genotype: Genotype, channels: int | tuple[int, ...]) -> int:
        return parameters_of(
            lambda: network_of(
                genotype,
                channels=channels,
                cells=cells,
                classes=10,
                channels_in=shape[2],
                image_size=shape[0],
            )
        )

    target = size(found, channels)
    for genotype in itertools.islice(drawn, 2):
        widths = nearest_widths(lambda widths, genotype=genotype: size(genotype, widths), (1, 2, 4), target)
        assert abs(size(genotype, widths) / target - 1) <= TOLERANCE
    for baseline in BASELINES:
        network = baseline_network(baseline, baseline_widths(baseline, shape, 10, target), shape, 10, seed=0)
        assert abs(count_parameters(network) / target - 1) <= TOLERANCE


@pytest.mark.parametrize("name", ["s5", "nasbench201"])
def test_stages_with_twice_the_channels_are_the_same_network(name: str) -> None:
    genotype = next(random_cells(search_space(name), generator(0, "test")))

    def weights(channels: int | tuple[int, ...]) -> list[tuple[int, ...]]:
        network = network_of(genotype, channels=channels, cells=3, classes=4, channels_in=3, image_size=8)
        return [tuple(parameter.shape) for parameter in network.parameters()]

    assert weights(4) == weights((4, 8, 16))
    assert weights(4) != weights((4, 8, 17))
    network = network_of(genotype, channels=(3, 5, 9), cells=3, classes=4, channels_in=3, image_size=9)
    assert network(torch.randn(2, 3, 9, 9))[0].shape == (2, 4)
