from __future__ import annotations

import pytest
import torch
from torch import Tensor

from models.search.curvature import dominant_eigenvalue
from models.search.objective import BatchObjective
from models.training.events import Event, Measuring
from tests.models.tiny import CLASSES, SIDE, size, task

pytestmark = pytest.mark.usefixtures("double")


@pytest.mark.parametrize("dominant", [5.0, -5.0])
def test_the_eigenvalue_of_largest_magnitude_keeps_its_sign(dominant: float) -> None:
    basis = torch.linalg.qr(torch.randn((6, 6), generator=torch.Generator().manual_seed(0))).Q
    hessian = basis @ torch.diag(torch.tensor([dominant, 4.0, -3.0, 1.0, 0.5, 0.0])) @ basis.T

    def loss(at: dict[str, Tensor]) -> Tensor:
        flat = torch.cat([at["one"].flatten(), at["two"].flatten()])
        return 0.5 * flat @ hessian @ flat + flat.sum()

    at = {"one": torch.zeros(2, 2), "two": torch.zeros(1, 2)}
    found = dominant_eigenvalue(loss, at, tolerance=1e-6, max_iterations=500)  # pyright: ignore[reportArgumentType]
    assert found.value == pytest.approx(dominant, rel=1e-6)
    assert found.residual <= 1e-6 * 5.0
    heard: list[Event] = []
    rough = dominant_eigenvalue(loss, at, max_iterations=3, on_event=heard.append)  # pyright: ignore[reportArgumentType]
    assert [(event.done, event.most) for event in heard if isinstance(event, Measuring)] == [
        (1, 3),
        (2, 3),
        (3, 3),
    ]
    assert rough.iterations == 3 and rough.residual > 0.01 * abs(rough.value), "what did not settle says so"


def test_a_loss_without_curvature_has_eigenvalue_zero() -> None:
    found = dominant_eigenvalue(lambda at: at["one"].sum(), {"one": torch.zeros(2, 2)})
    assert (found.value, found.residual) == (0.0, 0.0)


@pytest.mark.parametrize("space", ["s2", "nasbench201"])
def test_it_is_that_of_the_full_hessian_of_the_validation_loss(space: str) -> None:
    tiny = task(space)
    supernet = tiny.supernet(channels=2, cells=size(space).cells)
    x = torch.randn((6, 3, SIDE, SIDE), generator=torch.Generator().manual_seed(0))
    objective = BatchObjective(tiny, supernet, x, torch.arange(6) % CLASSES)
    params = {name: weight.detach() for name, weight in supernet.named_parameters()}
    objective(params, {group: torch.full(shape, 0.2) for group, shape in tiny.space.shapes().items()})
    source = torch.Generator().manual_seed(1)
    alphas = {group: torch.randn(shape, generator=source) for group, shape in tiny.space.shapes().items()}

    def loss(*rows: Tensor) -> Tensor:
        mix = {group: torch.softmax(row, dim=-1) for group, row in zip(alphas, rows, strict=True)}
        return objective.evaluated(params, mix)

    blocks = torch.autograd.functional.hessian(loss, tuple(alphas.values()))
    sizes = [rows.numel() for rows in alphas.values()]
    full = torch.cat(
        [
            torch.cat([block.reshape(sizes[i], sizes[j]) for j, block in enumerate(row)], dim=1)
            for i, row in enumerate(blocks)
        ]
    )
    exact = max(torch.linalg.eigvalsh(full).tolist(), key=abs)
    found = dominant_eigenvalue(lambda at: loss(*at.values()), alphas)
    assert found.residual <= 0.01 * abs(found.value)
    assert found.value == pytest.approx(exact, rel=0.01)
    fine = dominant_eigenvalue(lambda at: loss(*at.values()), alphas, tolerance=1e-7, max_iterations=5000)
    assert fine.value == pytest.approx(exact, rel=1e-9)
