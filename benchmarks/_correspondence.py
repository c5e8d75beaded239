"""Which layers of benchmarks/plain.py are which parts of the stacked layers of models/.

This makes both supernets the same function, and lets tests compare their gradients.
"""

# pyright: reportIndexIssue=false, reportArgumentType=false, reportOperatorIssue=false
# Modules are taken out of nn.ModuleList and nn.Sequential in the obvious way, which types cannot follow.

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from benchmarks.plain import Cell, FactorizedReduce, MixedEdge, Noise, PlainSupernet
from models.images.ops.candidates import Noise as StackedNoise
from models.images.ops.candidates import Pool
from models.images.ops.preprocess import ReluConvNorm, ReluReduce
from models.images.supernet import MixedCell, OutgoingEdges, Supernet
from models.search.spaces import Edge

TENSORS = ("weight", "bias", "running_mean", "running_var")


def pairs(fast: Supernet, plain: PlainSupernet) -> list[tuple[nn.Module, nn.Module, slice]]:
    """For every layer: its module of ``fast``, its module of ``plain``, and which rows of the first are the second."""
    everything = slice(None)
    found: list[tuple[nn.Module, nn.Module, slice]] = [
        (fast.stem.stem0[0], plain.stem[0], everything),
        (fast.stem.stem0[1], plain.stem[1], everything),
        (fast.classifier, plain.classifier, everything),
    ]
    for stacked, cell in zip(fast.cells, plain.cells, strict=True):
        assert isinstance(stacked, MixedCell)
        assert isinstance(cell, Cell)
        for ours, theirs in (
            (stacked.preprocess0, cell.preprocess0),
            (stacked.preprocess1, cell.preprocess1),
        ):
            if isinstance(theirs, FactorizedReduce):
                assert isinstance(ours, ReluReduce)
                found += [
                    (getattr(ours.reduce, name), getattr(theirs, name), everything)
                    for name in ("even", "odd", "norm")
                ]
            else:
                assert isinstance(ours, ReluConvNorm)
                assert isinstance(theirs, nn.Sequential)
                found += [
                    (ours.conv, theirs[1], everything),
                    (ours.norm, theirs[2], everything),
                ]
        for node, outgoing in enumerate(stacked.sources):
            assert isinstance(outgoing, OutgoingEdges)
            rows = [row for row, edge in enumerate(cell.specs) if edge.src == node]
            found += _edge_pairs(
                outgoing, [cell.edges[row] for row in rows], [cell.specs[row] for row in rows]
            )
    return found


def _edge_pairs(
    outgoing: OutgoingEdges, edges: Sequence[nn.Module], specs: Sequence[Edge]
) -> list[tuple[nn.Module, nn.Module, slice]]:
    found: list[tuple[nn.Module, nn.Module, slice]] = []
    for name, positions in outgoing.carriers.items():
        ours = outgoing.ops[name]
        for index, position in enumerate(positions):
            edge = edges[position]
            assert isinstance(edge, MixedEdge)
            theirs = edge.ops[specs[position].ops.index(name)]
            if isinstance(theirs, FactorizedReduce):
                for part in ("even", "odd", "norm"):
                    layer = getattr(theirs, part)
                    found.append((getattr(ours, part), layer, _rows(index, layer)))
            elif isinstance(ours, Pool):
                assert isinstance(theirs, nn.Sequential)
                assert ours.norm is not None
                found.append((ours.norm, theirs[1], slice(None)))
            elif isinstance(ours, StackedNoise):
                assert isinstance(theirs, Noise)
                width = theirs.pattern.shape[1]
                found.append((ours, theirs, slice(index * width, (index + 1) * width)))
            elif isinstance(theirs, nn.Sequential):
                layers = [layer for layer in theirs if not isinstance(layer, nn.ReLU)]
                for part, layer in zip(ours.children(), layers, strict=True):
                    found.append((part, layer, _rows(index, layer)))
    return found


def _rows(index: int, layer: nn.Module) -> slice:
    assert isinstance(layer, nn.BatchNorm2d | nn.Conv2d)
    width = layer.num_features if isinstance(layer, nn.BatchNorm2d) else layer.out_channels
    return slice(index * width, (index + 1) * width)


@torch.no_grad()
def copy_weights(fast: Supernet, plain: PlainSupernet) -> None:
    """Gives ``plain`` the weights and the running statistics of ``fast``."""
    for ours, theirs, rows in pairs(fast, plain):
        for name in TENSORS:
            tensor = getattr(theirs, name, None)
            if tensor is not None:
                tensor.copy_(getattr(ours, name)[rows])
        if isinstance(theirs, Noise):
            assert isinstance(ours, StackedNoise)
            theirs.pattern.copy_(ours.pattern[:, rows])
