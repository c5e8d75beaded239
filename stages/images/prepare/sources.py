"""Reads the data sets that params.yaml can name, each as arrays of uint8 images and integer labels.

No pickle is loaded: CIFAR is read from its binary edition, and .npz files with allow_pickle=False.
"""

from __future__ import annotations

import tarfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from stages.errors import MachineError, UserError

Images = NDArray[np.uint8]  # (N, height, width, channels)
Labels = NDArray[np.int64]  # (N,)
_Read = TypeVar("_Read")
SPLITS = ("train", "val", "test")

_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm"}
_SPLIT_FOLDERS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_GREY_MODES = {"1", "L", "LA", "I", "I;16", "F"}


@dataclass(frozen=True)
class Source:
    """The splits of a data set, at least ``train``, and the class names in the order of the labels."""

    splits: Mapping[str, tuple[Images, Labels]]
    classes: Sequence[str]


def read_source(name: str, root: Path, image_size: int | None) -> Source:
    """The data set of this name. Raises UserError when data are missing, unreadable or inconsistent."""
    return _READERS[name](root, image_size)


def resize(images: Images, side: int) -> Images:
    """Resizes images of one size to ``side`` x ``side`` pixels, bilinear with antialiasing."""
    if images.shape[1:3] == (side, side):
        return images
    return np.stack([_as_array(Image.fromarray(image.squeeze()), side, image.shape[-1]) for image in images])


def _as_array(image: Image.Image, side: int | None, channels: int) -> Images:
    if side is not None:
        image = image.resize((side, side), Image.Resampling.BILINEAR)
    return np.asarray(image, dtype=np.uint8).reshape(image.height, image.width, channels)


def _digits(_: Path, image_size: int | None) -> Source:
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    images = np.round(np.asarray(values) * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8, 1)
    return _sized({"train": (images, np.asarray(labels, np.int64))}, [str(n) for n in range(10)], image_size)


def _fashion_mnist(root: Path, image_size: int | None) -> Source:
    from torchvision.datasets import FashionMNIST

    splits = {}
    for split in ("train", "test"):
        dataset = _downloaded(
            root, lambda split=split: FashionMNIST(root, train=split == "train", download=True)
        )
        splits[split] = (dataset.data.numpy()[..., None], dataset.targets.numpy().astype(np.int64))
    return _sized(splits, FashionMNIST.classes, image_size)


def _svhn(root: Path, image_size: int | None) -> Source:
    from torchvision.datasets import SVHN

    splits = {}
    for split in ("train", "test"):
        dataset = _downloaded(root, lambda split=split: SVHN(str(root), split=split, download=True))
        splits[split] = (dataset.data.transpose(0, 2, 3, 1).copy(), dataset.labels.astype(np.int64))
    return _sized(splits, [str(n) for n in range(10)], image_size)


@dataclass(frozen=True)
class _Cifar:
    """A binary edition of CIFAR: rows of ``label_bytes`` (the last one is the class) and 3072 bytes of pixels."""

    archive: str
    md5: str
    folder: str
    files: Mapping[str, Sequence[str]]
    names: str
    label_bytes: int

    def __call__(self, root: Path, image_size: int | None) -> Source:
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
        return _sized(_checked_labels(splits, len(classes), str(folder)), classes, image_size)


def _downloaded(root: Path, read: Callable[[], _Read]) -> _Read:
    try:
        root.mkdir(parents=True, exist_ok=True)
        return read()
    except (OSError, RuntimeError, tarfile.TarError, zipfile.BadZipFile) as error:
        reason = " ".join(str(error).split())[:200]
        raise MachineError(
            f"the data set is not in data.root ({root}) and could not be downloaded ({reason}); connect to the"
            " network, or put its files there"
        ) from None


def _npz(path: Path, image_size: int | None) -> Source:
    if not path.is_file():
        raise UserError(
            f"data.root is {path}, which is not a file; with data.name: npz it must name the .npz file"
        )
    try:
        # Opened here, because numpy does not close a broken file.
        with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise UserError(
            f"{path} cannot be read as .npz ({error}); write it with numpy.savez, without objects"
        ) from None
    splits = {}
    for split in SPLITS:
        images, labels = arrays.get(f"{split}_images"), arrays.get(f"{split}_labels")
        if images is None and labels is None and split != "train":
            continue
        if images is None or labels is None:
            missing = f"{split}_images" if images is None else f"{split}_labels"
            raise UserError(f"{path} has no array {missing}; it has {', '.join(arrays) or 'none'}")
        splits[split] = (_npz_images(path, split, images), _npz_labels(path, split, labels, len(images)))
    shapes = {images.shape[1:] for images, _ in splits.values()}
    if len(shapes) > 1:
        raise UserError(
            f"{path}: the splits' images differ in shape ({sorted(shapes)}); give all images the same shape"
        )
    names = arrays.get("class_names")
    highest = int(splits["train"][1].max(initial=0))
    classes = [str(name) for name in names] if names is not None else [str(n) for n in range(highest + 1)]
    return _sized(_checked_labels(splits, len(classes), str(path)), classes, image_size)


