"""Arrays of people: used rightly, or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.errors import UserError
from tests.zoo.conftest import Prepare


def arrays(count: int = 24, classes: int = 3, side: int = 8, **changes: Any) -> dict[str, Any]:
    images = np.random.default_rng(0).integers(0, 256, (count, side, side), np.uint8)
    content = {"train_images": images, "train_labels": np.arange(count) % classes, **changes}
    return {name: value for name, value in content.items() if value is not None}


def write(path: Path, compressed: bool = False, **content: Any) -> Path:
    (np.savez_compressed if compressed else np.savez)(path, **content)
    return path


@pytest.mark.parametrize("compressed", [True, False])
def test_all_images_arrive(tmp_path: Path, zoo: Prepare, compressed: bool) -> None:
    content = arrays(300)
    made = zoo(write(tmp_path / "a.npz", compressed, **content), "npz")
    expected = sorted(content["train_images"][..., None], key=bytes)
    np.testing.assert_array_equal(made.all_images, np.stack(expected))
    for split in made.images:
        for image, label in zip(made.images[split], made.labels[split], strict=True):
            (row,) = np.flatnonzero((content["train_images"] == image[..., 0]).all((1, 2)))
            assert content["train_labels"][row] == label


@pytest.mark.parametrize(
    "names", [np.array([b"cat", b"dog", "häh".encode()]), np.array([["cat"], ["dog"], ["häh"]])]
)
def test_names_as_bytes_or_in_a_column(tmp_path: Path, zoo: Prepare, names: np.ndarray) -> None:
    made = zoo(write(tmp_path / "a.npz", **arrays(class_names=names)), "npz")
    assert made.card.classes == ["cat", "dog", "häh"]


@pytest.mark.parametrize("prefix", ["valid", "validation", "val"])
def test_spellings_of_the_validation_split(tmp_path: Path, zoo: Prepare, prefix: str) -> None:
    own = np.full((3, 8, 8), 7, np.uint8)
    own[:, 0, 0] = [1, 2, 3]
    more = {f"{prefix}_images": own, f"{prefix}_labels": np.arange(3)}
    made = zoo(write(tmp_path / "a.npz", **arrays(**more)), "npz")
    np.testing.assert_array_equal(made.images["val"][..., 0], own)


def test_names_of_keras(tmp_path: Path, zoo: Prepare) -> None:
    own = arrays(30)
    content = {"x_train": own["train_images"], "y_train": own["train_labels"]}
    assert sum(zoo(write(tmp_path / "a.npz", **content), "npz").card.counts.values()) == 30


def test_one_pixel_with_a_resize(tmp_path: Path, zoo: Prepare) -> None:
    for shape in ((30, 1, 1), (30, 1, 1, 1), (30, 1, 5, 3)):
        images = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
        content = arrays(30, train_images=images)
        made = zoo(write(tmp_path / "a.npz", **content), "npz", image_size=8)
        assert made.card.image_shape[:2] == (8, 8)
        if shape[1:3] == (1, 1):
            assert sorted(made.all_images[:, 3, 3, 0]) == sorted(images.reshape(-1))


def test_other_arrays_are_left_out_by_name(tmp_path: Path, zoo: Prepare) -> None:
    made = zoo(write(tmp_path / "a.npz", **arrays(ids=np.arange(24))), "npz")
    assert made.card.left_out == {"array ids": 1}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"class_names": np.array(["a", "b", "a"])}, "class_names has 'a' 2 times"),
        ({"class_names": np.array([["a", "b"], ["c", "d"]])}, r"class_names has shape \(2, 2\)"),
        ({"class_names": np.array([b"\xff", b"b", b"c"])}, "class_names are bytes that are not UTF-8"),
        ({"class_names": np.array(["a", "b"])}, "label 2 of train image 2 is outside the 2 classes"),
        ({"train_labels": np.arange(24) % 3 + 1}, "run from 1 to 3; labels start at 0, so subtract 1"),
        ({"train_labels": np.arange(24) % 3 * 2}, "go up to 4, but no image has label 1"),
        ({"train_labels": np.where(np.arange(24) == 5, 2**40, 0)}, "go up to 1099511627776, but no image has label 1"),
        ({"train_labels": np.arange(24) % 3 - 1}, "label -1 of train image 0"),
        ({"holdout_images": np.zeros((3, 8, 8), np.uint8)}, "the array holdout_images looks like part of a split"),
        ({"Train_Images": np.zeros((3, 8, 8), np.uint8)}, "are the same; keep one"),
        ({"train_images": np.zeros((24, 0, 8), np.uint8)}, "have no pixels"),
        ({"train_images": np.asfortranarray(np.zeros((24, 8, 8), np.uint8))}, "Fortran order"),
        ({"train_images": np.zeros((24, 8, 8), np.uint16)}, "train_images is uint16; convert it to uint8"),
        ({"train_images": None, "train_labels": None}, "has no array train_images"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, zoo: Prepare, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        zoo(write(tmp_path / "a.npz", **arrays(**changes)), "npz")
    assert "\n" not in str(caught.value)


def test_an_npy_that_is_named_npz(tmp_path: Path, zoo: Prepare) -> None:
    np.save(tmp_path / "a.npy", np.zeros((3, 8, 8), np.uint8))
    (tmp_path / "a.npy").rename(tmp_path / "a.npz")
    with pytest.raises(UserError, match=r"is a single array \(.npy\), whatever its name says"):
        zoo(tmp_path / "a.npz", "npz")


@pytest.mark.parametrize("place", [200, -300])
def test_a_damaged_file(tmp_path: Path, zoo: Prepare, place: int) -> None:
    path = write(tmp_path / "a.npz", True, **arrays())
    content = bytearray(path.read_bytes())
    content[place : place + 20] = bytes(20)
    path.write_bytes(content)
    with pytest.raises(UserError, match="cannot be read as .npz"):
        zoo(path, "npz")


def test_classes_that_are_too_small_to_search_with(tmp_path: Path, zoo: Prepare) -> None:
    """Two classes of three pictures leave one of each to train on."""
    with pytest.raises(UserError, match=r"class '0' has 1 images to train on .*needs 2 or more"):
        zoo(write(tmp_path / "a.npz", **arrays(6, classes=2)), "npz")
