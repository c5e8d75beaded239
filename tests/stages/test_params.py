"""Every mistake in params.yaml gives one line with the key, the value and what to do."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from models.images.recipes import LONG, RECIPES, Recipe, modern
from stages.errors import UserError
from stages.images.params import Params as ImageParams
from stages.images.params import RetrainParams
from stages.params import Params
from stages.plumbing.settings import changed, load, write
from tests.stages.conftest import ROOT, write_params


def test_the_projects_own_file_is_valid() -> None:
    assert isinstance(load(ROOT / "params.yaml"), Params)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"search.epochs": ..., "search.epoch": 5}, "search.epoch is unknown; did you mean search.epochs?"),
        ({"search.mean_shift.bandwith": 1.0}, "did you mean search.mean_shift.bandwidth?"),
        ({"serach": {}}, "serach is unknown; did you mean search?"),
        ({"discretize.drop_path": 0.1}, "discretize.drop_path is unknown; did you mean retrain.drop_path?"),
        ({"search.epochs": "ten"}, "search.epochs is 'ten'; it should be a valid integer"),
        ({"search.epochs": 2.5}, "search.epochs is 2.5; it should be a valid integer"),
        ({"search.epochs": 0}, "search.epochs is 0; it should be greater than or equal to 1"),
        ({"search.epochs": True}, "search.epochs is True; it should be a valid integer"),
        ({"search.mean_shift.probe_images": 0}, "probe_images is 0; it should be greater than or equal to 1"),
        ({"search.mean_shift.probe_images": 24}, "it should divide search.batch_size (64) and be a multiple"),
        (
            {"search.mean_shift.probe_images": 1, "train.devices": 2},
            "search.mean_shift.probe_images is 1; it should divide",
        ),
        ({"search.landscape": 4}, "search.landscape is 4; it should be 0, or an odd number from 3 on"),
        ({"search.landscape": -1}, "search.landscape is -1; it should be greater than or equal to 0"),
        ({"search.cells": 2}, "search.cells is 2; it should be 3 or more"),
        ({"retrain.drop_path": 1.0}, "retrain.drop_path is 1.0; it should be less than 1"),
        ({"search.strategy": "msdarts"}, "search.strategy is 'msdarts'; it should be 'ms-darts'"),
        ({"data.mirror": "often"}, "data.mirror is 'often'; it should be a valid boolean or be 'auto'"),
        ({"search.mean_shift.bandwidth": float("inf")}, "bandwidth is inf; it should be a finite number"),
        ({"retrain.seed": ...}, "retrain.seed is missing"),
        ({"train.devices": 0}, "train.devices is 0; it should be greater than or equal to 1"),
        (
            {"train.devices": 3},
            "search.batch_size is 64; it should be a multiple of train.devices (3)",
        ),
        ({"search.alpha.warmup_epochs": 20, "search.epochs": 20}, "must be less than search.epochs (20)"),
        ({"data.valid_fraction": 0.6, "data.test_fraction": 0.5}, "their sum must be less than 1"),
        ({"export.opset": 12}, "export.opset is 12; it should be greater than or equal to 13"),
        ({"registry.name": "our cat's net"}, 'registry.name is "our cat\'s net"; it should match pattern'),
        (
            {"data.root": "~/pictures"},
            f"data.root is '~/pictures'; it should be written in full, {Path.home()}/pictures, because DVC",
        ),
        ({"data.root": "~no-such-user/x"}, "it should begin with / or with a user who exists"),
        ({"data.root": ""}, "data.root is ''; it should be a path"),
        ({"data.root": " "}, "data.root is ' '; it should be a path"),
        ({"data.root": "a\0b"}, "it should be a path"),
        ({"data.root": 2024}, "data.root is 2024; it should be a path; put a path of digits in quotes"),
        ({"data.root": None}, "data.root is None; it should be a path"),
        ({"search.benchmark_table": ""}, "search.benchmark_table is ''; it should be a path"),
        ({"search.benchmark_table": "~no-such-user/x"}, "it should begin with / or with a user who exists"),
        ({"search.benchmark_table": 201}, "search.benchmark_table is 201; it should be a path"),
        ({"retrain.recipe": "new"}, "retrain.recipe is 'new'; it should be 'darts' or 'modern'"),
        (
            {"retrain.mixup": -0.1},
            "retrain.mixup is -0.1; it should be greater than or equal to 0 or be 'auto'",
        ),
        ({"retrain.mix_probability": 1.1}, "it should be less than or equal to 1 or be 'auto'"),
        ({"retrain.mix_probability": 0}, "it should be greater than 0 or be 'auto'"),
        ({"retrain.nesterov": "yes"}, "it should be a valid boolean or be 'auto'"),
        (
            {"retrain.nesterov": True, "retrain.momentum": 0.0},
            "because there is no momentum to look ahead with",
        ),
        (
            {"retrain.warmup_epochs": 30},
            "retrain.warmup_epochs is 30; it must be less than retrain.epochs (30)",
        ),
        ({"registry.name": "n" * 251}, "it should have at most 250 characters"),
        ({"registry.name": "a/b"}, "registry.name is 'a/b'; it should match pattern"),
    ],
)
def test_a_mistake_is_one_clear_line(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    write_params(tmp_path / "params.yaml", changes)
    with pytest.raises(UserError) as caught:
        load(tmp_path / "params.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("data: [\n", "is not valid YAML"),
        ("data: 1\ndata: 2\n", "line 2 is not valid YAML: found duplicate key"),
        ("just words", "must hold the sections task, data, train, latency, search"),
        ("", "must hold the sections"),
    ],
)
def test_a_broken_file_is_one_clear_line(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load(tmp_path / "params.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_numbers_in_exponent_form_are_numbers_as_dvc_reads_them(tmp_path: Path) -> None:
    text = (ROOT / "params.yaml").read_text().replace("weight_decay: 0.0003", "weight_decay: 3e-4")
    (tmp_path / "params.yaml").write_text(text)
    params = load(tmp_path / "params.yaml")
    assert isinstance(params, ImageParams)
    assert params.retrain.weight_decay == 3e-4


def retrain(tmp_path: Path, **changes: Any) -> RetrainParams:
    write_params(tmp_path / "params.yaml", {f"retrain.{key}": value for key, value in changes.items()})
    params = load(tmp_path / "params.yaml")
    assert isinstance(params, ImageParams)
    return params.retrain


def test_auto_is_what_the_recipe_says_and_a_value_of_ones_own_goes_before_it(tmp_path: Path) -> None:
    assert retrain(tmp_path).in_force() == Recipe()
    assert retrain(tmp_path, recipe="modern").in_force() == modern(30)
    own = retrain(tmp_path, recipe="modern", ema_decay=0.9, nesterov=False, warmup_epochs=0)
    assert own.in_force() == replace(modern(30), ema_decay=0.9, nesterov=False, warmup_epochs=0)
    assert retrain(tmp_path, recipe="modern", epochs=LONG).in_force().cutmix == 1
    assert retrain(tmp_path, mixup=0.2).in_force() == Recipe(mixup=0.2)
    assert retrain(tmp_path, recipe="modern", momentum=0.0).in_force().nesterov is False


@pytest.mark.parametrize("epochs", [1, 2, 9, 10, 30, 600])
def test_every_recipe_fits_every_number_of_epochs(tmp_path: Path, epochs: int) -> None:
    """A sweep ranks by short retrainings under the same recipe."""
    for recipe in RECIPES:
        assert retrain(tmp_path, recipe=recipe, epochs=epochs).in_force().warmup_epochs <= min(5, epochs / 10)


def test_what_is_tracked_are_the_values_that_count(tmp_path: Path) -> None:
    """With the recipe's values instead of auto, and without what has no effect."""
    default = retrain(tmp_path).active()
    assert "auto" not in default.values() and default["recipe"] == "darts" and default["ema_decay"] == 0
    assert {"mix_probability", "randaugment_magnitude"} & default.keys() == set()
    assert retrain(tmp_path, mixup=0.2, mix_probability=0.7).active()["mix_probability"] == 0.7
    assert retrain(tmp_path, randaugment=1).active()["randaugment_magnitude"] == 5
    assert "nesterov" not in retrain(tmp_path, momentum=0.0).active()
    mixed = retrain(tmp_path, cutmix=1.0).active()
    assert mixed["mix_probability"] == 1, "one setting is enough to get what it says"
    explicit = retrain(tmp_path, recipe="modern", **asdict(Recipe())).active()
    assert "recipe" not in explicit and explicit == {key: default[key] for key in explicit}


def test_a_changed_file_differs_in_the_changed_lines_alone(tmp_path: Path) -> None:
    changes = {"search.seed": 3, "search.images": 500, "data.name": "cifar10"}
    write(changed(ROOT / "params.yaml", changes, "rt"), tmp_path / "params.yaml")
    before, after = (
        path.read_text().splitlines() for path in (ROOT / "params.yaml", tmp_path / "params.yaml")
    )
    assert len(before) == len(after)
    differing = [new.split("#")[0].strip() for old, new in zip(before, after, strict=True) if old != new]
    assert differing == ["name: cifar10", "seed: 3", "images: 500"]
    write(changed(tmp_path / "params.yaml", {"search.images": None}, "rt"), tmp_path / "again.yaml")
    assert "  images: null" in (tmp_path / "again.yaml").read_text()
