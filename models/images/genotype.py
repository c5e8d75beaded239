"""A genotype: the discrete cell that a search found, and its form in ``genotype.json``.

DARTS genotypes list pairs; those of NAS-Bench-201 are that benchmark's string, nodes apart by ``+``, each edge as
``operation~source``: ``|nor_conv_3x3~0|+|none~0|skip_connect~1|+|avg_pool_3x3~0|nor_conv_1x1~1|skip_connect~2|``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from models.errors import InvalidInput
from models.images.spaces import NASBENCH201_NODES, NASBENCH201_OPS, NODES, S5_OPS
from models.search.genotype import Genotype

DARTS_OPS = (*(op for op in S5_OPS if op != "none"), "noise")  # what an edge of a DARTS genotype may carry


def to_json(genotype: Genotype) -> dict[str, Any]:
    """The content of ``genotype.json``: DARTS pairs ``[operation, source]``, two a node, or ``arch_str``."""
    content: dict[str, Any] = {"space": genotype.space}
    if genotype.space == "nasbench201":
        return content | {"arch_str": arch_str(genotype)}
    for group, edges in genotype.groups.items():
        content[group] = [[op, src] for src, _, op in edges]
        content[f"{group}_concat"] = list(range(2, 2 + NODES))
    return content


def from_json(content: Mapping[str, Any]) -> Genotype:
    """Reads the form of ``to_json``; ``space`` may be absent in DARTS. Raises InvalidInput for what no network has."""
    space = content.get("space", "darts")
    if space == "nasbench201":
        return from_arch_str(content.get("arch_str"))
    if space != "darts":
        raise InvalidInput(f"genotype: space {space!r} is unknown; expected 'darts' or 'nasbench201'")
    return _from_pairs(content)


def arch_str(genotype: Genotype) -> str:
    """The NAS-Bench-201 string of a genotype of that space. Raises InvalidInput for another."""
    if genotype.space != "nasbench201":
        raise InvalidInput(f"a genotype of the space {genotype.space!r} has no NAS-Bench-201 string")
    nodes: dict[int, str] = {}
    for src, dst, op in genotype.groups["cell"]:
        nodes[dst] = nodes.get(dst, "|") + f"{op}~{src}|"
    return "+".join(nodes.values())


def from_arch_str(text: object) -> Genotype:
    """The genotype of a NAS-Bench-201 string. Raises InvalidInput when it is not one."""
    form = "|op~0|+|op~0|op~1|+|op~0|op~1|op~2|"
    if not isinstance(text, str):
        raise InvalidInput(f"genotype: 'arch_str' is {text!r}; expected a string like {form}")
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
        raise InvalidInput(f"genotype: arch_str {text!r} is not of the form {form}")
    return genotype


def _from_pairs(content: Mapping[str, Any]) -> Genotype:
    groups = {}
    for group in ("normal", "reduce"):
        pairs = content.get(group)
        if not isinstance(pairs, list) or len(pairs) != 2 * NODES:
            raise InvalidInput(
                f"genotype: {group!r} must be a list of {2 * NODES} pairs [operation, source], two a node"
            )
        if content.get(f"{group}_concat", list(range(2, 2 + NODES))) != list(range(2, 2 + NODES)):
            raise InvalidInput(f"genotype: {group}_concat must be {list(range(2, 2 + NODES))}")
        edges = []
        for position, pair in enumerate(pairs):
            dst = 2 + position // 2
            if not (isinstance(pair, (list, tuple)) and len(pair) == 2 and isinstance(pair[1], int)):
                raise InvalidInput(f"genotype: {group}[{position}] is {pair!r}; expected [operation, source]")
            op, src = pair
            if op not in DARTS_OPS:
                known = ", ".join(DARTS_OPS)
                raise InvalidInput(
                    f"genotype: {group}[{position}] has operation {op!r}; choose one of {known}"
                )
            if not 0 <= src < dst:
                raise InvalidInput(
                    f"genotype: {group}[{position}] has source {src}; node {dst} takes 0..{dst - 1}"
                )
            edges.append((src, dst, op))
        groups[group] = tuple(edges)
    return Genotype("darts", groups)
