"""Folders of people: each file is used or counted, and an unclear layout is refused in one line."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from stages.errors import UserError
from stages.images.prepare.folders import LAYOUT, listing, split_of
from tests.zoo.conftest import Prepare, classes, fill, picture


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("Train", "train"), ("TRAINING", "train"), ("train_set", "train"), ("training-data", "train"),
        ("1_train", "train"), ("train2017", "train"), ("images_train", "train"), ("Trainset", "train"),
        ("TEST", "test"), ("Testing", "test"), ("test_images", "test"), ("evaluation", "test"),
        ("Val", "val"), ("valid", "val"), ("Validation Set", "val"), ("dev", "val"), ("val2017", "val"),
        ("cat", None), ("contest", None), ("attest", None), ("trains", None), ("valve", None), ("devon", None),
        ("images", None), ("1", None),
    ],
)  # fmt: skip
def test_spellings_of_splits(name: str, split: str | None) -> None:
    assert split_of(name) == split


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "TEST"), ("training_set", "test_set"), ("TRAIN", "eval")]
)
def test_splits_in_any_spelling(tmp_path: Path, zoo: Prepare, train: str, test: str) -> None:
    root = tmp_path / "data"
    classes(root / train, "cat", "dog", count=8)
    for place, name in enumerate(("cat", "dog")):
        fill(root / test / name, 2, first=5000 + 100 * place)
    made = zoo(root)
    assert made.card.classes == ["cat", "dog"]
    assert made.card.counts["test"] == 4
    assert made.card.counts["train"] + made.card.counts["val"] == 16


class TestRefused:
    def message(self, root: Path) -> str:
        with pytest.raises(UserError) as caught:
            listing(root)
        text = str(caught.value)
        assert "\n" not in text
        return text

    def test_splits_without_train(self, tmp_path: Path) -> None:
        classes(tmp_path / "test", "a", "b")
        classes(tmp_path / "val", "a", "b")
        text = self.message(tmp_path)
        assert "none is train" in text
        assert LAYOUT in text

    def test_classes_beside_splits(self, tmp_path: Path) -> None:
        classes(tmp_path, "cat", "train", "test")
        text = self.message(tmp_path)
        assert "cat/ lie beside test/, train/" in text
        assert LAYOUT in text

    def test_a_split_twice(self, tmp_path: Path) -> None:
        classes(tmp_path / "train", "a", "b")
        classes(tmp_path / "Training", "a", "b")
        assert "both Training/ and train/ look like the split train" in self.message(tmp_path)

    def test_unknown_names_with_the_same_folders(self, tmp_path: Path) -> None:
        for name in ("fold1", "fold2", "fold3"):
            classes(tmp_path / name, "a", "b")
        text = self.message(tmp_path)
        assert "all of fold1/, fold2/, fold3/ contain the same folders (a/, b/)" in text
        assert LAYOUT in text

    def test_one_folder_too_deep(self, tmp_path: Path) -> None:
        classes(tmp_path / "download", "a", "b")
        assert "make that data.root" in self.message(tmp_path)

    def test_two_spellings_of_one_class(self, tmp_path: Path) -> None:
        classes(tmp_path, "Cat", "cat", "dog")
        assert "differ only in case or Unicode form" in self.message(tmp_path)
        shutil.rmtree(tmp_path / "Cat")
        shutil.rmtree(tmp_path / "cat")
        classes(tmp_path, "caf\u00e9", "cafe\u0301")
        assert "differ only in case or Unicode form" in self.message(tmp_path)

    def test_a_link_to_a_folder(self, tmp_path: Path) -> None:
        root = tmp_path / "data"
        classes(root, "a", "b")
        classes(tmp_path / "other", "c")
        (root / "c").symlink_to(tmp_path / "other" / "c")
        text = self.message(root)
        assert f"links to folders ({root / 'c'})" in text
        assert "DVC does not notice changes" in text
        (root / "c").unlink()
        (root / "a" / "deeper").symlink_to(tmp_path / "other" / "c")
        assert "deeper" in self.message(root)

    @pytest.mark.skipif(os.geteuid() == 0, reason="root can read every folder")
    def test_an_unreadable_folder(self, tmp_path: Path) -> None:
        classes(tmp_path, "a", "b")
        (tmp_path / "b").chmod(0)
        try:
            assert "b cannot be read" in self.message(tmp_path)
        finally:
            (tmp_path / "b").chmod(0o755)

    def test_an_unreadable_folder_is_not_called_empty(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        classes(tmp_path, "a", "b")
        real = os.scandir

        def refuse(path: Path) -> object:
            if Path(path).name == "b":
                raise PermissionError(13, "Permission denied")
            return real(path)

        monkeypatch.setattr(os, "scandir", refuse)
        assert "b cannot be read (Permission denied)" in self.message(tmp_path)


def test_a_class_in_two_forms_is_one_class(tmp_path: Path, zoo: Prepare) -> None:
    classes(tmp_path / "train", "cafe\u0301", "dog", count=8)
    fill(tmp_path / "test" / "caf\u00e9", 2, first=7000)
    fill(tmp_path / "test" / "DOG", 3, first=8000)
    made = zoo(tmp_path)
    assert made.card.classes == ["caf\u00e9", "dog"]
    assert sorted(made.labels["test"]) == [0, 0, 1, 1, 1]


def test_every_file_has_a_reason(tmp_path: Path, zoo: Prepare) -> None:
    classes(tmp_path, "a", "b")
    for name in ("x.heic", "y.HEIC", "z.svg", "notes.txt", "README"):
        (tmp_path / "a" / name).write_text("not a picture")
    for folder in (".thumbs", "__MACOSX", "@eaDir/deeper"):
        fill(tmp_path / "a" / folder, 2, first=500)
    (tmp_path / "b" / "._1001.png").write_bytes(b"resource fork")
    (tmp_path / "b" / "Thumbs.db").write_bytes(b"")
    (tmp_path / "b" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    picture(77).save(tmp_path / "cover.png")
    os.mkfifo(tmp_path / "b" / "pipe.png")
    made = zoo(tmp_path)
    assert sum(made.card.counts.values()) == 12
    assert made.card.left_out == {
        "in hidden or tool-made folders": 6,
        ".heic": 2,
        "hidden or made by tools": 2,
        ".svg": 1,
        ".txt": 1,
        "without a suffix": 1,
        "broken links": 1,
        "outside the class folders": 1,
        "pipes, sockets or devices": 1,
    }
    assert made.notices.startswith("12 of 28 files used; left out: 6 in hidden or tool-made folders, 2 .heic")


def test_suffixes_in_use_are_read(tmp_path: Path, zoo: Prepare) -> None:
    suffixes = [
        "avif", "jfif", "jpe", "jpeg", "jpg", "tga", "jp2", "pbm", "pnm", "pgm", "ppm", "bmp", "gif", "webp",
        "tif", "tiff", "PNG", "qoi", "pcx", "ico",
    ]  # fmt: skip
    for place, name in enumerate(("a", "b")):
        for number, suffix in enumerate(suffixes):
            folder = tmp_path / name
            folder.mkdir(exist_ok=True)
            picture(100 * place + number, (16, 16)).save(folder / f"{number}.{suffix}")
    made = zoo(tmp_path)
    assert sum(made.card.counts.values()) == 2 * len(suffixes)
    assert made.card.left_out == {}


def test_deeper_folders_of_a_class_and_links_to_files_are_used(tmp_path: Path, zoo: Prepare) -> None:
    classes(tmp_path / "data", "a", "b")
    fill(tmp_path / "data" / "a" / "deeper", 2, first=600)
    picture(999).save(tmp_path / "elsewhere.png")
    (tmp_path / "data" / "b" / "link.png").symlink_to(tmp_path / "elsewhere.png")
    assert sum(zoo(tmp_path / "data").card.counts.values()) == 15


def test_a_class_of_files_that_cannot_be_used(tmp_path: Path, zoo: Prepare) -> None:
    classes(tmp_path, "a", "b")
    (tmp_path / "phone").mkdir()
    for number in range(4):
        (tmp_path / "phone" / f"{number}.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"class 'phone' has no images \(left out of all folders: 4 .heic\)"):
        zoo(tmp_path)


def test_all_unreadable_pictures_are_listed(tmp_path: Path, zoo: Prepare) -> None:
    classes(tmp_path, "a", "b")
    whole = (tmp_path / "a" / "0.png").read_bytes()
    (tmp_path / "a" / "short.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "b" / "empty.png").write_bytes(b"")
    (tmp_path / "b" / "text.jpg").write_text("not a picture")
    with pytest.raises(UserError) as caught:
        zoo(tmp_path)
    assert str(caught.value).startswith("3 pictures cannot be read: ")
    assert "empty.png" in str(caught.value)
    assert "text.jpg" in str(caught.value)
    (tmp_path / "b" / "empty.png").unlink()
    (tmp_path / "b" / "text.jpg").unlink()
    with pytest.raises(UserError, match=r"short.png \(.*truncated.*\) cannot be read; repair or remove it"):
        zoo(tmp_path)


class TestImageNet:
    def root(self, tmp_path: Path) -> Path:
        classes(tmp_path / "train", "n01440764", "n01443537", "golden retriever", count=6)
        fill(tmp_path / "val", 4, first=9000)
        return tmp_path

    @pytest.mark.parametrize(
        ("name", "content"),
        [
            ("val.txt", "9000.png 0\n9001.png 1\n9002.png 2\n9003.png 1\n"),
            ("val/labels.csv", "filename,label\n9000.png,golden retriever\n9001.png,n01440764\n9002,n01443537\n9003,1\n"),
            (
                "LOC_val_solution.csv",
                "ImageId,PredictionString\n9000,golden retriever\n9001,n01440764 1 2 3 4\n9002,n01443537 5 6 7 8 \n"
                "9003,n01440764 1 1 2 2 n01440764 3 3 4 4\n",
            ),
        ],
    )  # fmt: skip
    def test_flat_val_with_a_list(self, tmp_path: Path, zoo: Prepare, name: str, content: str) -> None:
        root = self.root(tmp_path)
        (root / name).write_text(content)
        made = zoo(root)
        assert made.card.classes == ["golden retriever", "n01440764", "n01443537"]
        expected = {
            "val.txt": [0, 1, 2, 1],
            "val/labels.csv": [0, 1, 2, 1],
            "LOC_val_solution.csv": [0, 1, 2, 1],
        }
        assert made.labels["val"].tolist() == expected[name]
        assert made.card.left_out == {}

    def test_without_a_list(self, tmp_path: Path, zoo: Prepare) -> None:
        with pytest.raises(UserError, match=r"val has 4 pictures and no class folders; .*add val.txt"):
            zoo(self.root(tmp_path))

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("9000.png 0\n", "does not name 9001.png"),
            ("9000.png 0\n9000.png 1\n", "row 2: 9000.png has a second class"),
            ("9000.png zebra\n", "'zebra' is neither a class folder of train nor a number from 0 to 2"),
            ("9000.png 3\n", "'3' is neither"),
            ("9000.png\n", "expected a picture and its class"),
        ],
    )
    def test_a_wrong_list(self, tmp_path: Path, zoo: Prepare, content: str, message: str) -> None:
        root = self.root(tmp_path)
        (root / "val.txt").write_text(content)
        with pytest.raises(UserError, match=message):
            zoo(root)

    def test_in_folders(self, tmp_path: Path, zoo: Prepare) -> None:
        classes(tmp_path / "train", "n01440764", "n01443537", count=6)
        classes(tmp_path / "val", "n01440764", "n01443537", count=2)
        assert zoo(tmp_path).card.counts["val"] == 4


names = st.sampled_from(["a.png", "b.PNG", ".c.png", "d.heic", "e", "f.txt", "g.jpg", "Thumbs.db", "h.tif"])
folders = st.sampled_from(["x", "y z", ".hidden", "__MACOSX", "deep/er", "x/.git"])
trees = st.lists(st.tuples(st.sampled_from(["one", "two", ""]), folders | st.just(""), names), max_size=25)


@given(trees)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_every_file_is_used_or_counted(
    tmp_path_factory: pytest.TempPathFactory, tree: list[tuple[str, str, str]]
) -> None:
    root = tmp_path_factory.mktemp("tree")
    for name in ("one", "two"):
        (root / name).mkdir()
    (root / "one" / "empty").mkdir()  # classes with the same folders would look like splits
    files = set()
    for top, middle, name in tree:
        # A folder beside the classes would be a class of its own; only hidden ones are drawn there.
        if not top and middle and not middle.startswith((".", "__")):
            continue
        path = root / top / middle / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
        files.add(path)
    found = listing(root)
    used = [path for path, _ in found.files["train"]]
    assert len(used) == len(set(used))
    assert set(used) <= files
    assert len(used) + sum(found.left_out.values()) == len(files)
    for path, label in found.files["train"]:
        assert isinstance(path, Path)
        assert found.classes[label] == path.relative_to(root).parts[0]
        assert not any(part.startswith((".", "__")) for part in path.relative_to(root).parts)


def test_pictures_that_are_too_large(tmp_path: Path, zoo: Prepare) -> None:
    classes(tmp_path, "a", "b")
    Image.new("1", (12000, 9000)).save(tmp_path / "a" / "scan.tif", compression="group4")
    with pytest.raises(
        UserError, match=r"scan.tif has 12000x9000 pixels, more than data.max_megapixels \(100"
    ):
        zoo(tmp_path, image_size=8)
    assert sum(zoo(tmp_path, image_size=8, max_megapixels=110).card.counts.values()) == 13


def test_photos_without_image_size(tmp_path: Path, zoo: Prepare) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(4):
            Image.new("L", (4000, 3000), 20 * number).save(tmp_path / name / f"{number}.png")
    with pytest.raises(UserError, match=r"the pictures have 4000x3000 pixels.*set data.image_size"):
        zoo(tmp_path)
