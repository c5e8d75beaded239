from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from models.errors import InvalidInput
from models.images.builders import network_of, supernet_of
from models.images.spaces import SPACES, search_space
from models.search.discretize import discretize, one_hot
from models.training.costs import count_parameters


def test_candidates_are_those_of_the_conformance_tables(shared: Path) -> None:
    for name, groups in json.loads((shared / "conformance/darts_spaces.json").read_text()).items():
        for group, edges in search_space(name).groups.items():
            ops = groups[group]
            assert len(edges) == groups["edges"]
            expected = ops if isinstance(ops[0], list) else [ops] * len(edges)
            assert [list(edge.ops) for edge in edges] == expected, (name, group)


@pytest.mark.parametrize(
    ("space", "parameters"),
    [("s1", 405_146), ("s2", 665_466), ("s3", 665_466), ("s4", 624_506), ("s5", 1_930_618)],
)
def test_supernets_have_the_published_number_of_parameters(space: str, parameters: int) -> None:
    with torch.device("meta"):
        supernet = supernet_of(
            search_space(space), channels=16, cells=8, classes=10, channels_in=3, image_size=32
        )
    assert count_parameters(supernet) == parameters


def test_darts_keeps_the_two_strongest_edges_of_a_node_and_never_none() -> None:
    space = search_space("s5")
    mix = {group: torch.full((14, 8), 0.01) for group in space.groups}
    for rows in mix.values():
        rows[:, 0] = 0.9  # none
        for row, op, weight in (
            (1, 4, 0.3),
            (0, 3, 0.2),
            (2, 1, 0.1),
            (4, 5, 0.4),
            (13, 7, 0.5),
            (9, 2, 0.6),
        ):
            rows[row, op] = weight
    genotype = discretize(space, mix)
    expected = (
        (1, 2, "sep_conv_3x3"),
        (0, 2, "skip_connect"),
        (2, 3, "sep_conv_5x5"),
        (0, 3, "max_pool_3x3"),
    )
    assert genotype.groups["normal"][:4] == expected
    assert genotype.groups["normal"][6:] == ((0, 5, "avg_pool_3x3"), (4, 5, "dil_conv_5x5"))
    again = discretize(space, one_hot(space, genotype))
    assert again.changes(genotype) == 0 and genotype.changes(again) == 0


def test_unknown_spaces_and_stages_are_refused() -> None:
    with pytest.raises(InvalidInput, match="'s6' is unknown; choose one of s1, s2, s3, s4, s5, nasbench201"):
        search_space("s6")
    size: dict[str, Any] = {
        "channels": 4,
        "cells": 3,
        "classes": 3,
        "channels_in": 3,
        "image_size": 8,
        "stages": 2,
    }
    with pytest.raises(InvalidInput, match="3 stages, not 2"):
        supernet_of(search_space("s2"), **size)
    genotype = discretize(SPACES["s2"], {group: torch.rand(14, 2) for group in ("normal", "reduce")})
    with pytest.raises(InvalidInput, match="3 stages, not 2"):
        network_of(genotype, **size)
