"""Predictors of latency, and the choice between them by cross-validation.

    additive   a look-up table: every operation on every edge has its milliseconds
    pairwise   and every two operations together have some more
    network    two hidden layers (arXiv 2001.06392)
    ensemble   a weighted sum of these; its networks, each trained without a part of the samples, say how sure it is
    transfer   for few samples of a device: a table on top of what predictors of other devices say

Which of them is best depends on the device: where the runtime computes every operation, latency is a sum; where it
leaves out what leads to nothing and merges what it can, the others are better.

Axes: N samples, D columns of a code, K kinds.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from models.errors import InvalidInput
from models.search.latency.network import Networks, train
from models.search.latency.quality import Quality, quality
from models.search.latency.ridge import Quadratic, additive, pairwise

KINDS = ("additive", "pairwise", "network", "ensemble")
FEWEST = 10  # samples that anything is fitted to
FEWEST_OF_NETWORK = 100
FLOOR = (
    0.1  # of the median: errors are not related to less than that, because empty cells take next to no time
)


class Predictor(nn.Module):
    """codes (N, D) -> ms (N,), float32 and differentiable: a weighted sum of its parts."""

    shares: Tensor

    def __init__(self, kind: str, parts: Sequence[nn.Module], shares: Tensor | None = None):
        super().__init__()
        self.kind, self.parts = kind, nn.ModuleList(parts)
        self.register_buffer("shares", torch.ones(len(parts)) if shares is None else shares.float())

    def forward(self, codes_ND: Tensor) -> Tensor:
        terms = [_mean(part(codes_ND)) for part in self.parts]
        return sum(
            (share * term for share, term in zip(self.shares, terms, strict=True)), codes_ND.new_zeros(())
        )

    def spread(self, codes_ND: Tensor) -> Tensor:
        """The standard deviation of its networks in relation to the latency, (N,); 0 with fewer than two."""
        for part in self.parts:
            if isinstance(part, Networks) and len(part.weights[0]) > 1:
                members = part(codes_ND)
                return members.std(dim=0) / self(codes_ND).abs().clamp_min(1e-9)
        return codes_ND.new_zeros(len(codes_ND))

    def state(self) -> dict[str, Tensor]:
        """What ``restore`` makes the same predictor of."""
        return {name: tensor.contiguous() for name, tensor in self.state_dict().items()}


class Transfer(nn.Module):
    """A table on the predictions of other devices' predictors and, with less weight, on the code."""

    scales: Tensor

    def __init__(self, references: Sequence[Predictor], scales: Tensor, table: Quadratic):
        super().__init__()
        self.references, self.table = nn.ModuleList(references), table
        self.register_buffer("scales", scales)

    def forward(self, codes_ND: Tensor) -> Tensor:
        return self.table(features(self.references, self.scales, codes_ND))


def features(references: Iterable[nn.Module], scales: Tensor, codes_ND: Tensor) -> Tensor:
    """What references say, in relation to their mean, and the code, (N, references + D)."""
    said = torch.stack([reference(codes_ND) for reference in references], dim=1)
    return torch.cat([said / scales, OWN * codes_ND], dim=1)


OWN = 0.1  # the scale of the code beside predictions of about 1; with 0.03 and 0.3, other devices were predicted worse


@dataclass(frozen=True)
class Fitted:
    """A predictor of each kind, fitted to all samples, and their quality in cross-validation; ``kind`` is the best.

    ``doubtful`` is the one whose ``spread`` tells where to measure next: the ensemble, if there is one.
    """

    kind: str
    predictors: Mapping[str, Predictor]
    scores: Mapping[str, Quality]

    @property
    def predictor(self) -> Predictor:
        return self.predictors[self.kind]

    @property
    def doubtful(self) -> Predictor:
        return self.predictors.get("ensemble", self.predictor)


def fit(
    codes_ND: Tensor,
    ms_N: Tensor,
    *,
    seed: int,
    kinds: Collection[str] = KINDS,
    folds: int = 5,
    weights: Tensor | None = None,
    references: Sequence[Predictor] = (),
) -> Fitted:
    """The best kind of predictor in cross-validation, fitted to all samples; the same for the same seed.

    That is the kind with the smallest error among those that order the samples no worse than ``additive``, which is
    always tried. ``weights`` (N,) are those of the samples; a noisy one has less. With ``references``, predictors of
    other devices, ``transfer`` is tried as well. Networks need 100 samples, and pairs at most 4,000 samples or as many
    pairs. Raises InvalidInput for fewer than 10 samples, and for a latency that is not positive and finite.
    """
    if len(ms_N) < FEWEST:
        raise InvalidInput(
            f"latency: {len(ms_N)} samples are too few for a predictor; measure {FEWEST} or more"
        )
    if not bool((ms_N.isfinite() & (ms_N > 0)).all()):
        raise InvalidInput(
            "latency: a measurement is not a positive number of ms; leave it out or measure it again"
        )
    codes_ND, ms_N = codes_ND.float(), ms_N.float()
    weights_N = torch.ones_like(ms_N) if weights is None else weights.float()
    source = torch.Generator().manual_seed(seed)
    parts = torch.randperm(len(ms_N), generator=source).chunk(min(folds, len(ms_N)))
    relative_N = weights_N / ms_N.clamp_min(FLOOR * ms_N.median()).square()
    candidates = _candidates(codes_ND, ms_N, weights_N, relative_N, parts, set(kinds), source)
    if references:
        candidates["transfer"] = _transfer(references, codes_ND, ms_N, weights_N, parts)
    scores = {kind: quality(held_out_N, ms_N) for kind, (_, held_out_N) in candidates.items()}
    kind = min(
        (kind for kind in scores if scores[kind].spearman >= scores["additive"].spearman),
        key=lambda kind: float((relative_N.sqrt() * (candidates[kind][1] - ms_N)).abs().mean()),
    )
    predictors = {name: predictor for name, (predictor, _) in candidates.items()}
    return Fitted(kind, predictors, scores)


