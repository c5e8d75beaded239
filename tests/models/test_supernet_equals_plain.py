"""No shortcut of the supernet changes the result: it equals the obvious code in benchmarks/plain.py."""

# pyright: reportCallIssue=false, reportArgumentType=false, reportOptionalMemberAccess=false

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from benchmarks._correspondence import copy_weights, pairs
from benchmarks.plain import PlainSupernet, probe, project
from models.images.spaces import SPACES
from models.images.supernet import Supernet
from models.images.task import ImageTask
from models.search import mean_shift
from models.search.objective import BatchObjective

SIZE = {"channels": 4, "cells": 3}
IMAGES, CLASSES = 4, 5
TOLERANCE = {torch.float32: 1e-5, torch.float64: 1e-10}
# space, side, type: odd sides, and sides of 2 at which large kernels see mostly padding
CASES = [
    ("s1", 9, torch.float64),
    ("s2", 10, torch.float64),
    ("s3", 11, torch.float64),
    ("s4", 9, torch.float64),
    ("s5", 8, torch.float64),
    ("s5", 11, torch.float64),
    ("s5", 12, torch.float32),
]


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def noise_without_chance(monkeypatch: pytest.MonkeyPatch):
    """The noise is a wave, because the two implementations draw for different numbers of edges at once."""

    def wave(*shape: int | tuple[int, ...], dtype: torch.dtype | None = None, **_: object) -> Tensor:
        sizes = shape[0] if isinstance(shape[0], tuple) else shape
        steps = torch.arange(math.prod(sizes[:-1]), dtype=dtype).reshape(*sizes[:-1], 1)
        return torch.cos(1.7 * steps).expand(sizes)

    monkeypatch.setattr(torch, "randn", wave)


def both(space_name: str, side: int, dtype: torch.dtype) -> tuple[ImageTask, Supernet, PlainSupernet]:
    """The two supernets with the same weights and with running statistics that are not the initial ones."""
    task = ImageTask(SPACES[space_name], (side, side, 3), CLASSES, seed=1)
    fast = task.supernet(**SIZE).to(dtype=dtype, memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(2)
    for name, buffer in fast.named_buffers():
        if "running" in name:
            buffer.add_(0.5 * torch.rand(buffer.shape, generator=generator, dtype=dtype))
    plain = PlainSupernet(task.space, **SIZE, classes=CLASSES, channels_in=3).to(dtype)
    copy_weights(fast, plain)
    return task, fast, plain


def batch(side: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.rand((IMAGES, 3, side, side), generator=generator, dtype=dtype)
    return x, torch.randint(CLASSES, (IMAGES,), generator=generator)


def mixes(task: ImageTask, number: int, dtype: torch.dtype) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(4)
    shapes = task.space.shapes().items()
    return [
        {group: torch.rand(shape, generator=generator, dtype=dtype).softmax(-1) for group, shape in shapes}
        for _ in range(number)
    ]


def relative(ours: Tensor, theirs: Tensor) -> float:
    return float((ours - theirs).detach().norm() / theirs.detach().norm())


@pytest.mark.parametrize(("space_name", "side", "dtype"), CASES)
def test_training_step(space_name: str, side: int, dtype: torch.dtype, noise_without_chance: None) -> None:
    """Logits, gradients of all weights and of the mix, running statistics."""
    task, fast, plain = both(space_name, side, dtype)
    x, labels = batch(side, dtype)
    (mix,) = mixes(task, 1, dtype)
    ours = {group: rows.clone().requires_grad_() for group, rows in mix.items()}
    theirs = {group: rows.clone().requires_grad_() for group, rows in mix.items()}
    logits_fast = BatchObjective(task, fast, x, labels).output(dict(fast.named_parameters()), ours)
    logits_plain = plain(x, theirs)
    assert relative(logits_fast, logits_plain) < TOLERANCE[dtype]
    task.loss(logits_fast, labels).backward()
    task.loss(logits_plain, labels).backward()
    largest = max(float(weight.grad.norm()) for weight in plain.parameters())
    compared = 0
    for stacked, layer, rows in pairs(fast, plain):
        for name, weight in layer.named_parameters(recurse=False):
            difference = (getattr(stacked, name).grad[rows] - weight.grad).norm()
            # A weight that hardly matters has a gradient of rounding errors, hence the second term.
            assert difference < TOLERANCE[dtype] * (weight.grad.norm() + 1e-3 * largest), name
            compared += weight.numel()
        for name, buffer in layer.named_buffers():
            if name.startswith("running"):
                assert relative(getattr(stacked, name)[rows], buffer) < TOLERANCE[dtype]
    assert compared == sum(weight.numel() for weight in fast.parameters())
    for group in mix:
        assert relative(ours[group].grad, theirs[group].grad) < TOLERANCE[dtype]


@pytest.mark.parametrize(("space_name", "side", "dtype"), CASES)
def test_probe(space_name: str, side: int, dtype: torch.dtype) -> None:
    """The losses of a probe are those of one forward pass per mix. The probe changes no state."""
    task, fast, plain = both(space_name, side, dtype)
    x, labels = batch(side, dtype)
    drawn = mixes(task, 3, dtype)
    before = {name: tensor.clone() for name, tensor in fast.state_dict().items()}
    losses = BatchObjective(task, fast, x, labels).probe(dict(fast.named_parameters()), drawn)
    assert relative(losses, probe(plain, x, labels, drawn)) < TOLERANCE[dtype]
    assert losses.std() > 100 * TOLERANCE[dtype]  # the mixes do differ
    assert fast.training
    assert not losses.requires_grad
    for name, tensor in fast.state_dict().items():
        assert torch.equal(tensor, before[name])


def test_projection() -> None:
    rows = torch.tensor([[0.5, -0.1, 0.8], [-3.0, -1.0, -2.0], [2.0, 0.5, 0.0], [0.2, 0.3, 0.5]])
    torch.testing.assert_close(mean_shift.project(rows), project(rows))
