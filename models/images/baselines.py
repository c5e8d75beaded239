"""Networks made by hand, with which found networks are compared: a ResNet and one like MobileNetV2.

Both have three stages of sides 1, 1/2 and 1/4 like the found networks, average pooling and a linear classifier. Images
from 128 pixels on first go through three convolutions of stride 2, because the networks of DARTS divide their sides by 8
there too. Weights start as PyTorch's layers do, like those of found networks.

    ResNet             He et al., arXiv 1512.03385, section 4.2: three basic blocks per stage, 20 layers. Where the shape
                       changes, the shortcut is a 1x1 convolution and a norm.
    MobileNetV2-like   Sandler et al., arXiv 1801.04381, table 2, up to its stage of 64 channels, with the last 1x1
                       convolution four times as wide. Strides are those for small images.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from models.images.equal import Widths, nearest_widths, parameters_of
from models.images.ops.norm import BatchNorm
from models.images.sizes import check_image_size, is_large
from models.training.seeds import seeded

_RESNET_BLOCKS = 3  # per stage
_RESNET_STAGES = (1, 2, 4)  # channels, in multiples of the first stage's
# Rows of table 2: expansion, channels in multiples of the first row's, blocks, stride of the first block.
_MOBILENET_ROWS = ((1, 1.0, 1, 1), (6, 1.5, 2, 1), (6, 2.0, 3, 2), (6, 4.0, 4, 2))
_MOBILENET_STEM, _MOBILENET_HEAD = 2, 4  # channels, in multiples of the first and of the last row's


class ConvNorm(nn.Sequential):
    """Convolution that keeps the side (or divides it by the stride), norm, and an activation if there is one."""

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: int,
        stride: int = 1,
        groups: int = 1,
        activation: nn.Module | None = None,
    ):
        super().__init__(
            nn.Conv2d(channels_in, channels, kernel, stride, kernel // 2, groups=groups, bias=False),
            BatchNorm(channels, affine=True),
            *([] if activation is None else [activation]),
        )


def stem(channels_in: int, channels: int, image_size: int) -> nn.Module:
    """One 3x3 convolution; for large images three, which divide the side by 8."""
    if not is_large(image_size):
        return ConvNorm(channels_in, channels, 3, activation=nn.ReLU())
    return nn.Sequential(
        ConvNorm(channels_in, max(1, channels // 2), 3, 2, activation=nn.ReLU()),
        ConvNorm(max(1, channels // 2), channels, 3, 2, activation=nn.ReLU()),
        ConvNorm(channels, channels, 3, 2, activation=nn.ReLU()),
    )


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int):
        super().__init__()
        self.first = ConvNorm(channels_in, channels, 3, stride, activation=nn.ReLU())
        self.second = ConvNorm(channels, channels, 3)
        same = stride == 1 and channels_in == channels
        self.shortcut = nn.Identity() if same else ConvNorm(channels_in, channels, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.second(self.first(x)) + self.shortcut(x))


class InvertedResidual(nn.Module):
    """1x1 convolution to more channels, depthwise 3x3, 1x1 back; the input is added where the shape stays."""

    def __init__(self, channels_in: int, channels: int, stride: int, expansion: int):
        super().__init__()
        wide = expansion * channels_in
        self.layers = nn.Sequential(
            *([ConvNorm(channels_in, wide, 1, activation=nn.ReLU6())] if expansion > 1 else []),
            ConvNorm(wide, wide, 3, stride, groups=wide, activation=nn.ReLU6()),
            ConvNorm(wide, channels, 1),
        )
        self.residual = stride == 1 and channels_in == channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.layers(x)
        return x + y if self.residual else y


def resnet(widths: Widths, channels_in: int, image_size: int) -> nn.Sequential:
    """The features of a ResNet; ``widths`` are the channels of its three stages."""
    layers: list[nn.Module] = [stem(channels_in, widths[0], image_size)]
    before = widths[0]
    for stage, width in enumerate(widths):
        for block in range(_RESNET_BLOCKS):
            layers.append(BasicBlock(before, width, 2 if stage > 0 and block == 0 else 1))
            before = width
    return nn.Sequential(*layers)


def mobilenet(widths: Widths, channels_in: int, image_size: int) -> nn.Sequential:
    """The features of a network like MobileNetV2; ``widths`` are the channels of its rows."""
    before = _MOBILENET_STEM * widths[0]
    layers: list[nn.Module] = [stem(channels_in, before, image_size)]
    for width, (expansion, _, blocks, stride) in zip(widths, _MOBILENET_ROWS, strict=True):
        for block in range(blocks):
            layers.append(InvertedResidual(before, width, stride if block == 0 else 1, expansion))
            before = width
    layers.append(ConvNorm(before, _MOBILENET_HEAD * before, 1, activation=nn.ReLU6()))
    return nn.Sequential(*layers)


@dataclass(frozen=True)
class Baseline:
    """A kind of network made by hand."""

    features: Callable[[Widths, int, int], nn.Sequential]  # of widths, channels of the images, and their side
    multiples: Sequence[float]  # the widths, in multiples of one number
    channels_out: Callable[[Widths], int]


BASELINES: Mapping[str, Baseline] = {
    "ResNet-20": Baseline(resnet, _RESNET_STAGES, lambda widths: widths[-1]),
    "MobileNetV2-like": Baseline(
        mobilenet, [row[1] for row in _MOBILENET_ROWS], lambda widths: _MOBILENET_HEAD * widths[-1]
    ),
}


class BaselineNetwork(nn.Module):
    """A baseline of those widths, trained from scratch like a found network. It has no auxiliary head."""

    def __init__(self, name: str, widths: Widths, *, channels_in: int, image_size: int, classes: int):
        super().__init__()
        baseline = BASELINES[name]
        self.features = baseline.features(widths, channels_in, image_size)
        self.classifier = nn.Linear(baseline.channels_out(widths), classes)

    def forward(self, x: Tensor, keep: None = None) -> tuple[Tensor, None]:
        """Logits (B, classes), and None where other networks have the logits of an auxiliary head.

        Drop path is about the edges of cells, so there is none.
        """
        assert keep is None, "drop path does not apply"
        return self.classifier(self.features(x).mean(dim=(2, 3))), None


def baseline_network(
    name: str, widths: Widths, image_shape: Sequence[int], classes: int, *, seed: int
) -> BaselineNetwork:
    """The network for images of that shape (height, width, channels), freshly initialized."""
    height, width, channels_in = image_shape
    check_image_size(height, width)
    with seeded(seed, "network"):
        return BaselineNetwork(
            name, widths, channels_in=channels_in, image_size=min(height, width), classes=classes
        )


def baseline_widths(name: str, image_shape: Sequence[int], classes: int, parameters: int) -> Widths:
    """The widths for which a baseline comes closest to that number of parameters."""

    def count(widths: Widths) -> int:
        return parameters_of(lambda: baseline_network(name, widths, image_shape, classes, seed=0))

    return nearest_widths(count, BASELINES[name].multiples, parameters)
