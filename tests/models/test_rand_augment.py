"""The operations of the policy against torchvision's, or against what they mean; and which are drawn."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as reference

from models.images.augment import random_crop
from models.images.rand_augment import OPERATIONS, rand_augment
from models.training.seeds import generator

SIGNED = {
    "rotate", "color", "contrast", "brightness", "sharpness", "shear_x", "shear_y", "translate_x", "translate_y"
}  # fmt: skip


def pictures(count: int = 5, channels: int = 3) -> Tensor:
    """Noise, and for equalize and autocontrast a dark picture and one of a single color."""
    images = torch.randint(0, 256, (count, 9, 7, channels), generator=generator(0, "x"), dtype=torch.uint8)
    images[0] = images[0] // 4 + 20
    images[1] = 77
    return images


def applied(name: str, images: Tensor, strength: float) -> Tensor:
    operation = OPERATIONS[name]
    assert operation is not None
    found = operation(images.float(), torch.full((len(images), 1, 1, 1), strength))
    return found.round().clamp(0, 255).to(torch.uint8)


def channels_first(images: Tensor) -> Tensor:
    return images.permute(0, 3, 1, 2)


@pytest.mark.parametrize("strength", [-1.0, -0.4, 0.5, 1.0])
def test_values_are_those_of_torchvision(strength: float) -> None:
    x = pictures()
    factor = 1 + 0.9 * strength
    grey = x.float().mean(dim=3, keepdim=True)  # torchvision's is the luminance
    expected = {
        "brightness": reference.adjust_brightness(channels_first(x), factor),
        "sharpness": reference.adjust_sharpness(channels_first(x), factor),
        "posterize": reference.posterize(channels_first(x), 8 - round(4 * abs(strength))),
        "solarize": reference.solarize(channels_first(x), 256 * (1 - abs(strength))),
        "autocontrast": reference.autocontrast(channels_first(x)),
        "color": channels_first((grey + factor * (x - grey)).clamp(0, 255)),
    }
    for name, values in expected.items():
        apart = applied(name, x, strength).int() - values.permute(0, 2, 3, 1).float().round().int()
        assert int(apart.abs().max()) <= 1, name
    one = pictures(channels=1)
    apart = applied("contrast", one, strength).int() - reference.adjust_contrast(
        channels_first(one), factor
    ).permute(0, 2, 3, 1)
    assert int(apart.abs().max()) <= 1
    assert torch.equal(applied("color", one, strength), one), "one channel is grey already"


def test_equalized_values_are_those_of_torchvision_and_evenly_spread_in_small_images() -> None:
    """torchvision divides whole numbers: it does nothing to 255 pixels or fewer, and rounds in larger images."""
    x = torch.randint(0, 256, (2, 300, 300, 3), generator=generator(0, "large"), dtype=torch.uint8)
    x[0] = x[0] // 3
    apart = applied("equalize", x, 0.0).int() - reference.equalize(channels_first(x)).permute(0, 2, 3, 1)
    assert int(apart.abs().max()) <= 2
    few = torch.tensor([10, 11, 12, 12, 200, 90], dtype=torch.uint8).view(1, 2, 3, 1)
    expected = [0, 51, 102, 102, 255, 204]  # of 5 pixels below the brightest, 0, 1, 2, 2, 5 and 4 are darker
    assert applied("equalize", few, 0.0).flatten().tolist() == expected
    assert torch.equal(applied("equalize", pictures(), 0.0)[1], pictures()[1]), "a single color stays"


def test_places_move_as_they_should() -> None:
    square = torch.randint(0, 256, (2, 10, 10, 3), generator=generator(0, "square"), dtype=torch.uint8)
    assert torch.equal(applied("rotate", square, 3.0), square.rot90(1, (1, 2)))  # 3 times 30 degrees
    for name, dim in (("translate_x", 2), ("translate_y", 1)):
        moved = applied(name, square, 3 / 4.5)  # 0.45 of 10 pixels is the most
        assert torch.equal(moved.narrow(dim, 0, 7), square.narrow(dim, 3, 7))
        assert not moved.narrow(dim, 7, 3).any(), "black comes in"
    bar = torch.zeros(1, 41, 41, 1, dtype=torch.uint8)
    bar[:, :, 20] = 255
    for name, leaning in (("shear_x", bar), ("shear_y", bar.transpose(1, 2))):
        found = applied(name, leaning, 1.0)[0, :, :, 0].int()
        found = found if name == "shear_x" else found.T
        assert found[[10, 20, 30]].argmax(dim=1).tolist() == [23, 20, 17], "0.3 of ten rows"


@pytest.mark.parametrize("name", [name for name, operation in OPERATIONS.items() if operation])
def test_at_magnitude_zero_nothing_happens_and_values_never_leave_their_range(name: str) -> None:
    x = pictures(20)
    if name not in ("autocontrast", "equalize"):
        assert torch.equal(applied(name, x, 0.0), x)
    operation = OPERATIONS[name]
    assert operation is not None
    for strength in (-1.0, 1.0):
        found = operation(x.float(), torch.full((20, 1, 1, 1), strength))
        assert found.shape == x.shape and found.isfinite().all()
        assert found.min() > -1020 and found.max() < 1280, "before the values are cut to 0 and 255"


@pytest.mark.parametrize("name", [name for name, operation in OPERATIONS.items() if operation])
def test_no_operation_mirrors(name: str) -> None:
    """A mirrored digit is not the same digit. A picture that is brighter on the left stays so."""
    ramp = torch.linspace(200, 20, 12).to(torch.uint8).view(1, 1, 12, 1).repeat(1, 12, 1, 3)
    for strength in (-0.5, 0.5):
        found = applied(name, ramp, strength).float()[:, 3:9]
        left, right = found[:, :, 3:6].mean(), found[:, :, 6:9].mean()
        assert left > right or name == "solarize", "solarize inverts the brightest values"


def test_each_image_draws_its_own_operation_and_sign() -> None:
    """Of 2,000 equal images, each is what one of the operations makes of it; about as many for each."""
    image = pictures(3)[2:]
    outcomes: dict[bytes, str] = {}
    for name, operation in OPERATIONS.items():
        for sign in (-1, 1):
            found = image if operation is None else applied(name, image, 0.6 * sign)
            outcomes.setdefault(found.numpy().tobytes(), name if name not in SIGNED else f"{sign} {name}")
    assert len(outcomes) == len(OPERATIONS) + len(SIGNED)
    found = rand_augment(image.repeat(2000, 1, 1, 1), 1, 6.0, generator(0, "policy"))
    counts = Counter(outcomes[each.numpy().tobytes()] for each in found)
    assert counts.keys() == set(outcomes.values())
    for name, count in counts.items():
        expected = 2000 / len(OPERATIONS) / (2 if " " in name else 1)
        assert abs(count - expected) < 5 * expected**0.5, name


def test_draws_come_from_the_generator_and_none_is_taken_when_off() -> None:
    x, draws = pictures(64), generator(0, "policy")
    before = draws.get_state()
    assert rand_augment(x, 0, 5.0, draws) is x and torch.equal(draws.get_state(), before)
    first = rand_augment(x, 2, 5.0, draws)
    draws.set_state(before)
    torch.manual_seed(1)
    assert torch.equal(rand_augment(x, 2, 5.0, draws), first)
    assert not torch.equal(rand_augment(x, 2, 5.0, draws), first)
    assert first.dtype == torch.uint8 and torch.equal(x, pictures(64)), "the images themselves stay"


def test_a_single_pixel_and_many_channels_are_images_too() -> None:
    for shape in ((4, 1, 1, 1), (4, 2, 5, 7)):
        x = torch.randint(0, 256, shape, generator=generator(0, "odd"), dtype=torch.uint8)
        found = rand_augment(random_crop(x, 1, generator(0, "crop")), 8, 10.0, generator(0, "policy"))
        assert found.shape == x.shape
