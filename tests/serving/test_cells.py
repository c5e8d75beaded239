"""Drawings of cells."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from serving.cells import draw_cells
from tests.serving.tiny import GENOTYPE


def test_a_drawing_shows_every_edge() -> None:
    cells = draw_cells(GENOTYPE)
    assert list(cells) == ["normal", "reduce"]
    for name, drawing in cells.items():
        texts = [
            text.text for text in ElementTree.fromstring(drawing).iter("{http://www.w3.org/2000/svg}text")
        ]
        for operation, _ in GENOTYPE[name]:
            words = operation.replace("_", " ").replace("3x3", "3×3").replace("5x5", "5×5")
            assert texts.count(words) == [op for op, _ in GENOTYPE[name]].count(operation)


def test_a_drawing_of_nas_bench_201() -> None:
    cells = draw_cells(
        {"arch_str": "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"}
    )
    assert cells["cell"].count("<circle") == 6
    ElementTree.fromstring(cells["cell"])


@pytest.mark.parametrize(
    "genotype",
    [{}, {"normal": 3}, {"arch_str": "nonsense"}, {"arch_str": 5}, {**GENOTYPE, "normal": [["x", 99]] * 8}],
)
def test_an_unknown_genotype_is_not_drawn(genotype: dict[str, Any]) -> None:
    assert draw_cells(genotype) == {}


def test_a_drawing_escapes_what_the_model_says() -> None:
    genotype = {**GENOTYPE, "normal": [["<script>", 0], *GENOTYPE["normal"][1:]]}
    assert "<script>" not in draw_cells(genotype)["normal"]
