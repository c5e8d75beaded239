"""prepare goes on where it was killed, and its memory does not grow with the number of pictures."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.images.prepare import prepare_in, rows
from tests.stages.test_sources import data_params
from tests.zoo.conftest import ROOT, classes, picture

# Prepares argv[1] in the current folder; kills itself after argv[2] pictures, if that is not 0; prints its peak memory.
PROCESS = """
import json, os, signal, sys
from pathlib import Path
from stages.images.prepare import prepare_in, staging
from tests.stages.test_sources import data_params

root, limit, side = Path(sys.argv[1]), int(sys.argv[2]), json.loads(sys.argv[3])
staging._SAVED_EVERY = 0
def count(title, done, total):
    if limit and title == "pictures" and done >= limit:
        os.kill(os.getpid(), signal.SIGKILL)
Path("out").mkdir()
prepare_in(Path("state"), data_params("imagefolder", root, side), Path("out"), count)
peak = next(line for line in open("/proc/self/status") if line.startswith("VmHWM"))
print(int(peak.split()[1]) // 1024)
"""


def process(
    folder: Path, root: Path, limit: int = 0, side: int | None = None
) -> subprocess.CompletedProcess[str]:
    folder.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-c", PROCESS, str(root), str(limit), json.dumps(side)],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip


def written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


def test_killed_at_any_moment_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = classes(tmp_path / "data", "a", "b", count=200)
    assert process(tmp_path / "whole", root).returncode == 0
    decoded: list[Path] = []
    real = rows.decode

    def counted(place: Any, **options: Any) -> Any:
        decoded.append(place)
        return real(place, **options)

    for limit in (128, 300):
        work = tmp_path / f"killed{limit}"
        assert process(work, root, limit).returncode == -signal.SIGKILL
        assert not written(work)
        (work / "out").rmdir()
        (work / "out").mkdir()
        monkeypatch.setattr(rows, "decode", counted)
        decoded.clear()
        prepare_in(work / "state", data_params("imagefolder", root, None), work / "out")
        assert written(work) == written(tmp_path / "whole")
        assert len(decoded) <= 400 - limit
        assert not list((work / "state").glob("*/*")), "nothing is left behind"


def test_a_changed_picture_is_decoded_again(tmp_path: Path) -> None:
    root = classes(tmp_path / "data", "a", "b", count=200)
    work = tmp_path / "work"
    assert process(work, root, 300).returncode == -signal.SIGKILL
    picture(12345).save(root / "a" / "0.png")
    (work / "out").rmdir()
    assert process(work, root).returncode == 0
    assert process(tmp_path / "whole", root).returncode == 0
    assert written(work) == written(tmp_path / "whole")


def test_an_interruption_keeps_what_is_decoded(tmp_path: Path) -> None:
    root = classes(tmp_path / "data", "a", "b", count=200)
    (tmp_path / "out").mkdir()

    def stop(title: str, done: int, total: int) -> None:
        if title == "pictures" and done >= 256:
            raise KeyboardInterrupt

    params = data_params("imagefolder", root, None)
    with pytest.raises(KeyboardInterrupt):
        prepare_in(tmp_path / "state", params, tmp_path / "out", stop)
    (notes,) = (tmp_path / "state").glob("*/train.done.npz")
    with np.load(notes) as kept:
        assert kept["done"].tolist() == [True, True, False, False]


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of a process is read from /proc")
def test_memory_does_not_grow_with_the_number_of_pictures(tmp_path: Path) -> None:
    """The pictures of the larger folder take 300 MB when decoded."""
    source = tmp_path / "source.png"
    picture(0, (224, 224)).save(source)
    peaks: list[int] = []
    for number in (200, 2000):
        root = tmp_path / f"data{number}"
        for name in ("a", "b"):
            (root / name).mkdir(parents=True)
            for copy in range(number // 2):
                os.link(source, root / name / f"{copy}.png")
        done = process(tmp_path / f"work{number}", root)
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stdout))
    assert peaks[1] < peaks[0] + 60
