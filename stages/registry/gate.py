"""What a network must show to become champion: pure conditions, each of which gives a reason to refuse it or none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from stages.images.scores import Scores
from stages.params import RegistryParams

NOISE = 0.05  # a difference is said to exceed the noise when its p-value is below this


@dataclass(frozen=True, eq=False)
class Champion:
    """The version to beat, and its scores on the challenger's test images; where there are none, ``trouble`` is why."""

    version: int
    scores: Scores | None
    trouble: str = ""


@dataclass(frozen=True, eq=False)
class Evidence:
    """All that is known of a challenger when it is judged."""

    challenger: Scores
    champion: Champion | None
    largest_difference: float  # of a probability from torch's, over all test images (export.json)
    disagreements: (
        int  # test images that torch and ONNX Runtime see in different classes, ties aside (export.json)
    )
    identical: bool  # the registered file, loaded again, answers bit for bit as the exported one


@dataclass(frozen=True)
class Comparison:
    """Two networks on the same images."""

    gain: float  # accuracy of the challenger less the champion's
    only_challenger: int  # images that only the challenger recognized
    only_champion: int
    p_value: float  # McNemar's exact test, two-sided

    @property
    def exceeds_noise(self) -> bool:
        """Whether chance alone would give such a difference less often than one time in twenty."""
        return self.p_value < NOISE


@dataclass(frozen=True, eq=False)
class Judgement:
    """The gate's decision and what it rests on."""

    evidence: Evidence
    refusals: tuple[str, ...]  # empty: it may become champion

    @property
    def accepted(self) -> bool:
        """Whether nothing speaks against the challenger."""
        return not self.refusals


Condition = Callable[[Evidence, RegistryParams], str | None]


def decide(evidence: Evidence, limits: RegistryParams) -> Judgement:
    """All the reasons why the challenger does not become champion, or none."""
    found = (condition(evidence, limits) for condition in CONDITIONS)
    return Judgement(evidence, tuple(reason for reason in found if reason))


def reload(evidence: Evidence, _: RegistryParams) -> str | None:
    """What was registered must be what was exported."""
    if evidence.identical:
        return None
    return (
        "the registered file, loaded again, does not answer as the exported one; delete the version to have it"
        " registered anew"
    )


def parity(evidence: Evidence, limits: RegistryParams) -> str | None:
    """What was exported must be what was trained."""
    if evidence.disagreements:
        return f"ONNX Runtime and torch see {evidence.disagreements} test images in different classes"
    if evidence.largest_difference > limits.max_difference:
        return (
            f"a probability differs from torch's by {evidence.largest_difference:.1e}, more than"
            f" registry.max_difference ({limits.max_difference:g})"
        )
    return None


def latency(evidence: Evidence, limits: RegistryParams) -> str | None:
    """The time budget."""
    taken, limit = evidence.challenger.latency_ms, limits.max_latency_ms
    if limit is None or taken <= limit:
        return None
    return f"an image takes {taken:.2f} ms, more than registry.max_latency_ms ({limit:g})"


def size(evidence: Evidence, limits: RegistryParams) -> str | None:
    """The size budget."""
    megabytes, limit = evidence.challenger.size_bytes / 1e6, limits.max_size_mb
    if limit is None or megabytes <= limit:
        return None
    return f"model.onnx has {megabytes:.2f} MB, more than registry.max_size_mb ({limit:g})"


def comparable(evidence: Evidence, _: RegistryParams) -> str | None:
    """There must be a champion to compare with, or none at all."""
    champion = evidence.champion
    return champion.trouble if champion is not None and champion.scores is None else None


def gain(evidence: Evidence, limits: RegistryParams) -> str | None:
    """More accurate than the champion, by min_gain at least."""
    if (found := comparison(evidence)) is None:
        return None
    assert evidence.champion is not None
    sentence = accuracies(evidence)
    if found.gain <= 0:
        return sentence
    if found.gain < limits.min_gain - 1e-12:  # accuracies are quotients of counts: 0.75 - 0.65 < 0.1
        return f"{sentence}, a gain below registry.min_gain ({limits.min_gain:g})"
    return None


def significance(evidence: Evidence, limits: RegistryParams) -> str | None:
    """Where it is asked for: the difference must not be one that chance makes."""
    found, limit = comparison(evidence), limits.significance
    if found is None or limit is None or found.p_value <= limit:
        return None
    return f"the difference may be noise: p = {found.p_value:.2g}, above registry.significance ({limit:g})"


CONDITIONS: tuple[Condition, ...] = (reload, parity, latency, size, comparable, gain, significance)


def accuracies(evidence: Evidence) -> str:
    """Both accuracies, in words. The champion must have scores."""
    champion = evidence.champion
    assert champion is not None and champion.scores is not None
    return (
        f"test accuracy {evidence.challenger.accuracy:.4f} against {champion.scores.accuracy:.4f}"
        f" of version {champion.version}"
    )


def comparison(evidence: Evidence) -> Comparison | None:
    """Challenger against champion, None where there is no champion with scores."""
    champion = evidence.champion
    if champion is None or champion.scores is None:
        return None
    ours, theirs = evidence.challenger.right, champion.scores.right
    only_challenger, only_champion = int((ours & ~theirs).sum()), int((theirs & ~ours).sum())
    return Comparison(
        gain=(only_challenger - only_champion) / len(ours),
        only_challenger=only_challenger,
        only_champion=only_champion,
        p_value=mcnemar(ours, theirs),
    )


def mcnemar(first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Two-sided p-value of McNemar's exact test that two networks are equally accurate; arguments: right answers (N,).

    Of the images that only one of them recognized, each would have half: a binomial with probability 1/2.
    """
    fewer, more = sorted((int((first & ~second).sum()), int((second & ~first).sum())))
    term = tail = 1  # binomial coefficients, in whole numbers
    for k in range(fewer):
        term = term * (fewer + more - k) // (k + 1)
        tail += term
    return min(1.0, 2 * tail / 2 ** (fewer + more))
