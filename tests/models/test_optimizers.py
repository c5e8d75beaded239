"""Our optimizers step as torch's do, and import no compiler."""

from __future__ import annotations

import subprocess
import sys
from functools import partial

import pytest
import torch

from models.training import optimizers

PAIRS = {
    "SGD": (
        partial(optimizers.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3),
        partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=1e-3),
    ),
    "Adam": (
        partial(optimizers.Adam, lr=0.1, betas=(0.5, 0.999), weight_decay=1e-3),
        partial(torch.optim.Adam, lr=0.1, betas=(0.5, 0.999), weight_decay=1e-3),
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_weights_are_those_of_torch_also_after_a_restart(name: str) -> None:
    found = []
    for make in PAIRS[name]:
        weight = torch.linspace(-1, 1, 5).requires_grad_()
        optimizer = make([weight])
        for _ in range(4):
            optimizer.zero_grad()
            (weight**3).sum().backward()
            optimizer.step()
            state = optimizer.state_dict()
            optimizer = make([weight])
            optimizer.load_state_dict(state)
        found.append(weight.detach())
    assert torch.equal(*found)


def test_a_step_imports_no_compiler() -> None:
    code = """
import sys, torch
from models.training.optimizers import SGD, Adam
for make in (SGD, Adam):
    weight = torch.ones(2, requires_grad=True)
    optimizer = make([weight], lr=0.1)
    optimizer.zero_grad()
    weight.sum().backward()
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert weight[0] < 1
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
