"""What the network of a genotype costs: ``python -m models.describe GENOTYPE.json`` prints one JSON line."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from models.errors import InvalidInput
from models.images.families import network_of
from models.images.genotype import from_json
from models.images.nasbench201 import STAGES
from models.images.skeleton import MINIMUM_CELLS, check_image_size
from models.search.genotype import Genotype


def count_parameters(module: nn.Module) -> int:
    """Learnable parameters, batch-norm scale and shift included."""
    return sum(parameter.numel() for parameter in module.parameters())


def count_macs(module: nn.Module, *inputs: Tensor) -> int:
    """Multiply-accumulates of all convolutions and linear layers in one forward pass of ``inputs``."""
    total = 0

    def add(layer: nn.Module, _: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        weight = layer.weight
        assert isinstance(weight, Tensor)
        total += output.numel() * (weight.numel() // len(weight))

    layers = [layer for layer in module.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    hooks = [layer.register_forward_hook(add) for layer in layers]
    try:
        # With gradients: without, convolutions are folded with their norms and their hooks see nothing.
        with torch.enable_grad():
            module(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return total


@dataclass(frozen=True)
class Size:
    """Initial channels and cells of a network: all of its cells in DARTS, those of one stage in NAS-Bench-201."""

    channels: int
    cells: int
    minimum_cells: int


# What the papers train: genotypes are compared at these sizes.
PUBLISHED_SIZES = {"darts": Size(36, 20, MINIMUM_CELLS), "nasbench201": Size(16, 5, 1)}


def describe(
    genotype: Genotype,
    *,
    channels: int,
    cells: int,
    classes: int,
    image_size: int,
    channels_in: int = 3,
    stages: int = STAGES,
) -> dict[str, int]:
    """``params`` without and ``params_with_auxiliary`` with the auxiliary head, and ``macs`` for one image.

    Nothing is computed: the network is built on PyTorch's meta device. Where there is no auxiliary head, both counts are equal.
    For NAS-Bench-201 also ``flops`` as that benchmark reports them: multiply-accumulates, and the classifier's biases.
    """
    check_image_size(image_size, image_size)

    def network(*, auxiliary: bool) -> nn.Module:
        return network_of(
            genotype,
            channels=channels,
            cells=cells,
            classes=classes,
            channels_in=channels_in,
            image_size=image_size,
            stages=stages,
            auxiliary=auxiliary,
        )

    with torch.device("meta"):
        plain = network(auxiliary=False).eval()
        macs = count_macs(plain, torch.empty(1, channels_in, image_size, image_size))
        counts = {
            "params": count_parameters(plain),
            "params_with_auxiliary": count_parameters(network(auxiliary=True)),
            "macs": macs,
        }
    return counts | ({"flops": macs + classes} if genotype.space == "nasbench201" else {})


def _at_least(minimum: int):
    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is too small; the least is {minimum}")
        return value

    parse.__name__ = "whole number"
    return parse


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m models.describe", description=__doc__)
    parser.add_argument("genotype", type=Path, metavar="GENOTYPE.json")
    parser.add_argument(
        "--channels", type=_at_least(1), help="of the first cells (default 36; nasbench201: 16)"
    )
    parser.add_argument("--cells", type=_at_least(1), help="(default 20; nasbench201: 5, counted a stage)")
    parser.add_argument("--classes", type=_at_least(1), default=10, help="(default 10)")
    parser.add_argument("--image-size", type=_at_least(1), default=32, help="side in pixels (default 32)")
    options = parser.parse_args()
    try:
        content = json.loads(options.genotype.read_text())
        if not isinstance(content, dict):
            raise InvalidInput("genotype: expected a JSON object")
        genotype = from_json(content)
        size = PUBLISHED_SIZES[genotype.space]
        cells = options.cells or size.cells
        if cells < size.minimum_cells:
            parser.error(f"argument --cells: {cells} is too small; the least is {size.minimum_cells}")
        counts = describe(
            genotype,
            channels=options.channels or size.channels,
            cells=cells,
            classes=options.classes,
            image_size=options.image_size,
        )
    except OSError as error:
        print(f"error: {options.genotype}: {error.strerror}", file=sys.stderr)
        return 2
    except json.JSONDecodeError as error:
        print(f"error: {options.genotype} is not JSON: {error}", file=sys.stderr)
        return 2
    except InvalidInput as error:
        print(f"error: {options.genotype}: {error}", file=sys.stderr)
        return 2
    print(json.dumps(counts))
    return 0


if __name__ == "__main__":
    sys.exit(main())
