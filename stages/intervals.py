"""How sure a share of right answers is."""

from __future__ import annotations


def wilson(right: int, cases: int) -> tuple[float, float]:
    """The 95% interval of a share of ``right`` of so many independent cases (Wilson 1927).

    Unlike the share plus and minus two standard errors, it stays within 0 and 1, and is not empty for a share of 1.
    """
    from scipy.stats import binomtest  # slow to import

    interval = binomtest(right, cases).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def in_words(share: float, cases: int) -> str:
    """The 95% interval of a share of right answers: 97.6 to 99.7%."""
    low, high = wilson(round(share * cases), cases)
    return f"{100 * low:.1f} to {100 * high:.1f}%"
