"""The schema of params.yaml for images, and the metric of their networks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, fields, replace
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator
from pydantic_core import PydanticCustomError

from models.images.families import Family, family_of
from models.images.recipes import RECIPES, Recipe
from models.images.spaces import SPACES
from stages import params as shared
from stages import search_params as searching
from stages.evaluation import Metric
from stages.section import AnyPath, Count, Fraction, Natural, NotNegative, Positive, Share

METRIC = Metric(name="accuracy", case="image", higher_is_better=True, outcomes="right or wrong", classes=True)
BALANCED = METRIC.forms[-1]
PACKAGES: Sequence[str] = ()  # beyond requirements.lock


Auto = Literal["auto"]
Probability = Annotated[float, Field(ge=0, le=1)]
Magnitude = Annotated[float, Field(ge=0, le=10)]


class DataParams(shared.DataParams, frozen=True):
    name: Literal[
        "digits", "cifar10", "cifar100", "svhn", "fashion_mnist", "npz", "imagefolder", "webdataset"
    ]
    image_size: Count | None
    max_megapixels: Positive
    duplicates: Literal["warn", "drop", "refuse"]
    mirror: bool | Literal["auto"]
    valid_fraction: Fraction
    test_fraction: Fraction

    def inactive(self) -> Collection[str]:
        return () if self.name in ("imagefolder", "webdataset") else ("max_megapixels",)

    def reads_folders(self) -> bool:
        return self.name == "imagefolder"


class EarlyStoppingParams(searching.EarlyStoppingParams, frozen=True):
    agreement: Annotated[float, Field(gt=-1, lt=1)] | None
    agreement_steps: Count

    def inactive(self) -> Collection[str]:
        return [*super().inactive(), *(["agreement_steps"] if self.agreement is None else [])]


class SearchParams(searching.SupernetSearchParams, frozen=True):
    space: Literal["s1", "s2", "s3", "s4", "s5", "nasbench201"]
    images: Annotated[int, Field(ge=4)] | None
    channels: Count
    cells: Count
    stages: Annotated[int, Field(ge=1, le=4)]
    exclude_none: bool
    cutout: Natural | Literal["auto"]
    curvature_images: Natural
    landscape: Natural
    compile: bool | Literal["graphs"]
    early_stopping: EarlyStoppingParams
    benchmark_table: AnyPath | None

    def inactive(self) -> Collection[str]:
        family = self.family()
        unused = {
            "stages": family.stages is not None,
            "exclude_none": SPACES[self.space].exclude_none,
            "benchmark_table": family.table_key is None,
            "landscape": self.curvature_images == 0,
        }
        return [*super().inactive(), *(key for key, inactive in unused.items() if inactive)]

    @field_validator("landscape")
    @classmethod
    def _has_a_middle(cls, points: int) -> int:
        if points and (points < 3 or points % 2 == 0):
            raise PydanticCustomError("landscape", "Input should be 0, or an odd number from 3 on")
        return points

    def family(self) -> Family:
        """The family of the search space, which says what its networks have in common."""
        return family_of(SPACES[self.space])


class RetrainParams(shared.BatchedRetrainParams, frozen=True):
    channels: Count
    cells: Count
    stages: Annotated[int, Field(ge=1, le=4)]
    recipe: Literal["darts", "modern"]
    learning_rate: Positive
    warmup_epochs: Natural | Auto
    momentum: Share
    nesterov: bool | Auto
    weight_decay: NotNegative
    gradient_clip: Positive
    ema_decay: Share | Auto
    drop_path: Share
    cutout: Natural
    random_erasing: Probability | Auto
    randaugment: Natural | Auto
    randaugment_magnitude: Magnitude | Auto
    mixup: NotNegative | Auto
    cutmix: NotNegative | Auto
    mix_probability: Annotated[Probability, Field(gt=0)] | Auto
    label_smoothing: Share
    class_weights: Literal["none", "balanced"]
    auxiliary_weight: NotNegative

    def network(self) -> dict[str, int]:
        """The arguments of ``found_network`` that this section has."""
        return self.model_dump(include={"seed", "channels", "cells", "stages"})

    def in_force(self) -> Recipe:
        """The values of the recipe, and in their place those that are not ``auto``."""
        recipe = RECIPES[self.recipe](self.epochs)
        given = {field.name: getattr(self, field.name) for field in fields(Recipe)}
        recipe = replace(recipe, **{name: value for name, value in given.items() if value != "auto"})
        return replace(recipe, nesterov=recipe.nesterov and self.momentum > 0)

    def inactive(self) -> Collection[str]:
        recipe = self.in_force()
        without_effect = {
            "recipe": all(getattr(self, field.name) != "auto" for field in fields(Recipe)),
            "nesterov": self.momentum == 0,
            "randaugment_magnitude": recipe.randaugment == 0,
            "mix_probability": recipe.mixup == recipe.cutmix == 0,
        }
        return [key for key, inactive in without_effect.items() if inactive]

    def active(self) -> dict[str, Any]:
        """With the recipe's values instead of ``auto``, so that checkpoints and runs show what is trained."""
        values = asdict(self.in_force())
        return {name: values.get(name, value) for name, value in super().active().items()}


