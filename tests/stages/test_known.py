"""known.json: its numbers are those of the data and of the network, it is small, and the version gets it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.artifacts import download_artifacts
from PIL import Image

from stages.images.data import ImageCard
from stages.images.export import known
from stages.images.testing import cases

RunStage = Callable[..., int]
EXPORT = Path("artifacts/export")


def array(name: str) -> np.ndarray:
    return np.load(f"artifacts/data/{name}.npy")


def test_it_shows_test_images_and_ranges_of_the_training_images(finished_copy: Path) -> None:
    content = json.loads((EXPORT / "known.json").read_text())
    assert content["model_sha256"] == hashlib.sha256((EXPORT / "model.onnx").read_bytes()).hexdigest()
    images, labels = array("test_images"), array("test_labels")
    names = [picture["class_name"] for picture in content["pictures"]]
    assert names == [*"0123456789", "0", "1"]
    for picture in content["pictures"]:
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(picture["content"]))))[..., None]
        (index, *_) = np.flatnonzero((images == pixels).all(axis=(1, 2, 3)))
        assert (str(labels[index]), picture["media_type"]) == (picture["class_name"], "image/png")
    train = array("train_images").reshape(len(array("train_images")), -1)
    for name, values in (("brightness", train.mean(1)), ("contrast", train.std(1))):
        low, high = content[name]
        assert 0.99 < ((low <= values) & (values <= high)).mean() <= 1
        assert high - low < 1.1 * (values.max() - values.min())


def test_the_version_has_it_and_gets_it_later_if_it_was_registered_without(
    named: str, run_stage: RunStage, store: str, tmp_path: Path
) -> None:
    def kept() -> Path:
        uri = f"models:/{named}/1"
        return Path(download_artifacts(uri, dst_path=str(tmp_path / "version"), tracking_uri=store))

    file = EXPORT / "known.json"
    content = file.read_bytes()
    file.unlink()  # as an export from before there was one
    assert run_stage("register") == 0
    assert not (kept() / "known.json").exists()
    file.write_bytes(content)
    assert run_stage("register") == 0
    assert (kept() / "known.json").read_bytes() == content
    assert len(MlflowClient(store).search_model_versions(f"name = '{named}'")) == 1


@pytest.mark.parametrize(
    ("right_from", "expected"), [(0.0, 0.5), (0.7, 0.7), (2.0, None)], ids=["all right", "some", "none"]
)
def test_sure_is_from_where_answers_are_right(right_from: float, expected: float | None) -> None:
    confidence = np.linspace(0.5, 1, 501)
    assert known.sure_from(confidence, confidence >= right_from) == expected


def test_one_lucky_guess_among_wrong_answers_makes_nothing_sure() -> None:
    confidence = np.linspace(0.5, 1, 501)
    right = confidence > 0.8
    right[10] = True
    assert known.sure_from(confidence, right) == pytest.approx(0.8, abs=0.003)


def test_large_pictures_stay_small_files(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 160, 160, 3), dtype=np.uint8)
    labels = np.arange(40)
    card = ImageCard(
        name="npz", classes=list(map(str, labels)), image_shape=(160, 160, 3), counts={}, mean=[0.5] * 3,
        std=[0.2] * 3, mirror=True, sha256="",
    )  # fmt: skip
    found = known.pictures(card, cases.TestSet(noise, labels, ""))
    assert found and {picture.media_type for picture in found} == {"image/webp"}
    assert sum(len(picture.content) for picture in found) < 170_000
    assert [picture.class_name for picture in found][:5] == ["0", "3", "7", "10", "14"], "spread over all"
