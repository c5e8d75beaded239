"""Genotypes of all spaces: from mixes and back, into JSON and back."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.errors import InvalidInput
from models.images.builders import BUILDERS
from models.images.families import FAMILIES, family_of
from models.images.genotype import from_json, to_json
from models.images.spaces import SPACES
from models.search.discretize import discretize, one_hot
from models.search.genotype import Genotype
from models.search.spaces import Edge, SearchSpace
from tests.conftest import REPOSITORY

QUICKLY = settings(max_examples=50, deadline=None, derandomize=True)
SPACE = st.sampled_from(list(SPACES.values()))


def kept_ops(space: SearchSpace, edge: Edge) -> list[str]:
    return [op for op in edge.ops if not (space.exclude_none and op == "none")]


@st.composite
def genotypes(
    draw: st.DrawFn, spaces: st.SearchStrategy[SearchSpace] = SPACE
) -> tuple[SearchSpace, Genotype]:
    """A space and one of its genotypes."""
    space = draw(spaces)
    groups = {}
    for group, edges in space.groups.items():
        chosen: list[tuple[int, int, str]] = []
        for dst in sorted({edge.dst for edge in edges}):
            incoming = [edge for edge in edges if edge.dst == dst]
            kept = space.incoming or len(incoming)
            order = draw(st.permutations(incoming))[:kept] if space.incoming else incoming
            chosen += [(edge.src, dst, draw(st.sampled_from(kept_ops(space, edge)))) for edge in order]
        groups[group] = tuple(chosen)
    return space, Genotype(space.family, groups)


@st.composite
def mixes(draw: st.DrawFn) -> tuple[SearchSpace, dict[str, Tensor]]:
    """A space and a mix whose weights are often equal, so that ties happen."""
    space = draw(SPACE)
    source = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    levels = draw(st.integers(1, 20))
    shapes = space.shapes().items()
    return space, {
        group: torch.randint(0, levels + 1, shape, generator=source) / 20 for group, shape in shapes
    }


@QUICKLY
@given(genotypes())
def test_the_mix_of_a_genotype_is_discretized_to_that_genotype(drawn: tuple[SearchSpace, Genotype]) -> None:
    space, genotype = drawn
    found = discretize(space, one_hot(space, genotype))
    assert found.space == genotype.space
    assert {group: sorted(edges) for group, edges in found.groups.items()} == {
        group: sorted(edges) for group, edges in genotype.groups.items()
    }


@QUICKLY
@given(mixes())
def test_the_strongest_is_kept_and_the_earlier_of_equals(
    drawn: tuple[SearchSpace, dict[str, Tensor]],
) -> None:
    """By counting, for every edge and operation, those that come before."""
    space, mix = drawn
    genotype = discretize(space, mix)
    for group, edges in space.groups.items():
        rows = mix[group].tolist()
        strongest: dict[Edge, tuple[float, str]] = {}
        for edge, row in zip(edges, rows, strict=True):
            weights = {op: row[edge.ops.index(op)] for op in kept_ops(space, edge)}
            for number, (op, weight) in enumerate(weights.items()):
                before = sum(other > weight for other in weights.values())
                before += sum(other == weight for other in list(weights.values())[:number])
                if before == 0:
                    strongest[edge] = (weight, op)
        expected = []
        for edge, (weight, op) in strongest.items():
            rivals = [(other, found) for other, (found, _) in strongest.items() if other.dst == edge.dst]
            place = sum(
                found > weight or (found == weight and other.src < edge.src) for other, found in rivals
            )
            if space.incoming is None:
                expected.append((edge.dst, edge.src, edge.src, op))
            elif place < space.incoming:
                expected.append((edge.dst, place, edge.src, op))
        assert genotype.groups[group] == tuple((src, dst, op) for dst, _, src, op in sorted(expected))


@QUICKLY
@given(genotypes())
def test_json_keeps_a_genotype(drawn: tuple[SearchSpace, Genotype]) -> None:
    _, genotype = drawn
    content = to_json(genotype)
    assert content["space"] == genotype.space
    again = from_json(json.loads(json.dumps(content)))
    assert again == genotype
    assert to_json(again) == content


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 6) | st.floats(0, 3) | st.text("|+~0ab", max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=2),
    max_leaves=5,
)


@st.composite
def damaged(draw: st.DrawFn) -> dict[str, Any]:
    """The JSON of a genotype, one value in it replaced."""
    _, genotype = draw(genotypes())
    content: Any = json.loads(json.dumps(to_json(genotype)))
    key = draw(st.sampled_from(sorted(content)))
    place: Any = content
    while isinstance(place[key], list) and draw(st.booleans()):
        place, key = place[key], draw(st.integers(0, len(place[key]) - 1))
    if isinstance(place[key], str) and draw(st.booleans()):
        cut = draw(st.integers(0, len(place[key])))
        place[key] = place[key][:cut] + draw(st.text("|+~0123", max_size=2)) + place[key][cut + 1 :]
    else:
        place[key] = draw(JSON)
    return content


@QUICKLY
@given(damaged())
def test_what_is_read_from_damaged_json_is_a_genotype_or_one_line(content: dict[str, Any]) -> None:
    try:
        genotype = from_json(content)
    except InvalidInput as error:
        refusal = str(error)
        assert refusal.startswith("genotype: ") and "\n" not in refusal
    else:
        assert to_json(genotype) == content


def test_every_space_has_a_family_and_every_family_its_builders() -> None:
    assert {space.family for space in SPACES.values()} == set(FAMILIES) == set(BUILDERS)
    for space in SPACES.values():
        family = family_of(space)
        candidates = {op for edges in space.groups.values() for edge in edges for op in edge.ops}
        full = {
            op for edges in SPACES[family.full_space].groups.values() for edge in edges for op in edge.ops
        }
        assert candidates - {"noise"} <= full
        assert family.watched_group in space.groups
        nodes = {node for edges in space.groups.values() for edge in edges for node in (edge.src, edge.dst)}
        assert nodes == set(range(len(family.layout.nodes)))
        assert {edge.dst for edge in space.groups[family.watched_group]} == nodes - set(
            range(family.layout.inputs)
        )


@pytest.mark.parametrize("name", [None, 3, ["darts"], "s2"])
def test_an_unknown_family_is_refused(name: object) -> None:
    with pytest.raises(InvalidInput, match="is unknown; expected 'darts' or 'nasbench201'"):
        from_json({"space": name})


def test_spaces_and_genotypes_are_read_without_torch() -> None:
    """Stages that only check settings or read a genotype start several seconds sooner for it."""
    modules = "families, genotype, notations, sizes, spaces"
    program = f"import sys; from models.images import {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, check=False).returncode == 0
