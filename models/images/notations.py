"""How genotypes are written: DARTS lists pairs, NAS-Bench-201 has a string.

pairs       ``{"normal": [["sep_conv_3x3", 0], ...], "normal_concat": [2, 3, 4, 5], "reduce": ..., ...}``:
            operation and source, two pairs per node
arch_str    ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|``:
            operation~source, nodes separated by ``+``
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.errors import InvalidInput
from models.images.spaces import NASBENCH201_NODES, NASBENCH201_OPS, NODES, S5_OPS
from models.search.genotype import Genotype

DARTS_OPS = (*(op for op in S5_OPS if op != "none"), "noise")  # what an edge of a DARTS genotype may carry
_FORM = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"


def to_pairs(genotype: Genotype) -> dict[str, Any]:
    """Cell type -> pairs, and the nodes whose outputs are concatenated."""
    content: dict[str, Any] = {}
    for group, edges in genotype.groups.items():
        content[group] = [[op, src] for src, _, op in edges]
        content[f"{group}_concat"] = list(range(2, 2 + NODES))
    return content


def from_pairs(content: Mapping[str, Any]) -> Genotype:
    """Reads what ``to_pairs`` writes; the ``_concat`` keys may be absent.

    Raises InvalidInput for what no network has.
    """
    groups = {}
    for group in ("normal", "reduce"):
        pairs = content.get(group)
        if not isinstance(pairs, list) or len(pairs) != 2 * NODES:
            raise InvalidInput(
                f"genotype: {group!r} must be a list of {2 * NODES} pairs [operation, source], two per node"
            )
        if content.get(f"{group}_concat", list(range(2, 2 + NODES))) != list(range(2, 2 + NODES)):
            raise InvalidInput(f"genotype: {group}_concat must be {list(range(2, 2 + NODES))}")
        groups[group] = tuple(
            _edge(f"{group}[{position}]", pair, dst=2 + position // 2) for position, pair in enumerate(pairs)
        )
    return Genotype("darts", groups)


def _edge(place: str, pair: object, dst: int) -> tuple[int, int, str]:
    if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and type(pair[1]) is int):
        raise InvalidInput(f"genotype: {place} is {pair!r}; expected [operation, source]")
    op, src = pair
    if op not in DARTS_OPS:
        raise InvalidInput(f"genotype: {place} has operation {op!r}; choose one of {', '.join(DARTS_OPS)}")
    if not 0 <= src < dst:
        raise InvalidInput(f"genotype: {place} has source {src}; node {dst} takes 0..{dst - 1}")
    return src, dst, op


def arch_str(genotype: Genotype) -> str:
    """The NAS-Bench-201 string of a genotype of that space. Raises InvalidInput for another."""
    if list(genotype.groups) != ["cell"]:
        raise InvalidInput(f"a genotype of the space {genotype.space!r} has no NAS-Bench-201 string")
    nodes: dict[int, str] = {}
    for src, dst, op in genotype.groups["cell"]:
        nodes[dst] = nodes.get(dst, "|") + f"{op}~{src}|"
    return "+".join(nodes.values())


def from_arch_str(text: object) -> Genotype:
    """The genotype of a NAS-Bench-201 string. Raises InvalidInput when ``text`` is not one."""
    if not isinstance(text, str):
        raise InvalidInput(f"genotype: 'arch_str' is {text!r}; expected a string like {_FORM}")
    edges = []
    for dst, node in enumerate(text.split("+"), start=1):
        for src, edge in enumerate(node.strip("|").split("|")):
            op, _, source = edge.partition("~")
            if op not in NASBENCH201_OPS:
                known = ", ".join(NASBENCH201_OPS)
                raise InvalidInput(
                    f"genotype: operation {op!r} in arch_str is unknown; choose one of {known}"
                )
            if source != str(src):
                raise InvalidInput(f"genotype: {edge!r} in arch_str has source {source!r}; expected {src}")
            edges.append((src, dst, op))
    genotype = Genotype("nasbench201", {"cell": tuple(edges)})
    expected = [(src, dst) for dst in range(1, NASBENCH201_NODES) for src in range(dst)]
    if [(src, dst) for src, dst, _ in edges] != expected or arch_str(genotype) != text:
        raise InvalidInput(f"genotype: arch_str {text!r} is not of the form {_FORM}")
    return genotype
