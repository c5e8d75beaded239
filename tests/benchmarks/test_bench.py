from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from benchmarks import bench
from benchmarks._correspondence import copy_weights
from benchmarks._steps import CLASSES, PlainSearch, build_step, search_of
from benchmarks.plain import PlainSupernet
from models.images.supernet import Supernet
from models.search.program import Search, Stream
from models.search.strategies import Alternating
from models.training.ahead import Ahead
from models.training.evaluation import Batch

TINY = {"batch": 2, "channels": 2, "cells": 3, "side": 8, "channels_in": 1}
CPU = torch.device("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("name", bench.VARIANTS)
def test_every_variant_makes_steps(name: str) -> None:
    first, seconds = bench.time_all({name: build_step(name, TINY, CPU)}, 3, CPU)
    assert len(seconds[name]) == 3 and first[name] > 0


class Doubled:
    """A stream whose images are float64."""

    def __init__(self, stream: Stream):
        self.stream = stream
        self.state_dict, self.load_state_dict = stream.state_dict, stream.load_state_dict

    def __len__(self) -> int:
        return len(self.stream)

    def __next__(self) -> Batch:
        x, labels = next(self.stream)
        return x.double(), labels


def doubled(name: str) -> Search:
    """The search in float64."""
    search = search_of(name, TINY, CPU)
    search.supernet.double()
    assert isinstance(search.strategy, Alternating) and search.loaders.architecture is not None
    for alpha in search.strategy.alpha.values():
        alpha.data = alpha.data.double()
    streams = Doubled(search.loaders.train), Doubled(search.loaders.architecture)
    search.loaders = replace(search.loaders, train=streams[0], architecture=streams[1])
    search.streams = {"train": Ahead(streams[0]), "architecture": Ahead(streams[1])}
    return search


@pytest.mark.parametrize("fair", [False, True])
def test_a_step_of_the_plain_search_is_the_step_of_the_pipeline(fair: bool) -> None:
    """Otherwise the factor between them would compare different work."""
    fast, plain = doubled("fast/darts"), PlainSearch(doubled("plain/darts"), TINY, fair=fair)
    before = plain.network.state_dict()["classifier.weight"].clone()
    fast.start_epoch(0)
    for _ in range(3):
        fast.step()
        plain.step()
    assert isinstance(fast.supernet, Supernet)
    for group, rows in fast.strategy.alphas().items():
        torch.testing.assert_close(plain.alphas[group].detach(), rows, rtol=0, atol=1e-9)
    moved = PlainSupernet(fast.domain.space, channels=2, cells=3, classes=CLASSES, channels_in=1).double()
    copy_weights(fast.supernet, moved)
    for name, weight in moved.state_dict().items():
        if not name.endswith("num_batches_tracked"):  # which copy_weights leaves out
            torch.testing.assert_close(plain.network.state_dict()[name], weight, rtol=0, atol=1e-9)
    assert not torch.allclose(before, moved.state_dict()["classifier.weight"])


@pytest.mark.parametrize("fair", [False, True])
def test_only_the_fair_step_works_channels_last_and_moves_alpha_without_gradients_of_weights(
    fair: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    search = PlainSearch(search_of("plain/darts", TINY, CPU), TINY, fair=fair)
    seen: list[Tensor] = []
    search.network.cells[0].register_forward_hook(lambda *of: seen.append(of[-1]))
    gradients: list[int] = []

    def stepped(*_: object) -> None:  # in place of Adam's step, which follows the architecture's pass
        gradients.append(sum(weight.grad is not None for weight in search.network.parameters()))

    monkeypatch.setattr(search.adam, "step", stepped)
    search.step()
    assert (gradients[0] == 0) is fair
    assert len(seen) == 2 and all(map(is_channels_last, seen)) is fair


def is_channels_last(tensor: Tensor) -> bool:
    return tensor.is_contiguous(memory_format=torch.channels_last)


def test_processor_time_leaves_out_what_a_step_waits_for() -> None:
    _, seconds = bench.time_all({"wait": lambda: time.sleep(0.05)}, 2, CPU, bench.CLOCKS["processor"])
    assert max(seconds["wait"]) < 0.04


def test_repeats_are_interleaved_and_the_first_rounds_are_not_counted() -> None:
    order: list[str] = []
    steps = {name: lambda name=name: order.append(name) for name in ("a", "b")}
    _, seconds = bench.time_all(steps, 2, CPU)
    assert order == ["a", "b"] * (bench.WARM_UP + 2)
    assert [len(values) for values in seconds.values()] == [2, 2]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="elsewhere the peak is ru_maxrss")
def test_peak_memory_is_that_of_the_variant_not_of_who_started_it() -> None:
    ballast = torch.ones(2**28)  # 1 GiB
    words = ["--size", "digits", "--device", "cpu", "--threads", "1"]
    peak = bench.peak_of_own_process("fast/darts", bench.options(words))
    assert 100 < peak < ballast.nbytes / 2**20


def variant(median: float, first: float = 0.0) -> bench.Variant:
    return bench.Variant(median, median, median, first, 100.0)


VARIANTS = {
    "plain/darts": variant(4.0),
    "plain/ms-darts": variant(8.0),
    "fair/darts": variant(2.0),
    "fair/ms-darts": variant(6.0),
    "fast/darts": variant(1.0),
    "fast/ms-darts": variant(2.0),
    "two-pass/single-level": variant(0.75),
    "fast/single-level": variant(0.5),
    "compiled/ms-darts": variant(1.6, first=61.6),
}


def test_factors_are_of_the_same_method_and_of_the_same_implementation() -> None:
    rows = {line.split(" | ")[0]: line.split(" | ")[2:5] for line in bench.table({}, VARIANTS).splitlines()}
    assert rows["| fast/ms-darts"] == ["4.00", "3.00", "2.00"]
    assert rows["| plain/ms-darts"] == ["1.00", "0.75", "2.00"]
    assert rows["| fair/ms-darts"] == ["1.33", "1.00", "3.00"]
    assert rows["| compiled/ms-darts"] == ["5.00", "3.75", "1.60"]
    assert rows["| two-pass/single-level"] == ["1.00", "-", "0.75"]
    assert rows["| fast/single-level"] == ["1.50", "-", "0.50"]
    assert "Compilation takes 60 s in the first step" in bench.table({}, VARIANTS)


def test_a_measurement_takes_the_place_of_the_last_of_its_title(tmp_path: Path) -> None:
    bench.keep(tmp_path, "cpu, cifar", {"date": "before"}, VARIANTS)
    bench.keep(tmp_path, "cpu, digits", {"date": "other"}, VARIANTS)
    bench.keep(tmp_path, "cpu, cifar", {"date": "after"}, VARIANTS)
    text = (tmp_path / "bench.md").read_text()
    assert "date: after" in text and "date: other" in text and "before" not in text
