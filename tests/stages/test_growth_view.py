"""Alphas of a search that grew: saved and read, discretized in any epoch, and drawn on a time line."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch

from models.search.discretize import discretize
from models.search.genotype import Genotype
from models.search.growth import AddNode, AddOperation, GrowthConfig
from models.search.program import Found
from models.search.spaces import restricted, shapes_of
from models.sequences.spaces import search_space
from stages import growth_view, pictures
from stages.alphas import read_alphas, save_alphas
from stages.contracts import Layout
from stages.records import SearchAbout
from tests.models.sequences.tiny import config, search

SPACE = search_space("two-input", 3, ("none", "tanh", "identity", "sigmoid"))
LAYOUT = Layout([str(node) for node in range(5)], 2, range(2, 5), {})


@pytest.fixture(scope="module")
def found() -> Found:
    growth = GrowthConfig([AddNode(), AddOperation("sigmoid")], every=1, budget=20)
    return search("ms-darts", config=config(epochs=5), nodes=3, growth=growth)


def test_every_epoch_of_a_grown_search_is_read_and_discretized(found: Found, tmp_path: Path) -> None:
    about = SearchAbout(space=SPACE.name, exclude_none=False, relaxation="softmax")
    save_alphas(tmp_path / "alphas.safetensors", found.alphas, about)
    alphas = read_alphas(tmp_path / "alphas.safetensors")
    assert len(alphas.epochs) == 5
    genotypes: list[Genotype] = []
    for epoch, nodes in enumerate((2, 3, 3, 3, 3), start=1):
        for group, rows in alphas.epochs[epoch - 1].items():
            assert torch.equal(rows, found.alphas[epoch - 1][group])
        mix = alphas.mix(epoch)
        genotypes.append(discretize(restricted(SPACE, shapes_of(mix)), mix))
        assert len(genotypes[-1].groups["combiner"]) == nodes
        assert all(abs(rows.sum(dim=1) - 1).max() < 1e-6 for rows in mix.values())
    assert genotypes[-1] == found.genotype


def test_the_time_line_has_every_change(found: Found) -> None:
    changes = growth_view.changes(found.history)
    assert [(change.epoch, change.words) for change in changes] == [
        (2, "2 to 3 nodes, 24 to 42 operations"),
        (3, "42 to 60 operations"),
        (4, "60 to 20 operations"),
    ]
    assert changes[0].before == found.history[0]["valid_loss"]
    assert growth_view.changes(found.history[3:]) == []
    image = io.BytesIO()
    growth_view.draw(image, found.history, chosen=5)
    assert image.getvalue().startswith(b"\x89PNG")


def test_lines_of_the_mix_begin_where_the_structure_did(found: Found) -> None:
    mixes = [torch.softmax(alphas["left"], dim=1).tolist() for alphas in found.alphas]
    image = io.BytesIO()
    pictures.mix(image, SPACE, found.genotype, "left", mixes, 5, LAYOUT)
    assert image.getvalue().startswith(b"\x89PNG")
