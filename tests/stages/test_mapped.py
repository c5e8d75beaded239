"""Prepared images are read at random from files that may be larger than the memory."""

from __future__ import annotations

import mmap
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from benchmarks._limit import bytes_read, forget, memory_group
from models.images.batches import BatchStream, Preprocess, Split, batches
from models.training.seeds import generator
from stages.images.training.inputs import split_of
from tests.stages.processes import ROOT

PREPROCESS = Preprocess((0.5, 0.4, 0.3), (0.2, 0.3, 0.4), padding=4, mirror=True)


def prepared(folder: Path, count: int, side: int) -> NDArray[np.uint8]:
    """Writes a training split as the stage prepare does, and returns its images."""
    made = folder / "artifacts" / "data"
    made.mkdir(parents=True)
    images = np.random.default_rng(0).integers(0, 256, (count, side, side, 3), np.uint8)
    np.save(made / "train_images.npy", images)
    np.save(made / "train_labels.npy", np.arange(count))
    return images


def test_batches_are_those_of_images_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = prepared(tmp_path, 20, 250)  # 187,500 bytes each, more than the kernel is asked for at once
    monkeypatch.chdir(tmp_path)
    splits = Split(torch.from_numpy(images), torch.arange(20)), split_of("train")
    subset = torch.tensor([19, 3, 0, 7, 11, 2])
    in_memory, mapped = (
        BatchStream(split, 4, PREPROCESS, generator(0, "stream"), subset) for split in splits
    )
    for _ in range(4):
        for expected, found in zip(next(in_memory), next(mapped), strict=True):
            assert torch.equal(expected, found)
    in_order = (batches(split, 6, PREPROCESS) for split in splits)
    for (expected, labels), (found, found_labels) in zip(*in_order, strict=True):
        assert torch.equal(expected, found) and torch.equal(labels, found_labels)


def test_a_batch_has_its_own_pages_read_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "artifacts" / "data" / "train_images.npy"
    images = prepared(tmp_path, 400, 128)
    monkeypatch.chdir(tmp_path)
    forget(path)
    before = bytes_read()
    np.load(path)
    if bytes_read() - before < images.nbytes:
        pytest.skip("the folder for temporary files is not on a disk whose reads the kernel counts")
    split = split_of("train")
    forget(path)
    pages = 16 * (images[0].nbytes // mmap.PAGESIZE + 1) * mmap.PAGESIZE
    before = bytes_read()
    next(BatchStream(split, 16, PREPROCESS, generator(0, "stream")))
    assert bytes_read() - before <= 1.5 * pages  # and a few of the file system's own
    forget(path)
    before = bytes_read()
    assert split.announce is not None
    split.announce(range(0, 400, 25))
    assert bytes_read() - before >= 0.9 * pages, "all reads are under way before the first page is touched"
    forget(path)
    before = bytes_read()
    split.images[::25].clone()
    assert bytes_read() - before <= 1.5 * pages, "the kernel reads no neighbours of what was not announced"


LARGER = """
import sys
import numpy as np
from benchmarks._limit import bytes_read
from stages.plumbing.mapped import announcer
images = np.load(sys.argv[1], mmap_mode="c")
announce, random, before = announcer(images), np.random.default_rng(1), bytes_read()
for _ in range(100):
    rows = random.integers(0, len(images), 32)
    announce(rows.tolist())
    assert (images[rows] == rows[:, None] % 251).all()
print(bytes_read() - before)
"""


def test_random_rows_of_a_file_three_times_the_memory_limit(tmp_path: Path) -> None:
    limit, row_bytes, path = 64, 49152, tmp_path / "images.npy"
    count = (3 * limit << 20) // row_bytes
    np.save(path, (np.arange(count) % 251).astype(np.uint8)[:, None].repeat(row_bytes, axis=1))
    forget(path)
    try:
        with memory_group(limit) as group:
            words = group.command([sys.executable, "-c", LARGER, str(path)])
            done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False, timeout=60)
            peak = group.peak()
    except OSError as error:
        pytest.skip(f"no control group with a memory limit can be made here ({error})")
    assert done.returncode == 0, done.stderr
    assert peak <= limit
    assert int(done.stdout) <= 1.2 * 100 * 32 * (row_bytes + 2 * mmap.PAGESIZE), "only what was asked for"
