"""WebDataset shards give the same images as the same pictures in folders, or are refused in one line."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest

from stages.errors import UserError
from tests.zoo.conftest import Prepare, classes


def shard(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            about = tarfile.TarInfo(name)
            about.size = len(content)
            file.addfile(about, io.BytesIO(content))
    return path


def samples(root: Path, folder: Path, label: bytes, first: int = 0) -> dict[str, bytes]:
    """The pictures of a folder as members, each with its label."""
    found: dict[str, bytes] = {}
    for number, path in enumerate(sorted((root / folder).iterdir()), first):
        found |= {f"{folder}{number:05}.png": path.read_bytes(), f"{folder}{number:05}.cls": label}
    return found


def test_the_same_images_as_in_folders(tmp_path: Path, zoo: Prepare) -> None:
    source = classes(tmp_path / "folders", "cat", "dog", count=10)
    cats, dogs = samples(source, Path("cat"), b"0\n"), samples(source, Path("dog"), b"1\n")
    root = tmp_path / "shards"
    shard(root / "a-000000.tar", dict(list(cats.items())[:10]))
    shard(
        root / "a-000001.tar",
        {**dict(list(cats.items())[10:]), **dogs, "cat00000.txt": b"?", "dog00000.json": b"{}"},
    )
    (root / "classes.txt").write_text("cat\ndog\n")
    made, expected = zoo(root, "webdataset"), zoo(source)
    assert made.card.classes == ["cat", "dog"]
    assert made.card.left_out == {".json in shards": 1, ".txt in shards": 1}
    for split in ("train", "val", "test"):
        np.testing.assert_array_equal(made.images[split], expected.images[split])
        np.testing.assert_array_equal(made.labels[split], expected.labels[split])


def test_splits_by_name_and_labels_as_names(tmp_path: Path, zoo: Prepare) -> None:
    source = classes(tmp_path / "folders", "cat", "dog", count=8)
    cats, dogs = samples(source, Path("cat"), b"cat"), samples(source, Path("dog"), b"dog")
    root = tmp_path / "shards"
    shard(root / "train-000000.tar", {**dict(list(cats.items())[4:]), **dict(list(dogs.items())[4:])})
    shard(root / "test-000000.tar", {**dict(list(cats.items())[:4]), **dict(list(dogs.items())[:4])})
    made = zoo(root, "webdataset")
    assert made.card.classes == ["cat", "dog"]
    assert made.labels["test"].tolist() == [0, 0, 1, 1]
    assert made.card.counts["train"] + made.card.counts["val"] == 12


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.tar": {"0.png": b"", "1.cls": b"0"}}, r"1 pictures have no label \(first: 0\); add 0.cls"),
        ({"a.tar": {"0.png": b"not a picture", "0.cls": b"0"}}, r"a.tar: 0.png \(not a picture\) cannot be read"),
        ({"a.tar": {"0.png": b"", "0.cls": b"x" * 2000}}, "the label has 2000 bytes"),
        ({"train-0.tar": {"0.png": b"", "0.cls": b"a"}, "other.tar": {}}, "some shards are named after a split"),
        ({"train-0.tar": {"0.png": b"", "0.cls": b"a"}, "val.tar": {"0.png": b"", "0.cls": b"b"}}, "class 'b' of val"),
        ({"test.tar": {"0.png": b"", "0.cls": b"a"}}, "no .tar file with training pictures"),
        ({"a.tar": {"0.png": b"", "0.cls": b""}}, "a label is empty"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, zoo: Prepare, files: dict[str, dict[str, bytes]], message: str) -> None:
    for name, members in files.items():
        shard(tmp_path / name, members)
    with pytest.raises(UserError, match=message) as caught:
        zoo(tmp_path, "webdataset")
    assert "\n" not in str(caught.value)


def test_compressed_or_damaged_shards(tmp_path: Path, zoo: Prepare) -> None:
    (tmp_path / "a.tar.gz").write_bytes(b"")
    with pytest.raises(UserError, match="is compressed"):
        zoo(tmp_path, "webdataset")
    (tmp_path / "a.tar.gz").rename(tmp_path / "a.tar")
    (tmp_path / "a.tar").write_bytes(b"no tar file" * 100)
    with pytest.raises(UserError, match="cannot be read as a tar file"):
        zoo(tmp_path, "webdataset")


def test_a_label_beyond_the_names(tmp_path: Path, zoo: Prepare) -> None:
    shard(tmp_path / "a.tar", {"0.png": b"", "0.cls": b"2"})
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(UserError, match=r"the label '2' is not a line of classes.txt, which has 2 classes"):
        zoo(tmp_path, "webdataset")
