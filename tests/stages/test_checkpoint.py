"""Checkpoints are restored exactly, or refused."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from stages.errors import UserError
from stages.plumbing.checkpoint import Checkpoint, key
from tests.stages.conftest import TINY, write_params


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.chdir(tmp_path)
    made = Checkpoint("search", "k1")
    made.save({"weights": {"a": torch.arange(1000.0)}, "epoch": 3})
    return made


def test_round_trip_of_what_torch_states_hold(checkpoint: Checkpoint) -> None:
    parameter = torch.nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    optimizer = torch.optim.Adam([parameter], lr=0.1)
    parameter.square().sum().backward()
    optimizer.step()
    state = {
        "optimizer": optimizer.state_dict(),
        "generator": torch.Generator().manual_seed(5).get_state(),
        "rows": [{"epoch": 1, "loss": 0.1 + 0.2, "missing": None}],
        "channels_last": torch.randn(2, 3, 4, 4).contiguous(memory_format=torch.channels_last),
    }
    checkpoint.save(state)
    loaded = checkpoint.load()
    assert loaded is not None
    assert loaded["rows"] == state["rows"]
    assert torch.equal(loaded["generator"], state["generator"])
    assert torch.equal(loaded["channels_last"], state["channels_last"])
    exp_avg = state["optimizer"]["state"][0]["exp_avg"]
    assert torch.equal(loaded["optimizer"]["state"][0]["exp_avg"], exp_avg)
    assert loaded["optimizer"]["param_groups"] == [
        {**group, "betas": list(group["betas"])} for group in state["optimizer"]["param_groups"]
    ]


@pytest.mark.parametrize("kept", [0, 1, 8, 100, -1])
def test_a_truncated_one_is_refused(checkpoint: Checkpoint, kept: int) -> None:
    checkpoint.path.write_bytes(checkpoint.path.read_bytes()[:kept])
    with pytest.raises(
        UserError, match="is damaged .*; delete .*state.safetensors to start this stage again"
    ):
        checkpoint.load()


def test_a_flipped_bit_is_noticed(checkpoint: Checkpoint) -> None:
    content = bytearray(checkpoint.path.read_bytes())
    content[-5] ^= 1
    checkpoint.path.write_bytes(content)
    with pytest.raises(UserError, match="checksum is wrong"):
        checkpoint.load()


def test_one_of_other_parameters_is_refused(checkpoint: Checkpoint) -> None:
    other = Checkpoint("search", "k2")
    other.folder.mkdir(parents=True)
    other.path.write_bytes(checkpoint.path.read_bytes())
    with pytest.raises(UserError, match="belongs to other parameters"):
        other.load()


def test_the_key_depends_on_everything() -> None:
    base = key("search", "images", {"epochs": 1}, {"data": "a"})
    assert key("search", "images", {"epochs": 1}, {"data": "a"}) == base
    others = {
        key("search", "images", {"epochs": 2}, {"data": "a"}),
        key("search", "images", {"epochs": 1}, {"data": "b"}),
        key("retrain", "images", {"epochs": 1}, {"data": "a"}),
    }
    assert len({base, *others}) == 4


def test_removed_when_done(checkpoint: Checkpoint) -> None:
    checkpoint.note(run_id="x")
    assert checkpoint.noted() == {"run_id": "x"}
    checkpoint.remove()
    assert checkpoint.load() is None


@pytest.mark.parametrize("stage", ["search", "retrain"])
def test_the_key_has_the_precision_that_is_computed_in(
    stage: str, finished_copy: Path, run_stage: Callable[..., int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a CPU, auto and float32 are one and the same; another precision starts anew."""
    keys: dict[str, str] = {}

    def noted(name: str, task: str, params: Mapping[str, Any], inputs: Mapping[str, str]) -> str:
        keys[precision] = key(name, task, params, inputs)
        raise UserError("that is enough")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(importlib.import_module(f"stages.{stage}"), "key", noted)
    for precision in ("auto", "float32", "bfloat16"):
        write_params(finished_copy / "params.yaml", {**TINY, "train.precision": precision})
        assert run_stage(stage) == 2
    assert keys["auto"] == keys["float32"] != keys["bfloat16"]
