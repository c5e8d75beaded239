"""Drawings of cells show every edge of the genotype, and nothing for a genotype they do not know."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

import pytest

from serving.cells import draw_cells
from tests.serving.tiny import GENOTYPE

SVG = "{http://www.w3.org/2000/svg}"


def test_a_drawing_shows_every_edge() -> None:
    cells = draw_cells(GENOTYPE)
    assert list(cells) == ["normal", "reduce"]
    for name, drawing in cells.items():
        texts = [text.text for text in ElementTree.fromstring(drawing).iter(f"{SVG}text")]
        for operation, _ in GENOTYPE[name]:
            words = operation.replace("_", " ").replace("3x3", "3×3").replace("5x5", "5×5")
            assert texts.count(words) == [op for op, _ in GENOTYPE[name]].count(operation)


def test_a_drawing_of_nas_bench_201() -> None:
    cells = draw_cells(
        {"arch_str": "|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|none~1|nor_conv_1x1~2|"}
    )
    texts = [text.text for text in ElementTree.fromstring(cells["cell"]).iter(f"{SVG}text")]
    assert texts[:4] == ["input", "1", "2", "output"]
    assert texts[4:] == ["nor conv 3×3", "none", "skip connect", "avg pool 3×3", "none", "nor conv 1×1"]


def texts_of(genotype: dict[str, Any]) -> list[str | None]:
    (drawing,) = draw_cells(genotype).values()
    return [text.text for text in ElementTree.fromstring(drawing).iter(f"{SVG}text")]


def test_a_drawing_of_a_recurrent_cell_shows_both_sides_and_how_they_are_combined() -> None:
    nodes = [
        {"left": ["sigmoid", 1], "right": ["identity", 0], "combiner": "product"},
        {"left": ["tanh", 1], "right": ["relu", 2], "combiner": "sum"},
    ]
    texts = texts_of({"space": "two-input", "nodes": nodes})
    assert texts == [
        "state",
        "input",
        "1 ×",
        "2 +",
        "out",
        "sigmoid",
        "identity",
        "tanh",
        "relu",
        "weighted sum",
    ]
    (drawing,) = draw_cells({"space": "two-input", "nodes": nodes}).values()
    assert (
        "input to 1 × by sigmoid; state to 1 × by identity; input to 2 + by tanh; 1 × to 2 + by relu"
        in drawing
    )
    texts = texts_of({"space": "one-input", "nodes": [["tanh", 0], ["relu", 1]]})
    assert texts == ["input", "1", "2", "out", "tanh", "relu", "weighted sum"]


@pytest.mark.parametrize(
    "genotype",
    [
        {"space": "two-input"},
        {"space": "two-input", "nodes": [["tanh", 0]]},
        {},
        {"normal": 3},
        {"arch_str": "nonsense"},
        {"arch_str": 5},
        {**GENOTYPE, "normal": [["x", 99]] * 8},
    ],
)
def test_an_unknown_genotype_is_not_drawn(genotype: dict[str, Any]) -> None:
    assert draw_cells(genotype) == {}


def test_a_drawing_escapes_names_from_the_model() -> None:
    genotype = {**GENOTYPE, "normal": [["<script>", 0], *GENOTYPE["normal"][1:]]}
    drawing = draw_cells(genotype)["normal"]
    assert "<script>" not in drawing
    assert "&lt;script&gt;" in drawing
