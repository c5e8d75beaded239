"""Averages of tensors over an epoch, kept on the device: nothing waits for them until they are read."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor


class Averages:
    """Means of named scalars, each over as many values as it was given."""

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, int] = {}

    def add(self, values: Mapping[str, Tensor]) -> None:
        """One value (a scalar tensor) for each name."""
        for name, value in values.items():
            value = value.detach()
            self._sums[name] = self._sums[name] + value if name in self._sums else value
            self._counts[name] = self._counts.get(name, 0) + 1

    def means(self) -> dict[str, float]:
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}
