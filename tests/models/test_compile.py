"""search.compile: what the perturbed passes ask of the compiler and of CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from models.search.objective import BatchObjective
from models.training.seeds import generator
from tests.models.tiny import SIDE, task


class Overwriting:
    """Stands for a compiler whose graphs write their output where the next generation's go, like CUDA graphs.

    A generation begins with ``begin`` or, if that was never called, with every graph. Nothing is compiled.
    """

    def __init__(self):
        self.begun = 0
        self.returned: list[Tensor] = []

    def begin(self) -> None:
        self.begun += 1
        for output in self.returned:
            output.fill_(torch.nan)
        self.returned.clear()

    def compile(
        self, function: Callable[..., Tensor], *, dynamic: bool, mode: str | None
    ) -> Callable[..., Tensor]:
        def graph(*inputs: object) -> Tensor:
            if mode != "reduce-overhead":
                return function(*inputs)
            if not self.begun:
                self.begin()
                self.begun = 0
            self.returned.append(function(*inputs).clone())
            return self.returned[-1]

        return graph


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Overwriting:
    compiler = Overwriting()
    monkeypatch.setattr(torch, "compile", compiler.compile)
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", compiler.begin)
    return compiler


def losses(space: str, *, compiled: bool, graphs: bool = False) -> list[Tensor]:
    """The losses of two perturbed passes. The second is computed before those of the first are read."""
    searched = task(space)
    supernet = searched.supernet(channels=2, cells=1 if space == "nasbench201" else 3)
    if compiled:
        supernet.compile_probes(graphs=graphs)  # pyright: ignore[reportCallIssue]
    draws = generator(0, "batch")
    objective = BatchObjective(
        searched, supernet, torch.randn(4, 3, SIDE, SIDE, generator=draws), torch.tensor([0, 1, 2, 0])
    )
    mixes = [
        {group: torch.rand(shape, generator=draws) for group, shape in searched.space.shapes().items()}
        for _ in range(3)
    ]
    weights = dict(supernet.named_parameters())
    return [objective.probe(weights, mixes), objective.probe(weights, mixes[::-1])]


@pytest.mark.parametrize("space", ["s5", "nasbench201"])
def test_a_generation_of_graphs_is_a_pass(space: str, compiler: Overwriting) -> None:
    """If it were a cell, a cell would overwrite the one before. If it never ended, memory would not be used again."""
    expected = losses(space, compiled=False)
    for found, loss in zip(losses(space, compiled=True, graphs=True), expected, strict=True):
        assert torch.equal(found, loss)
    assert compiler.begun == 2 and compiler.returned


@pytest.mark.parametrize("space", ["s5", "nasbench201"])
def test_without_graphs_no_generation_begins(space: str, compiler: Overwriting) -> None:
    for found, loss in zip(losses(space, compiled=True), losses(space, compiled=False), strict=True):
        assert torch.equal(found, loss)
    assert not compiler.begun and not compiler.returned


def test_cells_overwrite_each_other_where_no_generation_is_marked(
    compiler: Overwriting, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the mark is for, and that the compiler of these tests notices when the mark is missing."""
    monkeypatch.setattr(torch.compiler, "cudagraph_mark_step_begin", lambda: None)
    assert torch.stack(losses("s5", compiled=True, graphs=True)).isnan().all()
