"""prepare: the splits are stratified, seeded and disjoint, and the numbers are right."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits

from tests.stages.conftest import TINY, write_params

RunStage = Callable[..., int]


def arrays(project: Path) -> dict[str, np.ndarray]:
    return {path.stem: np.load(path) for path in (project / "artifacts/data").glob("*.npy")}


def test_digits(project: Path, run_stage: RunStage) -> None:
    assert run_stage("prepare") == 0
    made = arrays(project)
    about = json.loads((project / "artifacts/data/data.json").read_text())
    assert about["counts"] == {"train": 1150, "val": 288, "test": 359}
    assert about["image_shape"] == [8, 8, 1]
    assert about["mirror"] is False
    train = made["train_images"] / 255
    np.testing.assert_allclose(about["mean"], train.mean((0, 1, 2)), rtol=1e-9)
    np.testing.assert_allclose(about["std"], train.std((0, 1, 2)), rtol=1e-9)
    images = np.concatenate([made[f"{name}_images"] for name in ("train", "val", "test")])
    pixels, _ = load_digits(return_X_y=True)
    everything = np.round(np.asarray(pixels) * 255 / 16).astype(np.uint8)
    # Every image once, in whatever split: compared as sorted lists of byte strings.
    assert sorted(image.tobytes() for image in images) == sorted(image.tobytes() for image in everything)
    for name in ("train", "val", "test"):
        shares = np.bincount(made[f"{name}_labels"]) / len(made[f"{name}_labels"])
        assert np.abs(shares - 0.1).max() < 0.01


def test_the_seed_decides(project: Path, run_stage: RunStage) -> None:
    def sha256(seed: int) -> str:
        write_params(project / "params.yaml", {**TINY, "data.seed": seed})
        assert run_stage("prepare") == 0
        return json.loads((project / "artifacts/data/data.json").read_text())["sha256"]

    first = sha256(0)
    assert sha256(1) != first
    assert sha256(0) == first


def npz(project: Path, labels: list[int], side: int = 8, **more: np.ndarray) -> None:
    images = np.random.default_rng(0).integers(0, 256, (len(labels), side, side), np.uint8)
    np.savez(project / "own.npz", **{"train_images": images, "train_labels": np.array(labels), **more})  # pyright: ignore[reportArgumentType]
    write_params(project / "params.yaml", {**TINY, "data.name": "npz", "data.root": "own.npz"})


def test_splits_that_are_there_are_kept(project: Path, run_stage: RunStage) -> None:
    test = np.full((4, 8, 8), 7, np.uint8)
    npz(project, [0, 1] * 20, test_images=test, test_labels=np.array([0, 1, 0, 1]))
    assert run_stage("prepare") == 0
    np.testing.assert_array_equal(arrays(project)["test_images"][..., 0], test)
    assert len(arrays(project)["val_labels"]) == 8


@pytest.mark.parametrize(
    ("labels", "side", "message"),
    [
        ([0, 2] * 10, 8, "train_labels go up to 2, but no image has label 1; number the classes from 0"),
        ([0] * 10 + [1], 8, "class '1' has 1 training images; each class needs 3 or more"),
        ([0, 1] * 20, 4, "images of 4x4 pixels are smaller than the network needs"),
    ],
)
def test_data_that_cannot_be_learned(
    project: Path,
    run_stage: RunStage,
    capsys: pytest.CaptureFixture[str],
    labels: list[int],
    side: int,
    message: str,
) -> None:
    npz(project, labels, side)
    assert run_stage("prepare") == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (project / "artifacts").exists()
