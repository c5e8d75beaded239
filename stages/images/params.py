"""The schema of params.yaml for images, and the metric of their networks."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Annotated, Literal

from pydantic import Field, model_validator

from models.images.families import Family, family_of
from models.images.spaces import SPACES
from stages import params as shared
from stages.evaluation import Metric
from stages.params import AnyPath, Count, Fraction, Natural, NotNegative, Positive, Share

METRIC = Metric(name="accuracy", case="image", higher_is_better=True, outcomes="right or wrong", classes=True)
BALANCED = METRIC.forms[-1]


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


class SearchParams(shared.SearchParams, frozen=True):
    space: Literal["s1", "s2", "s3", "s4", "s5", "nasbench201"]
    images: Annotated[int, Field(ge=4)] | None
    channels: Count
    cells: Count
    stages: Annotated[int, Field(ge=1, le=4)]
    exclude_none: bool
    cutout: Natural | Literal["auto"]
    curvature_images: Natural
    compile: bool | Literal["graphs"]
    benchmark_table: AnyPath | None

    def inactive(self) -> Collection[str]:
        family = self.family()
        of_other_spaces = {
            "stages": family.stages is not None,
            "exclude_none": SPACES[self.space].exclude_none,
            "benchmark_table": family.table_key is None,
        }
        return [*super().inactive(), *(key for key, inactive in of_other_spaces.items() if inactive)]

    def family(self) -> Family:
        """The family of the search space, which says what its networks have in common."""
        return family_of(SPACES[self.space])


class RetrainParams(shared.RetrainParams, frozen=True):
    channels: Count
    cells: Count
    stages: Annotated[int, Field(ge=1, le=4)]
    learning_rate: Positive
    momentum: Share
    weight_decay: NotNegative
    gradient_clip: Positive
    drop_path: Share
    cutout: Natural
    label_smoothing: Share
    class_weights: Literal["none", "balanced"]
    auxiliary_weight: NotNegative


class ExportParams(shared.ExportParams, frozen=True):
    opset: Annotated[int, Field(ge=18, le=23)]  # the exporter silently ignores values below 18
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
        if self.search.benchmark_table is not None and family.table_key is None:
            raise ValueError(
                f"search.benchmark_table is set, but search.space is {self.search.space}; it should be null, because"
                f" the table is about cells of {_spaces_with(lambda other: other.table_key is not None)}"
            )
        if self.data.valid_fraction + self.data.test_fraction >= 1:
            raise ValueError(
                f"data.valid_fraction and data.test_fraction are {self.data.valid_fraction} and"
                f" {self.data.test_fraction}; their sum must be less than 1, so that images are left to train on"
            )
        return self


def _spaces_with(property_of: Callable[[Family], bool]) -> str:
    return " and ".join(name for name, space in SPACES.items() if property_of(family_of(space)))
