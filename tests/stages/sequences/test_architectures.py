"""genotype.json and drawings of recurrent cells: every node shows both of its sides and how it combines them."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest

from models.errors import InvalidInput
from stages import pictures
from stages.narrow_cell import narrow_cell
from stages.report_page import sentence
from stages.sequences import architectures
from tests.stages.sequences.making import settings

TWO: dict[str, Any] = {
    "space": "two-input",
    "nodes": [
        {"left": ["sigmoid", 1], "right": ["identity", 0], "combiner": "product"},
        {"left": ["tanh", 2], "right": ["relu", 1], "combiner": "sum"},
    ],
}
ONE: dict[str, Any] = {"space": "one-input", "nodes": [["tanh", 0], ["relu", 0], ["sigmoid", 2]]}


def words_of(svg: str) -> list[str]:
    return [re.sub("<[^>]*>", "", text).strip() for text in re.findall(r"<text.*?</text>", svg, re.DOTALL)]


@pytest.mark.parametrize("content", [TWO, ONE])
def test_genotypes_are_written_as_they_are_read(content: dict[str, Any]) -> None:
    assert architectures.genotype_json(architectures.genotype_of(content)) == content
    with pytest.raises(InvalidInput):
        architectures.genotype_of({**content, "nodes": []})


def test_the_space_of_the_settings_is_known_by_its_name() -> None:
    search = settings().search
    space = architectures.space(search.named_space(), exclude_none=False)
    assert space.shapes() == {"left": (14, 5), "right": (14, 5), "combiner": (4, 2)}
    assert space.exclude_none


def test_a_narrow_drawing_has_every_node_as_a_formula() -> None:
    layout = architectures.layout(genotype := architectures.genotype_of(TWO))
    (name,) = layout.pictures(genotype)
    words = words_of(pictures.svg(narrow_cell, genotype, name, layout))
    assert words == [
        *("node 2 =", "sigmoid(input)", "identity(state)", "×"),
        *("node 3 =", "tanh(node 2)", "relu(input)", "+"),
        "output: the nodes × learned gates, added",
    ]


@pytest.mark.parametrize("content", [TWO, ONE])
def test_a_wide_drawing_has_nodes_operations_and_combiners(content: dict[str, Any]) -> None:
    layout = architectures.layout(genotype := architectures.genotype_of(content))
    words = words_of(pictures.svg(pictures.cell, genotype, "cell", layout))
    operations = [op for group, edges in genotype.groups.items() if group != "combiner" for _, _, op in edges]
    for op in operations:
        assert words.count(op) == operations.count(op)
    for title in layout.nodes:
        assert sum(title in word for word in words) == 1
    if content is TWO:
        assert "×  node 2" in words and "+  node 3" in words


def test_the_drawing_in_words_names_every_choice() -> None:
    layout = architectures.layout(genotype := architectures.genotype_of(TWO))
    assert sentence(genotype, "cell", layout) == (
        "left sides: 1 to 2 by sigmoid, 2 to 3 by tanh; right sides: 0 to 2 by identity, 1 to 3 by relu;"
        " how the sides are combined: 2: product, 3: sum"
    )
    assert layout.edge("combiner", 0, 2, 2) == "node 2"
    assert layout.edge("left", 0, 0, 2) == "state → 2"


def test_a_cell_of_many_nodes_is_drawn(tmp_path: Path) -> None:
    node = {"left": ["identity", 0], "right": ["identity", 1], "combiner": "product"}
    layout = architectures.layout(architectures.genotype_of({"space": "two-input", "nodes": [node] * 12}))
    for narrow in (False, True):
        layout.drawings["cell"](file := io.BytesIO(), narrow=narrow)
        assert file.getvalue().startswith(b"\x89PNG")
