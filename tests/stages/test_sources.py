"""Data sets are read correctly, and messages name what is wrong with them."""

from __future__ import annotations

import gzip
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.errors import MachineError, UserError
from stages.images.params import DataParams
from stages.images.prepare import sources
from stages.images.prepare.rows import Rows, block_size


@dataclass(frozen=True)
class Loaded:
    """A source with all of its pictures in memory."""

    splits: dict[str, tuple[np.ndarray, np.ndarray]]
    classes: list[str]


def data_params(name: str, root: Path, image_size: int | None, **changes: Any) -> DataParams:
    settings = {
        "name": name, "root": str(root), "image_size": image_size, "max_megapixels": 100, "duplicates": "warn",
        "mirror": "auto", "valid_fraction": 0.2, "test_fraction": 0.2, "seed": 0,
    }  # fmt: skip
    return DataParams.model_validate({**settings, **changes})


def images_of(rows: Rows) -> np.ndarray:
    size = block_size(rows.shape)
    blocks = list(rows.blocks(range(0, len(rows.labels), size), size))
    assert not [line for block in blocks for line in block.unreadable]
    return np.concatenate([block.images for block in blocks])


def read_source(name: str, root: Path, image_size: int | None) -> Loaded:
    source = sources.read_source(data_params(name, root, image_size))
    return Loaded(
        {split: (images_of(rows), rows.labels) for split, rows in source.splits.items()}, list(source.classes)
    )


