"""Averages of tensors over an epoch. They stay on the device, so nothing waits until they are read."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class Averages:
    """Means of named scalars, each over the values added under its name."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds one value, a scalar tensor, to each name."""
        for name, value in values.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}