_Candidate = tuple[Predictor, Tensor]  # fitted to all samples; predictions (N,) of samples that were held out


def _candidates(
    codes_ND: Tensor,
    ms_N: Tensor,
    weights_N: Tensor,
    relative_N: Tensor,
    folds: Sequence[Tensor],
    kinds: set[str],
    source: torch.Generator,
) -> dict[str, _Candidate]:
    found: dict[str, _Candidate] = {}
    members: list[tuple[nn.Module, Tensor]] = [additive(codes_ND, ms_N, weights_N, folds)]
    found["additive"] = _alone("additive", *members[0])
    if {"pairwise", "ensemble"} & kinds and (
        fitted := pairwise(codes_ND, ms_N, weights_N, folds)
    ) is not None:
        members.append(fitted)
        found["pairwise"] = _alone("pairwise", *fitted)
    if {"network", "ensemble"} & kinds and len(ms_N) >= FEWEST_OF_NETWORK:
        rest = [torch.cat([other for other in folds if other is not fold]) for fold in folds]
        networks = train(codes_ND, ms_N, relative_N, [*rest, torch.cat(list(folds))], source)
        held_out_N = torch.empty_like(ms_N)
        for fold, said_N in zip(folds, networks(codes_ND), strict=False):
            held_out_N[fold] = said_N[fold]
        members.append((networks, held_out_N))
        found["network"] = _alone("network", networks.member(-1), held_out_N)
        if "ensemble" in kinds:
            said_NK = torch.stack([held_out_N.float() for _, held_out_N in members], dim=1)
            shares_K = stacked(said_NK, ms_N, relative_N)
            parts = [part for part, _ in members]
            found["ensemble"] = (Predictor("ensemble", parts, shares_K), said_NK @ shares_K)
    return {kind: found[kind] for kind in found if kind in kinds or kind == "additive"}


def _alone(kind: str, part: nn.Module, held_out_N: Tensor) -> _Candidate:
    return Predictor(kind, [part]), held_out_N.float()


def _transfer(
    references: Sequence[Predictor],
    codes_ND: Tensor,
    ms_N: Tensor,
    weights_N: Tensor,
    folds: Sequence[Tensor],
) -> _Candidate:
    scales = torch.stack([reference(codes_ND).mean() for reference in references])
    table, held_out_N = additive(features(references, scales, codes_ND), ms_N, weights_N, folds)
    return _alone("transfer", Transfer(references, scales, table), held_out_N)


def stacked(said_NK: Tensor, ms_N: Tensor, weights_N: Tensor) -> Tensor:
    """The weights (K,), none of them negative, with which predictions add up to the smallest squared error."""
    count = said_NK.shape[1]
    root_N = weights_N.double().sqrt()
    x_NK, y_N = root_N[:, None] * said_NK, root_N * ms_N
    best, smallest = torch.zeros(count), float("inf")
    for size in range(1, count + 1):
        for some in itertools.combinations(range(count), size):
            shares = torch.linalg.lstsq(x_NK[:, some], y_N[:, None]).solution[:, 0]
            loss = float((x_NK[:, some] @ shares - y_N).square().sum())
            if bool((shares >= 0).all()) and loss < smallest:
                smallest = loss
                best = torch.zeros(count).index_put((torch.tensor(some),), shares.float())
    return best


def restore(kind: str, state: Mapping[str, Tensor]) -> Predictor:
    """The predictor that gave this ``state``. Raises InvalidInput for what is no such state."""
    try:
        parts = [_part(_within(state, f"parts.{index}.")) for index in range(len(state["shares"]))]
        return Predictor(kind, parts, state["shares"])
    except (KeyError, TypeError):
        raise InvalidInput("latency: this is no predictor; measure again") from None


def _part(state: Mapping[str, Tensor]) -> nn.Module:
    if "linear" in state:
        return Quadratic(state["bias"], state["linear"], state["pairs"])
    if "center" in state:
        layers = range(sum(name.startswith("weights.") for name in state))
        weights, biases = ([state[f"{name}.{layer}"] for layer in layers] for name in ("weights", "biases"))
        return Networks(weights, biases, state["center"], state["scale"]).requires_grad_(False)
    references = [
        restore("reference", _within(state, f"references.{index}.")) for index in range(len(state["scales"]))
    ]
    table = _within(state, "table.")
    return Transfer(references, state["scales"], Quadratic(table["bias"], table["linear"], table["pairs"]))


def _within(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _mean(said: Tensor) -> Tensor:
    """Of networks (M, N) their mean; a table (N,) as it is."""
    return said.mean(dim=0) if said.dim() == 2 else said