class ExportParams(shared.ExportParams, frozen=True):
    opset: Annotated[int, Field(ge=13, le=23)]  # the bounds of stages/opsets.py
    latency_repeats: Count
    int8_images: Natural

    def inactive(self) -> Collection[str]:
        return () if self.int8_images else ("seed",)  # the seed draws the images that calibrate int8


class RegistryParams(shared.RegistryParams, frozen=True):
    metric: Literal["accuracy", "balanced_accuracy"]
    min_gain: Share

    def judged_by(self, metric: Metric) -> Metric:
        return next(form for form in metric.forms if form.name == self.metric)


class Params(shared.Params, frozen=True):
    """All of params.yaml, for images."""

    data: DataParams
    search: SearchParams
    retrain: RetrainParams
    export: ExportParams
    registry: RegistryParams

    @model_validator(mode="after")
    def _across_keys(self) -> Params:
        family = self.search.family()
        for section, size in (("search", self.search), ("retrain", self.retrain)):
            if size.cells < family.minimum_cells:
                raise ValueError(
                    f"{section}.cells is {size.cells}; it should be {family.minimum_cells} or more, because fewer"
                    " cells leave no normal cell"
                )
            if family.stages not in (None, size.stages):
                raise ValueError(
                    f"{section}.stages is {size.stages}; it should be {family.stages} in all spaces except"
                    f" {_spaces_with(lambda other: other.stages is None)}"
                )
        if self.search.early_stopping.agreement is not None and self.search.strategy == "single-level":
            raise ValueError(
                "search.early_stopping.agreement is set, but search.strategy is single-level; it should be null, because"
                " the agreement is between training and validation batches, and a single-level search has no latter"
            )
        if self.search.benchmark_table is not None and family.table_key is None:
            raise ValueError(
                f"search.benchmark_table is set, but search.space is {self.search.space}; it should be null, because"
                f" the table is about cells of {_spaces_with(lambda other: other.table_key is not None)}"
            )
        if self.retrain.nesterov is True and self.retrain.momentum == 0:
            raise ValueError(
                "retrain.nesterov is True, but retrain.momentum is 0; it should be auto or false, because there is no"
                " momentum to look ahead with"
            )
        if self.retrain.in_force().warmup_epochs >= self.retrain.epochs:
            raise ValueError(
                f"retrain.warmup_epochs is {self.retrain.warmup_epochs}; it must be less than retrain.epochs"
                f" ({self.retrain.epochs}), or the learning rate never gets to retrain.learning_rate"
            )
        if self.data.valid_fraction + self.data.test_fraction >= 1:
            raise ValueError(
                f"data.valid_fraction and data.test_fraction are {self.data.valid_fraction} and"
                f" {self.data.test_fraction}; their sum must be less than 1, so that images are left to train on"
            )
        return self


def _spaces_with(property_of: Callable[[Family], bool]) -> str:
    return " and ".join(name for name, space in SPACES.items() if property_of(family_of(space)))


def metric(params: shared.Params) -> Metric:
    """The metric of all image classifiers."""
    return METRIC
