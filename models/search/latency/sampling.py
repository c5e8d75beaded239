"""Discrete architectures drawn from a mix, as codes that pass gradients on to alpha.

On every edge, an operation is drawn with the probability of its softmax weight: the largest of alpha plus Gumbel noise
(arXiv 1611.01144). Where a space limits the edges into a node, edges are drawn, too, without replacement and with odds
that grow with the strength that discretization compares (Plackett and Luce's model; with Gumbel noise, the largest
ones are such a draw, arXiv 1903.06059). Without noise, the result is the discretization of the mix.

Forward, all entries are 0 or 1. Backward (straight-through), a drawn operation passes its gradient on through the
softmax over the operations that the edge may keep, and a kept edge through the comparison of its strength with those
of the edges that are nearly kept or nearly left out.

Axes: N architectures, R rows (the edges of all cell types), O operations, K nodes, W edges into a node.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.search.latency.encoding import Encoding
from models.search.objective import Mix


@dataclass(frozen=True)
class Drawn:
    """Architectures as rows of their operations, and the log-probability of having drawn them."""

    chosen_NRO: Tensor
    log_probability_N: Tensor


@dataclass(frozen=True)
class Noise:
    """Gumbel noise for operations and for edges; zeros make the discretization of a mix."""

    ops_NRO: Tensor
    edges_NR: Tensor


class Sampler(nn.Module):
    """Draws architectures of a space; ``temperature`` is that of the softmax in the backward pass."""

    into: Tensor
    place: Tensor

    def __init__(self, encoding: Encoding, temperature: float = 1.0):
        super().__init__()
        self.encoding, self.temperature = encoding, temperature
        self.kept = encoding.space.incoming
        rows = [(group, edge.dst) for group, edges in encoding.space.groups.items() for edge in edges]
        nodes = {node: [row for row, other in enumerate(rows) if other == node] for node in rows}
        most = max(map(len, nodes.values()))
        into = [[*some, *[len(rows)] * (most - len(some))] for some in nodes.values()]
        flat = [row for some in into for row in some]
        self.register_buffer("into", torch.tensor(into, device="cpu"), persistent=False)  # (K, W); R: no edge
        self.register_buffer(
            "place", torch.tensor([*map(flat.index, range(len(rows)))], device="cpu"), persistent=False
        )

    def noise(self, samples: int, generator: torch.Generator) -> Noise:
        """Noise for N + 1 architectures. That of the first one is zero, which makes it the discretization."""
        rows, ops = self.encoding.allowed.shape
        uniform = torch.rand((samples, rows, ops + 1), generator=generator, dtype=torch.float64)
        gumbel = -(-uniform.clamp_min(1e-300).log()).clamp_min(1e-300).log()
        gumbel = F.pad(gumbel, (0, 0, 0, 0, 1, 0)).to(self.encoding.allowed.device, torch.get_default_dtype())
        return Noise(gumbel[..., :-1], gumbel[..., -1])

    def forward(self, logits: Mapping[str, Tensor], mix: Mix, noise: Noise) -> Drawn:
        allowed = self.encoding.allowed
        logits_RO = self.encoding.table(logits).masked_fill(~allowed, -torch.inf)
        noisy_NRO = logits_RO + noise.ops_NRO
        hard_NRO = F.one_hot(noisy_NRO.argmax(dim=-1), noisy_NRO.shape[-1]).to(noisy_NRO)
        soft_NRO = torch.softmax(noisy_NRO / self.temperature, dim=-1)
        chosen_NRO = hard_NRO + (soft_NRO - soft_NRO.detach())
        log_RO = torch.log_softmax(logits_RO, dim=-1).masked_fill(~allowed, 0.0)
        log_probability_NR = (hard_NRO * log_RO).sum(dim=-1)
        if self.kept is None:
            return Drawn(chosen_NRO, log_probability_NR.sum(dim=-1))
        strength_R = _log_odds(self.encoding.table(mix).masked_fill(~allowed, 0.0).amax(dim=-1))
        gate_NR, log_edges_N = self._edges(strength_R, noise.edges_NR, self.kept)
        log_probability_N = (gate_NR.detach() * log_probability_NR).sum(dim=-1) + log_edges_N
        return Drawn(chosen_NRO * gate_NR[..., None], log_probability_N)

    def soft(self, logits: Mapping[str, Tensor], discrete_NRO: Tensor) -> Tensor:
        """The shares of the operations on the edges that an architecture keeps."""
        logits_RO = self.encoding.table(logits).masked_fill(~self.encoding.allowed, -torch.inf)
        shares_NRO = torch.softmax(logits_RO, dim=-1).expand_as(discrete_NRO)
        return shares_NRO if self.kept is None else shares_NRO * discrete_NRO.sum(dim=-1, keepdim=True)

    def _edges(self, strength_R: Tensor, noise_NR: Tensor, kept: int) -> tuple[Tensor, Tensor]:
        """1 for edges that are kept and 0 for others, (N, R), and the log-probability (N,) of keeping them."""
        plain_KW = F.pad(strength_R, (0, 1), value=-torch.inf)[self.into]
        noisy_NKW = F.pad(strength_R + noise_NR, (0, 1), value=-torch.inf)[:, self.into]
        sorted_NKW, order_NKW = noisy_NKW.sort(dim=-1, descending=True, stable=True)
        hard_NKW = (order_NKW.argsort(dim=-1) < kept).to(strength_R)
        chosen_NKW = plain_KW.expand_as(order_NKW).gather(-1, order_NKW)
        rest_NKW = chosen_NKW.flip(-1).logcumsumexp(dim=-1).flip(-1)
        log_NKW = (chosen_NKW - rest_NKW)[..., :kept].masked_fill(sorted_NKW[..., :kept] == -torch.inf, 0.0)
        gate_NKW = hard_NKW
        if noisy_NKW.shape[-1] > kept:
            soft_NKW = self._soft_gate(noisy_NKW, sorted_NKW.detach(), kept)
            gate_NKW = hard_NKW + (soft_NKW - soft_NKW.detach())
        return gate_NKW.flatten(1)[:, self.place], log_NKW.sum(dim=(1, 2))

    def _soft_gate(self, noisy_NKW: Tensor, sorted_NKW: Tensor, kept: int) -> Tensor:
        """Whose gradient is that of a sigmoid around the border between kept and left out.

        The sum over the edges of a node does not change: one edge is kept instead of another. A node that keeps all
        its edges has no gradient.
        """
        border_NK1 = sorted_NKW[..., kept - 1 : kept + 1].mean(dim=-1, keepdim=True)
        decided = (border_NK1 == -torch.inf) | (noisy_NKW == -torch.inf)
        share_NKW = torch.sigmoid(
            (noisy_NKW.detach() - border_NK1).masked_fill(decided, -torch.inf) / self.temperature
        )
        slope_NKW = share_NKW * (1 - share_NKW) / self.temperature
        strength_NKW = noisy_NKW.masked_fill(decided, 0.0)
        total_NK1 = slope_NKW.sum(dim=-1, keepdim=True).clamp_min(torch.finfo(slope_NKW.dtype).tiny)
        mean_NK1 = (slope_NKW * strength_NKW).sum(dim=-1, keepdim=True) / total_NK1
        return slope_NKW * (strength_NKW - mean_NK1)


def _log_odds(share: Tensor) -> Tensor:
    """log(share / (1 - share)), finite where rounding has made a share 0 or 1."""
    limits = torch.finfo(share.dtype)
    return share.clamp_min(limits.tiny).log() - torch.log1p(-share.clamp_max(1 - limits.eps / 2))
