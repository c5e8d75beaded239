"""A smooth loss of a few numbers in place of a network: two cell types, two weight tensors, float64."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from models.search.objective import Mix, Params, Pass, Samples, leaves
from models.search.spaces import Edge, SearchSpace

SPACE = SearchSpace(
    "toy",
    "toy",
    {
        "one": (Edge(0, 1, ("a", "b", "c")), Edge(0, 2, ("a", "b", "c"))),
        "two": (Edge(0, 1, ("a", "b", "c", "d")),),
    },
    incoming=None,
    exclude_none=False,
)


class ToyObjective:
    """sum sin(A w + B a) + (v'C a)^2 with random A, B, C: no block of second derivatives vanishes."""

    def __init__(self, seed: int):
        self.seed = seed
        source = torch.Generator().manual_seed(seed)
        self.a, self.b, self.c = (
            torch.randn(shape, generator=source, dtype=torch.float64) for shape in ((6, 5), (6, 10), (3, 10))
        )
        self.probes = self.passes = 0

    def __call__(self, params: Params, mix: Mix) -> Tensor:
        self.passes += 1
        flat = torch.cat([mix["one"].flatten(), mix["two"].flatten()])
        return torch.sin(self.a @ params["w"] + self.b @ flat).sum() + (params["v"] @ self.c @ flat) ** 2

    def in_full_precision(self) -> ToyObjective:
        return self

    def thinned(self, every: int) -> ToyObjective:
        return ToyObjective(self.seed + 100 * every)  # another loss, as that of other cases is

    def evaluated(self, params: Params, mix: Mix) -> Tensor:
        return 2.0 * self(params, mix)  # so that the modes can be told apart

    def probe(self, params: Params, mixes: Sequence[Mix]) -> Tensor:
        self.probes += 1
        with torch.no_grad():
            return torch.stack([self.evaluated(params, mix) for mix in mixes])

    def joint_pass(self, params: Params, mix: Mix) -> tuple[Pass, dict[str, Tensor]]:
        params, mix = leaves(params), leaves(mix)
        loss = self(params, mix)
        loss.backward()

        def gradients(of: Mapping[str, Tensor]) -> dict[str, Tensor]:
            return {name: tensor.grad for name, tensor in of.items() if tensor.grad is not None}

        return Pass(loss.detach(), None, gradients(params)), gradients(mix)

    def sampled(self, params: Params, chosen: Mapping[str, Tensor]) -> Samples:
        rows = zip(*chosen.values(), strict=True)
        losses = [self(params, dict(zip(chosen, mix, strict=True))) for mix in rows]
        return Samples(torch.stack(losses)[:, None], None)


def weights(seed: int = 7) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(size, generator=source, dtype=torch.float64).requires_grad_()
        for name, size in (("w", 5), ("v", 3))
    }


def toy_mix(seed: int = 9) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {
        group: torch.softmax(torch.randn(shape, generator=source, dtype=torch.float64), dim=-1)
        for group, shape in SPACE.shapes().items()
    }
