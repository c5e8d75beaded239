"""The section search of params.yaml, as far as tasks share it.

``SearchParams`` is what every search has. ``SupernetSearchParams`` adds the strategies that train a supernet at a mix of
all candidates, and their settings.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field

from stages.section import Count, Natural, NotNegative, Positive, Section, Seed, Share


class WeightsParams(Section, frozen=True):
    learning_rate: Positive
    learning_rate_end: NotNegative
    momentum: Share
    weight_decay: NotNegative
    gradient_clip: Positive


class AlphaParams(Section, frozen=True):
    learning_rate: Positive
    weight_decay: NotNegative
    warmup_epochs: Natural
    temperature_end: Positive


class MeanShiftParams(Section, frozen=True):
    samples: Count
    iterations: Count
    bandwidth: Positive | Literal["auto"]
    radius_start: NotNegative
    radius_end: NotNegative
    sign: Literal[1, -1]
    temperature: Positive
    probe_images: Count | None


class PerturbationParams(Section, frozen=True):
    radius_start: NotNegative
    radius_end: NotNegative
    steps: Count


class SingleLevelParams(Section, frozen=True):
    relaxation: Literal["softmax", "sigmoid"]


class EarlyStoppingParams(Section, frozen=True):
    watch: Literal["none", "eigenvalue", "skip_connections"]
    window: Count
    threshold: Positive
    limit: Natural

    def inactive(self) -> Collection[str]:
        keys = {"eigenvalue": ("limit",), "skip_connections": ("window", "threshold")}
        return keys.get(self.watch, ("window", "threshold", "limit"))


class SearchParams(Section, frozen=True):
    """What every search has. Tasks add their spaces, sizes and strategies."""

    strategy: str
    space: str
    seed: Seed
    epochs: Count
    batch_size: Annotated[int, Field(ge=2)]
    alpha: AlphaParams

    def named_space(self) -> str:
        """The name by which the task's part ``architectures`` knows the search space."""
        return self.space

    def relaxation(self) -> str:
        """The name of the function that turns alpha into a mix."""
        return "softmax"

    def remedy(self) -> str:
        """What helps a search that has decided next to nothing, as the end of a sentence."""
        return "raise search.epochs or search.alpha.learning_rate"

    def check(self, devices: int) -> None:
        """Raises ValueError for settings that do not fit each other or the number of devices."""
        if self.alpha.warmup_epochs >= self.epochs and self.epochs > 1:
            raise ValueError(
                f"search.alpha.warmup_epochs is {self.alpha.warmup_epochs}; it must be less than"
                f" search.epochs ({self.epochs}), or the architecture is never updated"
            )
        if self.batch_size % devices:
            raise ValueError(
                f"search.batch_size is {self.batch_size}; it should be a multiple of train.devices"
                f" ({devices}), because each device gets an equal part of every batch"
            )


class SupernetSearchParams(SearchParams, frozen=True):
    """A search that trains a supernet, whose edges compute a mix of all candidates."""

    strategy: Literal["ms-darts", "darts", "darts-2nd", "sdarts-rs", "sdarts-adv", "single-level"]
    weights: WeightsParams
    penalty: Literal["none", "beta", "entropy", "discretization"]
    penalty_weight: NotNegative | Literal["auto"]
    penalty_start: Share
    mean_shift: MeanShiftParams
    perturbation: PerturbationParams
    single_level: SingleLevelParams
    early_stopping: EarlyStoppingParams

    def inactive(self) -> Collection[str]:
        used = {
            "ms-darts": "mean_shift",
            "sdarts-rs": "perturbation",
            "sdarts-adv": "perturbation",
            "single-level": "single_level",
        }.get(self.strategy)
        keys = [
            f"{name}.{key}"
            for name in ("mean_shift", "perturbation", "single_level")
            if name != used
            for key in type(getattr(self, name)).model_fields
        ]
        if self.strategy == "sdarts-rs":
            keys.append("perturbation.steps")
        if self.penalty == "none":
            keys += ["penalty_weight", "penalty_start"]
        return [*keys, *(f"early_stopping.{key}" for key in self.early_stopping.inactive())]

    def relaxation(self) -> str:
        return self.single_level.relaxation if self.strategy == "single-level" else super().relaxation()

    def remedy(self) -> str:
        # More weight of beta holds alpha back even more.
        first = (
            "raise search.penalty_weight"
            if self.penalty in ("entropy", "discretization")
            else "set search.penalty to discretization"
        )
        return f"{first}, or {super().remedy()}"

    def check(self, devices: int) -> None:
        super().check(devices)
        probed, batch = self.mean_shift.probe_images, self.batch_size
        if probed is not None and (batch % probed or probed % devices):
            raise ValueError(
                f"search.mean_shift.probe_images is {probed}; it should divide search.batch_size ({batch}) and be a"
                f" multiple of train.devices ({devices}), because the images are spread evenly over the batch"
            )
