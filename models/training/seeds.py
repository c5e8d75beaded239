"""Random state is explicit: every consumer has its own generator, derived from the seed and its name."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def derived_seed(seed: int, consumer: str) -> int:
    """A seed in [0, 2**63) for one named consumer, independent of all others."""
    digest = hashlib.sha256(f"{seed}/{consumer}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, consumer: str) -> torch.Generator:
    """A CPU generator for one named consumer. Draws are made on the CPU, so that all devices get the same."""
    return torch.Generator().manual_seed(derived_seed(seed, consumer))


@contextlib.contextmanager
def seeded(seed: int, consumer: str) -> Iterator[None]:
    """Within the block, PyTorch's global random state, which initializes weights, is that of the consumer."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(derived_seed(seed, consumer))
        yield