def _npz_images(path: Path, split: str, images: NDArray) -> Images:
    if images.dtype != np.uint8:
        raise UserError(f"{path}: {split}_images is {images.dtype}; convert it to uint8, 0 to 255")
    if images.ndim == 3:
        images = images[..., None]
    if images.ndim != 4 or images.shape[-1] not in (1, 3):
        raise UserError(
            f"{path}: {split}_images has shape {images.shape}; expected (N, height, width)"
            " or (N, height, width, 1 or 3)"
        )
    return images


def _npz_labels(path: Path, split: str, labels: NDArray, images: int) -> Labels:
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or not np.issubdtype(labels.dtype, np.integer):
        raise UserError(
            f"{path}: {split}_labels has shape {labels.shape} and type {labels.dtype}; expected one integer per image"
        )
    if len(labels) != images:
        raise UserError(
            f"{path}: {split} has {images} images and {len(labels)} labels; give one label per image"
        )
    return labels.astype(np.int64)


def _imagefolder(root: Path, image_size: int | None) -> Source:
    if not root.is_dir():
        raise UserError(
            f"data.root is {root}, which is not a folder; with data.name: imagefolder it must hold one folder per class"
        )
    folders = {
        split: next((root / name for name in names if (root / name).is_dir()), None)
        for split, names in _SPLIT_FOLDERS.items()
    }
    if folders["train"] is None:
        folders = {"train": root, "val": None, "test": None}
    classes = _class_folders(folders["train"] or root)
    if len(classes) < 2:
        raise UserError(
            f"{folders['train']} has {len(classes)} class folders; a classifier needs two or more"
        )
    files: dict[str, list[tuple[Path, int]]] = {}
    for split, folder in folders.items():
        if folder is None:
            continue
        if unknown := sorted(set(_class_folders(folder)) - set(classes)):
            raise UserError(
                f"{folder / unknown[0]}: class {unknown[0]!r} is not among the training classes; remove its folder"
            )
        files[split] = [
            (file, label) for label, name in enumerate(classes) for file in _images_in(folder / name)
        ]
    grey, sizes = _survey([file for listed in files.values() for file, _ in listed])
    if image_size is None and len(sizes) > 1:
        shown = ", ".join(f"{width}x{height}" for width, height in sorted(sizes)[:3])
        raise UserError(
            f"{root}: images differ in size ({shown}, ...); set data.image_size to resize them, e.g. to 32"
        )
    splits = {split: _load_images(listed, image_size, grey) for split, listed in files.items()}
    return Source(_checked_labels(splits, len(classes), str(root)), classes)


def _class_folders(folder: Path) -> list[str]:
    return sorted(
        child.name for child in folder.iterdir() if child.is_dir() and not child.name.startswith(".")
    )


def _images_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file())


def _open(path: Path) -> Image.Image:
    """The decoded image, turned upright. Raises UserError that names the file."""
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        reason = "not an image" if isinstance(error, UnidentifiedImageError) else error
        raise UserError(f"image {path} cannot be read ({reason}); repair or remove it") from None


def _survey(paths: Sequence[Path]) -> tuple[bool, set[tuple[int, int]]]:
    """Whether all images are grey, and their sizes. Decoding each image here finds a bad one before the work starts."""
    grey, sizes = True, set()
    for path in paths:
        image = _open(path)
        grey = grey and image.mode in _GREY_MODES
        sizes.add(image.size)
    return grey, sizes


def _load_images(
    files: Sequence[tuple[Path, int]], image_size: int | None, grey: bool
) -> tuple[Images, Labels]:
    mode, channels = ("L", 1) if grey else ("RGB", 3)
    images = [_as_array(_converted(_open(path), mode), image_size, channels) for path, _ in files]
    if not images:
        return np.empty((0, 1, 1, channels), np.uint8), np.empty(0, np.int64)
    return np.stack(images), np.array([label for _, label in files], np.int64)


def _converted(image: Image.Image, mode: str) -> Image.Image:
    if image.mode in (
        "I",
        "I;16",
        "F",
    ):  # more than 8 bits per pixel: keeps the upper bits, where PIL would clip
        values = np.asarray(image, dtype=np.float64)
        image = Image.fromarray(np.clip(values / (257 if values.max() > 255 else 1), 0, 255).astype(np.uint8))
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")  # transparent pixels become white
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    return image.convert(mode)


def _checked_labels(
    splits: Mapping[str, tuple[Images, Labels]], classes: int, where: str
) -> Mapping[str, tuple[Images, Labels]]:
    for split, (_, labels) in splits.items():
        wrong = np.flatnonzero((labels < 0) | (labels >= classes))
        if len(wrong):
            raise UserError(
                f"{where}: label {labels[wrong[0]]} of {split} image {wrong[0]} is outside the {classes} classes"
                f" 0..{classes - 1}; correct it"
            )
    return splits


def _sized(
    splits: Mapping[str, tuple[Images, Labels]], classes: Sequence[str], image_size: int | None
) -> Source:
    if image_size is not None:
        splits = {split: (resize(images, image_size), labels) for split, (images, labels) in splits.items()}
    return Source(splits, classes)


_READERS: Mapping[str, Callable[[Path, int | None], Source]] = {
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
    "npz": _npz,
    "imagefolder": _imagefolder,
}
