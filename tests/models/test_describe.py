"""What networks cost, against closed forms; the command that prints it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.describe import main
from models.images.ops.candidates import OpSpec, build
from models.training.costs import count_macs, count_parameters
from tests.conftest import REPOSITORY

BEST = "|nor_conv_3x3~0|+|nor_conv_3x3~0|nor_conv_3x3~1|+|skip_connect~0|nor_conv_3x3~1|nor_conv_3x3~2|"


class Attention(nn.Module):
    """Tokens (B, T, C) that attend to each other: most of the work is in products of activations."""

    def __init__(self, channels: int):
        super().__init__()
        self.project = nn.Linear(channels, 3 * channels, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = self.project(x).chunk(3, dim=-1)
        return torch.matmul(torch.softmax(torch.matmul(query, key.transpose(1, 2)), dim=-1), value)


def test_products_of_activations_count() -> None:
    batch, tokens, channels = 2, 5, 8
    projection = batch * tokens * channels * 3 * channels
    products = 2 * batch * tokens * tokens * channels  # of queries and keys, and of their softmax and values
    found = count_macs(Attention(channels).eval(), torch.zeros(batch, tokens, channels))
    assert found == projection + products


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("side", [2, 3, 8])
@pytest.mark.parametrize(
    ("name", "taps"), [("sep_conv_3x3", 9), ("sep_conv_5x5", 25), ("dil_conv_3x3", 9), ("dil_conv_5x5", 25)]
)
def test_every_tap_counts_also_on_images_smaller_than_the_kernel(
    name: str, taps: int, side: int, stride: int
) -> None:
    channels, pixels = 4, (-(-side // stride)) ** 2
    depthwise, pointwise = pixels * channels * taps, pixels * channels**2
    times = 2 if name.startswith("sep") else 1
    operation = build(name, OpSpec(channels, stride)).eval()
    assert count_macs(operation, torch.zeros(1, channels, side, side)) == times * (depthwise + pointwise)


def test_pooling_norm_and_noise_cost_no_multiply_accumulates() -> None:
    for name in ("max_pool_3x3", "avg_pool_3x3", "skip_connect", "noise"):
        operation = build(name, OpSpec(4), pool_norm=True).eval()
        assert count_macs(operation, torch.zeros(1, 4, 8, 8)) == 0, name


def test_counting_leaves_the_module_alone() -> None:
    module = build("sep_conv_3x3", OpSpec(4)).eval()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    with torch.enable_grad():
        count_macs(module, torch.ones(1, 4, 8, 8))
    assert all(weight.device.type == "cpu" and weight.grad is None for weight in module.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())
    assert count_parameters(module) == 2 * (9 * 4 + 16 + 2 * 4)


def test_the_command_prints_the_conformance_numbers(
    shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """At the sizes of the papers, which are the defaults."""
    genotypes = json.loads((shared / "conformance/genotype_counts.json").read_text())["genotypes"]
    path = tmp_path / "genotype.json"
    monkeypatch.setattr(sys, "argv", ["describe", str(path)])
    for name, entry in genotypes.items():
        counts = {key: entry.pop(key) for key in ("params", "params_with_auxiliary", "macs")}
        path.write_text(json.dumps(entry))
        assert main() == 0
        assert capsys.readouterr().out == json.dumps(counts) + "\n", name


def test_the_command_takes_a_genotype_of_the_benchmark(tmp_path: Path) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(json.dumps({"space": "nasbench201", "arch_str": BEST}))
    done = subprocess.run(
        [sys.executable, "-m", "models.describe", str(path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    params, macs = 73_306 + 5 * 243_040, 7_783_040 + 5 * 35_389_440
    counts = {"params": params, "params_with_auxiliary": params, "macs": macs, "flops": macs + 10}
    assert done.stdout == json.dumps(counts) + "\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"space": "nasbench201", "arch_str": "|x|"}', "operation 'x' in arch_str is unknown"),
        ('{"space": "s7"}', "space 's7' is unknown"),
        ("[]", "expected a JSON object"),
        ("{", "is not JSON"),
    ],
)
def test_the_command_refuses_in_one_line_what_is_no_genotype(
    content: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "genotype.json"
    path.write_text(content)
    monkeypatch.setattr(sys, "argv", ["describe", str(path)])
    assert main() == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {path}") and message in error and error.count("\n") == 1
