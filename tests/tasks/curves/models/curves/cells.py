"""A cell of one edge whose operation is a line or a sine.

Axes: N mixes, B points.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from models.errors import InvalidInput
from models.search.genotype import Genotype
from models.search.spaces import Edge, SearchSpace

OPERATIONS = ("line", "sine")
SPACE = SearchSpace(
    "curves", "curves", {"cell": (Edge(0, 1, OPERATIONS),)}, incoming=None, exclude_none=False
)


class Line(nn.Module):
    """w x + b"""

    def __init__(self) -> None:
        super().__init__()
        self.slope, self.shift = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x_B: Tensor) -> Tensor:
        return self.slope * x_B + self.shift


class Sine(nn.Module):
    """w sin(3 x) + b"""

    def __init__(self) -> None:
        super().__init__()
        self.height, self.shift = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))

    def forward(self, x_B: Tensor) -> Tensor:
        return self.height * torch.sin(3.0 * x_B) + self.shift


class Supernet(nn.Module):
    """Both candidates, weighted by a mix (1, 2). With N mixes (N, 1, 2), gives N curves (N * B,), mix 0 first."""

    def __init__(self) -> None:
        super().__init__()
        self.line, self.sine = Line(), Sine()

    def forward(self, x_B: Tensor, mix: Mapping[str, Tensor]) -> Tensor:
        candidates_OB = torch.stack([self.line(x_B), self.sine(x_B)])
        return (mix["cell"][..., 0, :] @ candidates_OB).flatten()


class Curve(nn.Module):
    """The found network: one of the candidates."""

    def __init__(self, genotype: Genotype):
        super().__init__()
        ((_, _, operation),) = genotype.groups["cell"]
        self.function = {"line": Line, "sine": Sine}[operation]()

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def to_json(genotype: Genotype) -> dict[str, str]:
    return {"space": "curves", "operation": genotype.groups["cell"][0][2]}


def from_json(content: Mapping[str, object]) -> Genotype:
    operation = content.get("operation")
    if operation not in OPERATIONS:
        raise InvalidInput(f"genotype: operation is {operation!r}; choose one of {', '.join(OPERATIONS)}")
    return Genotype("curves", {"cell": ((0, 1, str(operation)),)})