def save_images(
    folder: Path, count: int, size: tuple[int, int] = (6, 6), mode: str = "RGB", shade: int = 0
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        colour = shade + number if mode == "L" else (shade + number, 2, 3)
        Image.new(mode, size, colour).save(folder / f"{number}.png")


def test_digits_are_the_1797_of_scikit_learn_in_full_range() -> None:
    source = read_source("digits", Path("unused"), None)
    images, labels = source.splits["train"]
    assert images.shape == (1797, 8, 8, 1)
    assert images.dtype == np.uint8
    assert images.max() == 255
    assert sorted(set(labels)) == list(range(10))


def test_image_size_resizes() -> None:
    assert read_source("digits", Path("unused"), 12).splits["train"][0].shape == (1797, 12, 12, 1)


class TestNpz:
    def write(self, path: Path, **changes: Any) -> Path:
        arrays = {
            "train_images": np.arange(12 * 36, dtype=np.uint32).astype(np.uint8).reshape(12, 6, 6),
            "train_labels": np.arange(12).reshape(12, 1) % 3,
            "test_images": np.zeros((3, 6, 6), np.uint8),
            "test_labels": np.arange(3).reshape(3, 1),
        }
        arrays = {name: value for name, value in {**arrays, **changes}.items() if value is not None}
        np.savez(path, **arrays)
        return path

    def test_medmnist_layout(self, tmp_path: Path) -> None:
        source = read_source("npz", self.write(tmp_path / "a.npz"), None)
        assert set(source.splits) == {"train", "test"}
        assert source.classes == ["0", "1", "2"]
        images, labels = source.splits["train"]
        assert images.shape == (12, 6, 6, 1)
        assert labels.tolist() == [0, 1, 2] * 4
        assert images[1, 0, 0, 0] == 36

    def test_class_names_and_colour(self, tmp_path: Path) -> None:
        images = np.zeros((12, 6, 6, 3), np.uint8)
        path = self.write(
            tmp_path / "a.npz",
            train_images=images,
            test_images=images[:3],
            class_names=np.array(["a", "b", "c"]),
        )
        assert read_source("npz", path, None).classes == ["a", "b", "c"]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"train_labels": np.full(12, -1)}, "label -1 of train image 0 is outside the"),
            ({"test_labels": np.array([0, 1, 7])}, "label 7 of test image 2 is outside the 3 classes 0..2"),
            ({"train_labels": None}, "has no array train_labels"),
            ({"train_images": None}, "has no array train_images"),
            ({"train_images": np.zeros((12, 6, 6))}, "train_images is float64; convert it to uint8"),
            ({"train_images": np.zeros((12, 6, 6, 6), np.uint8)}, "has shape (12, 6, 6, 6); expected"),
            ({"train_labels": np.zeros((12, 14), int)}, "expected one integer per image"),
            ({"train_labels": np.zeros(5, int)}, "12 images and 5 labels"),
            ({"test_images": np.zeros((3, 7, 7), np.uint8)}, "images differ in shape"),
            ({"train_labels": np.array([{}] * 12, dtype=object)}, "without objects"),
        ],
    )
    def test_what_is_wrong_is_said(self, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError) as caught:
            read_source("npz", self.write(tmp_path / "a.npz", **changes), None)
        assert message in str(caught.value)

    def test_missing_or_broken_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="is not a file"):
            read_source("npz", tmp_path / "no.npz", None)
        (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 and then nothing")
        with pytest.raises(UserError, match="cannot be read as .npz"):
            read_source("npz", tmp_path / "bad.npz", None)


class TestImageFolder:
    def test_class_folders(self, tmp_path: Path) -> None:
        save_images(tmp_path / "cat", 3)
        save_images(tmp_path / "dog", 2, shade=100)
        (tmp_path / "cat" / "notes.txt").write_text("not an image, and not named like one")
        source = read_source("imagefolder", tmp_path, None)
        images, labels = source.splits["train"]
        assert source.classes == ["cat", "dog"]
        assert images.shape == (5, 6, 6, 3)
        assert labels.tolist() == [0, 0, 0, 1, 1]
        assert images[:, 0, 0, 0].tolist() == [0, 1, 2, 100, 101]

    def test_train_and_test_folders(self, tmp_path: Path) -> None:
        for split, count in (("train", 4), ("test", 2)):
            save_images(tmp_path / split / "a", count)
            save_images(tmp_path / split / "b", count)
        source = read_source("imagefolder", tmp_path, None)
        assert {name: len(labels) for name, (_, labels) in source.splits.items()} == {"train": 8, "test": 4}

    def test_grey_stays_grey_and_one_colour_image_makes_all_colour(self, tmp_path: Path) -> None:
        save_images(tmp_path / "a", 2, mode="L")
        save_images(tmp_path / "b", 2, mode="L")
        assert read_source("imagefolder", tmp_path, None).splits["train"][0].shape[-1] == 1
        Image.new("RGB", (6, 6), (9, 8, 7)).save(tmp_path / "b" / "colour.png")
        assert read_source("imagefolder", tmp_path, None).splits["train"][0].shape[-1] == 3

    def test_transparent_becomes_white_and_16_bit_keeps_its_upper_bits(self, tmp_path: Path) -> None:
        save_images(tmp_path / "a", 1, mode="L")
        (tmp_path / "b").mkdir()
        Image.fromarray(np.full((6, 6), 257 * 200, np.uint16)).save(tmp_path / "b" / "deep.png")
        assert read_source("imagefolder", tmp_path, None).splits["train"][0][1].max() == 200
        Image.new("RGBA", (6, 6), (0, 0, 0, 0)).save(tmp_path / "b" / "clear.png")
        assert read_source("imagefolder", tmp_path, None).splits["train"][0][1].min() == 255

    def test_mixed_sizes_need_image_size(self, tmp_path: Path) -> None:
        save_images(tmp_path / "a", 2)
        save_images(tmp_path / "b", 2, size=(9, 7))
        with pytest.raises(UserError, match=r"differ in size \(6x6, 9x7, ...\); set data.image_size"):
            read_source("imagefolder", tmp_path, None)
        assert read_source("imagefolder", tmp_path, 8).splits["train"][0].shape == (4, 8, 8, 3)

    def test_an_unreadable_image_is_named(self, tmp_path: Path) -> None:
        save_images(tmp_path / "a", 2)
        save_images(tmp_path / "b", 2)
        broken = tmp_path / "b" / "broken.png"
        broken.write_bytes((tmp_path / "b" / "0.png").read_bytes()[:40])
        with pytest.raises(UserError, match=r"b/broken.png \(.*\) cannot be read"):
            read_source("imagefolder", tmp_path, None)

    def test_what_is_wrong_is_said(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="is not a folder"):
            read_source("imagefolder", tmp_path / "none", None)
        with pytest.raises(UserError, match="has 0 class folders"):
            read_source("imagefolder", tmp_path, None)
        for split in ("train", "test"):
            save_images(tmp_path / split / "a", 1)
            save_images(tmp_path / split / "b", 1)
        save_images(tmp_path / "test" / "c", 1)
        with pytest.raises(UserError, match="'c' is not among the training classes"):
            read_source("imagefolder", tmp_path, None)


class TestCifar:
    def write(self, root: Path) -> Path:
        folder = root / "cifar-10-batches-bin"
        folder.mkdir(parents=True)
        for number, name in enumerate([f"data_batch_{n}.bin" for n in range(1, 6)] + ["test_batch.bin"]):
            pixels = np.arange(3072).astype(np.uint8)
            (folder / name).write_bytes(bytes([number]) + pixels.tobytes())
        (folder / "batches.meta.txt").write_text("\n".join("abcdefghij") + "\n\n")
        return folder

    def test_the_binary_edition_is_read_where_it_is(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        source = read_source("cifar10", tmp_path, None)
        images, labels = source.splits["train"]
        assert labels.tolist() == [0, 1, 2, 3, 4]
        assert source.splits["test"][1].tolist() == [5]
        assert source.classes == list("abcdefghij")
        assert images.shape == (5, 32, 32, 3)
        # Pixel (row 1, column 2) of the green plane is byte 1024 + 34.
        assert images[0, 1, 2, 1] == (1024 + 34) % 256

    def test_cifar100_takes_the_fine_label(self, tmp_path: Path) -> None:
        folder = tmp_path / "cifar-100-binary"
        folder.mkdir()
        for name in ("train.bin", "test.bin"):
            (folder / name).write_bytes(bytes([7, 42]) + bytes(3072))
        (folder / "fine_label_names.txt").write_text("\n".join(f"class{n}" for n in range(100)))
        assert read_source("cifar100", tmp_path, None).splits["train"][1].tolist() == [42]

    def test_damaged_files_are_named(self, tmp_path: Path) -> None:
        (self.write(tmp_path) / "test_batch.bin").write_bytes(b"\x00" * 100)
        with pytest.raises(UserError, match=r"test_batch.bin are damaged"):
            read_source("cifar10", tmp_path, None)

    def test_a_failed_download_says_what_to_do(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: object, **__: object) -> None:
            raise OSError("no route to host")

        monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", refuse)
        with pytest.raises(
            MachineError, match="could not be downloaded .no route to host.; connect to the network"
        ):
            read_source("cifar10", tmp_path, None)


def test_fashion_mnist_is_read_where_it_is(tmp_path: Path) -> None:
    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix, count in (("train", 3), ("t10k", 2)):
        images = struct.pack(">IIII", 0x803, count, 28, 28) + bytes(range(count)) * 784
        labels = struct.pack(">II", 0x801, count) + bytes(range(count))
        for kind, content in (("images-idx3", images), ("labels-idx1", labels)):
            (raw / f"{prefix}-{kind}-ubyte").write_bytes(content)
            (raw / f"{prefix}-{kind}-ubyte.gz").write_bytes(gzip.compress(content))
    source = read_source("fashion_mnist", tmp_path, None)
    assert source.splits["train"][0].shape == (3, 28, 28, 1)
    assert source.splits["test"][1].tolist() == [0, 1]
    assert source.classes[0] == "T-shirt/top"


def test_svhn_is_turned_to_height_width_channels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class FakeSvhn:
        def __init__(self, root: str, split: str, download: bool):
            self.data = np.zeros((2, 3, 32, 32), np.uint8)
            self.data[0, 1, 2, 3] = 9
            self.labels = np.array([1, 0], np.int32)

    monkeypatch.setattr("torchvision.datasets.SVHN", FakeSvhn)
    images, labels = read_source("svhn", tmp_path, None).splits["train"]
    assert images[0, 2, 3, 1] == 9
    assert labels.tolist() == [1, 0]
