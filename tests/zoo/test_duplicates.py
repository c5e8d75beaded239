"""Pictures that occur more than once are counted by their pixels, and dropped or refused when the user says so."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stages.errors import UserError
from stages.images.prepare.duplicates import Pictures, find, kept
from tests.zoo.conftest import Prepare, classes, fill


def leaking(root: Path) -> Path:
    """Three test pictures are training pictures, one of them in another format; one is copied within train."""
    classes(root / "train", "a", "b", count=8)
    for name in ("a", "b"):
        fill(root / "test" / name, 4, first=7000 + 100 * ord(name))
    for number in (0, 1):
        shutil.copy(root / "train" / "a" / f"{number}.png", root / "test" / "a" / f"copy{number}.png")
    with Image.open(root / "train" / "b" / "1000.png") as same:
        same.save(root / "test" / "b" / "same.bmp")
    shutil.copy(root / "train" / "b" / "1001.png", root / "train" / "b" / "again.png")
    return root


def test_leaks_are_counted_and_told(tmp_path: Path, zoo: Prepare) -> None:
    made = zoo(leaking(tmp_path))
    found = made.card.duplicates
    assert (found.test_in_train + found.test_in_val, found.copies, found.two_labels) == (3, 4, 0)
    assert "copies of another" in made.notices
    assert sum(made.card.counts.values()) == 28


def test_drop_keeps_the_test_split_whole(tmp_path: Path, zoo: Prepare) -> None:
    whole = zoo(leaking(tmp_path))
    made = zoo(tmp_path, duplicates="drop")
    np.testing.assert_array_equal(made.images["test"], whole.images["test"])
    assert made.card.counts["train"] + made.card.counts["val"] == 16 - 3
    found = made.card.duplicates
    assert (found.copies, found.test_in_train, found.dropped) == (0, 0, 4)
    assert len(np.unique(made.all_images.reshape(-1, 192), axis=0)) == len(made.all_images)


def test_refuse_names_two_files(tmp_path: Path, zoo: Prepare) -> None:
    with pytest.raises(UserError, match=r"copies of another .*for example .*png and .*; remove the copies"):
        zoo(leaking(tmp_path), duplicates="refuse")
    assert zoo(classes(tmp_path / "clean", "a", "b"), duplicates="refuse").card.duplicates.copies == 0


def test_one_picture_under_two_labels(tmp_path: Path, zoo: Prepare) -> None:
    classes(tmp_path, "a", "b", count=8)
    shutil.copy(tmp_path / "a" / "0.png", tmp_path / "b" / "other.png")
    made = zoo(tmp_path)
    assert made.card.duplicates.two_labels == 1
    assert "1 picture has two labels" in made.notices
    # Nobody knows which label is right, so both go.
    dropped = zoo(tmp_path, duplicates="drop")
    assert dropped.card.duplicates.dropped == 2
    assert sum(dropped.card.counts.values()) == 15


def test_a_class_that_is_a_copy(tmp_path: Path, zoo: Prepare) -> None:
    classes(tmp_path, "cat", "dog", count=8)
    shutil.copytree(tmp_path / "cat", tmp_path / "cat (copy)")
    made = zoo(tmp_path)
    assert made.card.duplicates.copied_classes == [("cat", "cat (copy)")]
    assert "the classes 'cat' and 'cat (copy)' are the same" in made.notices


def test_unique_pictures_need_no_words(tmp_path: Path, zoo: Prepare) -> None:
    assert zoo(classes(tmp_path, "a", "b")).notices == ""


def test_pictures_of_other_sizes_are_no_copies(tmp_path: Path, zoo: Prepare) -> None:
    """Resized to one size they may look the same; what counts is the picture as decoded."""
    for place, name in enumerate(("a", "b")):
        (tmp_path / name).mkdir()
        for number in range(6):
            Image.new("L", (8 + number, 8 + place), 100).save(tmp_path / name / f"{number}.png")
    assert zoo(tmp_path, image_size=8).card.duplicates.copies == 0


def test_kept_and_found_agree_on_random_pictures() -> None:
    draw = np.random.default_rng(0)
    splits = {
        name: Pictures(
            draw.integers(3, size=count), np.repeat(draw.integers(40, size=(count, 1), dtype=np.uint8), 16, 1)
        )
        for name, count in (("train", 60), ("test", 20), ("val", 10))
    }
    keep = kept(splits)
    rest = {name: Pictures(own.labels[keep[name]], own.digests[keep[name]]) for name, own in splits.items()}
    found = find(rest, ["a", "b", "c"])
    assert (found.copies, found.test_in_train, found.val_in_train, found.two_labels) == (0, 0, 0, 0)
    # Every kind of picture that has one label is still there once.
    labels = np.concatenate([own.labels for own in splits.values()])
    kinds = np.concatenate([own.digests[:, 0] for own in splits.values()])
    single = [kind for kind in np.unique(kinds) if len(set(labels[kinds == kind])) == 1]
    assert sorted(np.concatenate([own.digests[:, 0] for own in rest.values()]).tolist()) == single
