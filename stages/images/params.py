"""The schema of params.yaml for images, and what their networks are judged by."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field, model_validator

from stages import params as shared
from stages.evaluation import Metric
from stages.params import Count, Fraction, Natural, NotNegative, Positive, Share

METRIC = Metric(name="accuracy", case="image", higher_is_better=True, outcomes="right or wrong")

BENCHMARK = "nasbench201"  # the space of the family of the same name


class DataParams(shared.DataParams, frozen=True):
    name: Literal["digits", "cifar10", "cifar100", "svhn", "fashion_mnist", "npz", "imagefolder"]
    image_size: Count | None
    mirror: bool | Literal["auto"]
    valid_fraction: Fraction
    test_fraction: Fraction


class SearchParams(shared.SearchParams, frozen=True):
    space: Literal["s1", "s2", "s3", "s4", "s5", "nasbench201"]
    images: Annotated[int, Field(ge=4)] | None
    channels: Count
    cells: Count
    stages: Annotated[int, Field(ge=1, le=4)]
    exclude_none: bool
    cutout: Natural | Literal["auto"]
    curvature_images: Natural
    compile: bool
    benchmark_table: str | None

    def inactive(self) -> Collection[str]:
        of_benchmark = ("stages", "exclude_none", "benchmark_table")
        return [*super().inactive(), *(() if self.space == BENCHMARK else of_benchmark)]


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
    auxiliary_weight: NotNegative


class ExportParams(shared.ExportParams, frozen=True):
    opset: Annotated[int, Field(ge=18, le=23)]  # below 18 the exporter silently converts nothing
    latency_repeats: Count
    int8_images: Natural

    def inactive(self) -> Collection[str]:
        return () if self.int8_images else ("seed",)  # the seed draws the images that calibrate int8


class RegistryParams(shared.RegistryParams, frozen=True):
    min_gain: Share


class Params(shared.Params, frozen=True):
    """All of params.yaml, for images."""

    data: DataParams
    search: SearchParams
    retrain: RetrainParams
    export: ExportParams
    registry: RegistryParams

    @model_validator(mode="after")
    def _across_keys(self) -> Params:
        benchmark = self.search.space == BENCHMARK
        for section, size in (("search", self.search), ("retrain", self.retrain)):
            if not benchmark and size.cells < 3:
                raise ValueError(
                    f"{section}.cells is {size.cells}; it should be 3 or more, because fewer leave no normal cell"
                )
            if not benchmark and size.stages != 3:
                raise ValueError(
                    f"{section}.stages is {size.stages}; it should be 3 in all spaces but {BENCHMARK}"
                )
        if self.search.benchmark_table is not None and not benchmark:
            raise ValueError(
                f"search.benchmark_table is set, but search.space is {self.search.space}; it should be null, because the"
                f" table is about cells of {BENCHMARK}"
            )
        if self.data.valid_fraction + self.data.test_fraction >= 1:
            raise ValueError(
                f"data.valid_fraction and data.test_fraction are {self.data.valid_fraction} and"
                f" {self.data.test_fraction}; together they must leave images to train on (be less than 1)"
            )
        return self
