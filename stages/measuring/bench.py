"""Measures how long networks take on this device: ``python KIT.zip [RESULT.csv]``.

This file is both the program in a kit, where it is __main__.py, and what the stage measure measures with. It needs
Python 3.8 or newer, numpy and onnxruntime, and nothing else, on Linux, Windows and macOS. The result is a CSV that
latency.measurements in params.yaml takes. An interrupted program goes on where it was.
"""

from __future__ import annotations

import csv
import io
import json
import os
import platform
import statistics
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime

UNIT = "ms"
BLOCK = 8  # networks that take turns, so that a change of the clock does not fall on one of them
TURNS = 8  # of every network of a block
AGREE = 0.05  # by how much the two fastest turns of a network may differ; otherwise it gets more turns
RETRIES = 6  # how often it does
_GOVERNOR = Path("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
_SAID_EVERY = 5.0  # seconds
_NOT_READ = ("opset", "ir version", "ir_version")  # in the words of a runtime that is too old for a file


class Refused(Exception):
    """What the user can correct, in one line."""


def described(threads: int) -> dict[str, str]:
    """The device and what runs networks on it, as the columns of a result."""
    return {
        "device": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "governor": _text(_GOVERNOR) or "unknown",
        "threads": str(threads),
        "runtime": f"onnxruntime {onnxruntime.__version__}",
    }


def _processor() -> str:
    board = _text(Path("/proc/device-tree/model"))  # of a Raspberry Pi, say
    for line in _text(Path("/proc/cpuinfo")).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and not board:
            return value.strip()
    return board or platform.processor() or platform.machine() or "unknown"


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace").strip("\0\n ")
    except OSError:
        return ""


def session_of(network: bytes, threads: int) -> onnxruntime.InferenceSession:
    """The network, ready to run on the CPU. Raises Refused when this onnxruntime is too old for the file."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4  # errors are raised anyway
    try:
        return onnxruntime.InferenceSession(network, options, providers=["CPUExecutionProvider"])
    except Exception as error:
        words = " ".join(str(error).split())
        if any(part in words.lower() for part in _NOT_READ):
            raise Refused(
                f"onnxruntime {onnxruntime.__version__} on this device is too old for these networks ({words[:160]});"
                " install a newer one, or make the kit with a lower export.opset"
            ) from None
        raise


def timed(calls, repeats: int, warmup: int):
    """The times in ms of some functions, which take turns: for each a list of turns, which are lists of times.

    In each of its turns, a function is called ``warmup`` times first.
    """
    times = [[] for _ in calls]
    turns = min(TURNS, repeats)
    for turn in range(turns):
        for call, taken in zip(calls, times):  # noqa: B905  (Python 3.8)
            for _ in range(warmup):
                call()
            taken.append(
                [_milliseconds(call) for _ in range(turn * repeats // turns, (turn + 1) * repeats // turns)]
            )
    return times


def _milliseconds(call) -> float:
    started = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - started)


def summary(turns):
    """(ms, spread): the median of the fastest turn, and half of the range of the middle half of all times.

    The fastest turn, because other programs make a network slower, never faster. On a machine that does nothing else,
    all turns are alike.
    """
    taken = [ms for turn in turns for ms in turn]
    if len(taken) < 2:
        return taken[0], 0.0
    low, _, high = statistics.quantiles(taken, n=4, method="inclusive")
    return min(map(statistics.median, turns)), (high - low) / 2


def measured(networks, feed, threads: int, repeats: int, warmup: int):
    """(ms, spread) of some networks, given as the contents of ONNX files, for one call with ``feed``.

    A network whose two fastest turns do not agree was disturbed, and gets as many turns again.
    """
    sessions = [session_of(network, threads) for network in networks]
    calls = [lambda s=session: s.run(None, feed) for session in sessions]
    times = timed(calls, repeats, warmup)
    for _ in range(RETRIES):
        disturbed = [place for place, turns in enumerate(times) if not _settled(turns)]
        again = timed([calls[place] for place in disturbed], repeats, warmup)
        for place, turns in zip(disturbed, again):  # noqa: B905
            times[place] += turns
    return [summary(turns) for turns in times]


def _settled(turns) -> bool:
    fastest = sorted(map(statistics.median, turns))[:2]
    return fastest[-1] <= (1 + AGREE) * fastest[0]


def feed_of(inputs, batch_size: int):
    """Input name -> random array, from input name -> {"shape": of one case, "type": of numpy, "below": a limit}."""
    draws = np.random.default_rng(0)
    return {
        name: draws.integers(0, about["below"], (batch_size, *about["shape"])).astype(about["type"])
        for name, about in inputs.items()
    }


class Kit:
    """The kit that this program came in: a zip file or the folder that it was unpacked to."""

    def __init__(self, place: Path):
        self.place = place
        self.manifest = json.loads(self.read("manifest.json").decode())

    def read(self, name: str) -> bytes:
        if self.place.is_dir():
            return (self.place / name).read_bytes()
        with zipfile.ZipFile(self.place) as packed:
            return packed.read(name)


def done_before(path: Path, identity: str, device: dict) -> int:
    """How many rows a result has already. Raises Refused when it is of another kit or another device."""
    if not path.exists():
        return 0
    text = path.read_bytes().decode()
    if not text.endswith("\n"):  # the program was killed while it wrote
        text = text[: text.rfind("\n") + 1]
        path.write_bytes(text.encode())
    rows = list(csv.DictReader(io.StringIO(text)))
    for row in rows:
        for name, value in {"kit": identity, **device}.items():
            if row.get(name) != value:
                raise Refused(
                    f"{path} was measured with {name} {row.get(name)}, not {value}; give another name for the result"
                )
    return len(rows)


def run_kit(kit: Kit, path: Path) -> None:
    """Measures what is left of the kit's networks, and adds a row for each to the result."""
    about = kit.manifest
    device = described(about["threads"])
    says = {
        **{name: str(about[name]) for name in ("space", "size", "precision", "batch_size", "unit")},
        **device,
    }
    feed, networks = feed_of(about["inputs"], about["batch_size"]), about["networks"]
    done, began, said = done_before(path, about["kit"], device), time.monotonic(), 0.0
    first = done
    while done < len(networks):
        block = networks[done : done + BLOCK]
        contents = [kit.read(f"networks/{network['file']}") for network in block]
        found = measured(contents, feed, about["threads"], about["repeats"], about["warmup"])
        rows = [
            {"genotype": json.dumps(network["genotype"]), "ms": f"{ms:.6g}", "ms_spread": f"{spread:.3g}"}
            for network, (ms, spread) in zip(block, found)  # noqa: B905
        ]
        _append(path, [{**row, **says, "kit": about["kit"]} for row in rows])
        done += len(block)
        if time.monotonic() - said > _SAID_EVERY or done == len(networks):
            said = time.monotonic()
            left = round((said - began) / (done - first) * (len(networks) - done))
            print(f"{done} of {len(networks)} networks, {left // 60}:{left % 60:02} left", flush=True)
    print(f"{path}: {done} rows; copy it to the project and set latency.measurements to its path")


def _append(path: Path, rows) -> None:
    """Adds rows in one write, so that a killed program leaves whole rows."""
    text = io.StringIO()
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    if not path.exists():
        writer.writeheader()
    writer.writerows(rows)
    with path.open("a", newline="", encoding="utf-8") as file:
        file.write(text.getvalue())
        file.flush()
        os.fsync(file.fileno())


def main(arguments) -> int:
    """Returns the exit status."""
    if len(arguments) > 1 or arguments[:1] in (["-h"], ["--help"]):
        print(__doc__)
        return 0 if len(arguments) == 1 else 2
    try:
        run_kit(Kit(Path(__file__).parent), Path(arguments[0] if arguments else "latency.csv"))
    except Refused as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted; the same command goes on where it was", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
