"""The named data sets: digits comes with scikit-learn, and the others are downloaded where they are not yet.

No pickle is loaded: CIFAR is read from its binary edition.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from stages.errors import MachineError, UserError, lasting
from stages.images.prepare.pictures import Images
from stages.images.prepare.rows import Labels

_Read = TypeVar("_Read")
Named = tuple[
    Mapping[str, tuple[Images, Labels]], Sequence[str]
]  # arrays by split, and the names of the classes


def _digits(_: Path) -> Named:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.round(np.asarray(values) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return {"train": (images, np.asarray(labels, np.int64))}, [str(n) for n in range(10)]


def _fashion_mnist(root: Path) -> Named:
    from torchvision.datasets import FashionMNIST

    splits = {}
    for split in ("train", "test"):
        dataset = _downloaded(
            root, lambda split=split: FashionMNIST(root, train=split == "train", download=True)
        )
        splits[split] = (dataset.data.numpy()[..., None], dataset.targets.numpy().astype(np.int64))
    return splits, FashionMNIST.classes


def _svhn(root: Path) -> Named:
    from torchvision.datasets import SVHN

    splits = {}
    for split in ("train", "test"):
        dataset = _downloaded(root, lambda split=split: SVHN(str(root), split=split, download=True))
        splits[split] = (dataset.data.transpose(0, 2, 3, 1).copy(), dataset.labels.astype(np.int64))
    return splits, [str(n) for n in range(10)]


@dataclass(frozen=True)
class _Cifar:
    """A binary edition of CIFAR: rows of ``label_bytes`` (the last one is the class) and 3072 bytes of pixels."""

    archive: str
    md5: str
    folder: str
    files: Mapping[str, Sequence[str]]
    names: str
    label_bytes: int

    def __call__(self, root: Path) -> Named:
        from torchvision.datasets.utils import download_and_extract_archive

        folder = root / self.folder
        names = [file for files in self.files.values() for file in files] + [self.names]
        if not all((folder / name).is_file() for name in names):
            url = f"https://www.cs.toronto.edu/~kriz/{self.archive}"
            _downloaded(root, lambda: download_and_extract_archive(url, str(root), md5=self.md5))
        splits = {}
        for split, files in self.files.items():
            data = b"".join((folder / name).read_bytes() for name in files)
            if not data or len(data) % (self.label_bytes + 3072):
                raise UserError(
                    f"{folder}: {', '.join(files)} are damaged; delete {folder} to download it again"
                )
            rows = np.frombuffer(data, np.uint8).reshape(-1, self.label_bytes + 3072)
            pixels = rows[:, self.label_bytes :].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
            splits[split] = (np.ascontiguousarray(pixels), rows[:, self.label_bytes - 1].astype(np.int64))
        classes = (folder / self.names).read_text().split()
        return splits, classes


def _downloaded(root: Path, read: Callable[[], _Read]) -> _Read:
    """What ``read`` returns, which may first download it. Raises UserError where only the user can mend what is wrong."""
    if root.exists() and not root.is_dir():
        raise UserError(f"data.root is {root}, which is a file; name the folder that holds the data set")
    try:
        root.mkdir(parents=True, exist_ok=True)
        return read()
    except (OSError, RuntimeError, tarfile.TarError, zipfile.BadZipFile) as error:
        if isinstance(error, OSError) and (users := lasting(error, root)):
            raise users from None
        reason = " ".join(str(error).split())[:200]
        raise MachineError(
            f"the data set is not in data.root ({root}) and could not be downloaded ({reason}); connect to the"
            " network, or put its files there"
        ) from None


READERS: Mapping[str, Callable[[Path], Named]] = {
    "digits": _digits,
    "cifar10": _Cifar(
        archive="cifar-10-binary.tar.gz",
        md5="c32a1d4ab5d03f1284b67883e8d87530",
        folder="cifar-10-batches-bin",
        files={"train": [f"data_batch_{n}.bin" for n in range(1, 6)], "test": ["test_batch.bin"]},
        names="batches.meta.txt",
        label_bytes=1,
    ),
    "cifar100": _Cifar(
        archive="cifar-100-binary.tar.gz",
        md5="03b5dce01913d631647c71ecec9e9cb8",
        folder="cifar-100-binary",
        files={"train": ["train.bin"], "test": ["test.bin"]},
        names="fine_label_names.txt",
        label_bytes=2,
    ),
    "svhn": _svhn,
    "fashion_mnist": _fashion_mnist,
}
