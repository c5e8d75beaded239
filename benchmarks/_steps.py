"""What `python -m benchmarks.bench` times: one step of a search on random images, in several implementations.

A variant is "IMPLEMENTATION/METHOD":

    fast/*           the step of ``models.search.program.Search``, put together as the stage search does
    compiled/*       the same with ``search.compile``
    probe-N/*        the same with the samples of the mean shift scored on every N-th image (``probe_images``)
    plain/*          the same search with the obvious code of benchmarks/plain.py
    fair/*           plain/*, but channels last, and its architecture step computes no gradients of the weights
    */darts          an architecture step, then a weight step
    */ms-darts       the same with the mean shift between the two
    */single-level   both steps on one batch and in one pass; two-pass/single-level makes a pass for each

All variants of a size see the same batches and begin with the same weights and the same alpha.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks._correspondence import copy_weights
from benchmarks.plain import PlainSupernet, TwoPasses, mean_shift_mix
from models.images.batches import Batch, BatchStream, Preprocess, Split, batches
from models.images.search import SupernetConfig, image_search
from models.images.spaces import search_space
from models.images.supernet import Supernet
from models.images.task import ImageTask
from models.search.gradients import Joint
from models.search.program import Loaders, Search, SearchConfig
from models.search.smoothing import MeanShift, MeanShiftConfig
from models.search.spaces import SearchSpace
from models.search.strategies import AlphaConfig, Alternating, sigmoid
from models.training.precision import computing_in, in_float32
from models.training.seeds import generator

Step = Callable[[], None]
Size = Mapping[str, int]  # batch, channels, cells, side (in pixels), channels_in

CLASSES = 10
BATCHES = 4  # of each stream, before its images come again
WEIGHTS = SearchConfig(epochs=1, curvature_cases=0)
ALPHA = AlphaConfig(warmup_epochs=0)
MEAN_SHIFT = MeanShiftConfig(samples=3, iterations=2, bandwidth=1.0, radius_start=0.1)


def build_step(name: str, size: Size, device: torch.device, precision: torch.dtype = torch.float32) -> Step:
    """A function that takes one step of the variant."""
    search = search_of(name, size, device, precision)
    if name.startswith(("plain/", "fair/")):
        return PlainSearch(search, size, fair=name.startswith("fair/")).step
    search.start_epoch(0)
    return search.step


def search_of(name: str, size: Size, device: torch.device, precision: torch.dtype = torch.float32) -> Search:
    """The search of a variant. Of a plain or fair variant: the one that ``PlainSearch`` repeats."""
    implementation, method = name.split("/")
    task = ImageTask(search_space("s5"), (size["side"], size["side"], size["channels_in"]), CLASSES, seed=0)
    return image_search(
        task,
        _strategy(implementation, method, task.space, device),
        _loaders(size, device, halves=method != "single-level"),
        WEIGHTS,
        SupernetConfig(size["channels"], size["cells"], compile=implementation == "compiled"),
        precision=precision,
        device=device,
    )


def _strategy(implementation: str, method: str, space: SearchSpace, device: torch.device) -> Alternating:
    source = generator(0, "alpha")
    if method == "single-level":
        estimator = TwoPasses() if implementation == "two-pass" else Joint()
        return Alternating(space, ALPHA, source, device=device, estimator=estimator, relaxation=sigmoid)
    smoothing = None
    if method == "ms-darts":
        every = int(implementation.removeprefix("probe-")) if implementation.startswith("probe-") else 1
        smoothing = MeanShift(replace(MEAN_SHIFT, probe_every=every), 1, generator(0, "smoothing"))
    return Alternating(space, ALPHA, source, smoothing, device)


def _loaders(size: Size, device: torch.device, *, halves: bool) -> Loaders:
    """Random images, cropped at random as in the stage search: one stream, or one each for weights and alpha."""
    preprocess = Preprocess(
        mean=(0.5,) * size["channels_in"],
        std=(0.25,) * size["channels_in"],
        padding=size["side"] // 8,
        device=device,
    )

    def split(name: str) -> Split:
        source, count = generator(0, f"{name} images"), BATCHES * size["batch"]
        shape = (count, size["side"], size["side"], size["channels_in"])
        return Split(
            torch.randint(256, shape, generator=source, dtype=torch.uint8),
            torch.randint(CLASSES, (count,), generator=source),
        )

    def stream(name: str) -> BatchStream:
        return BatchStream(split(name), size["batch"], preprocess, generator(0, f"{name} batches"))

    train = stream("train")
    return Loaders(
        train,
        stream("architecture") if halves else None,
        valid=lambda: batches(train.split, size["batch"], preprocess),
        calibration=lambda: train.in_order(size["batch"]),
    )


class PlainSearch:
    """The step of a search as the papers have it, one after another, without the parts that ``search`` is made of.

    It begins with the weights and the alpha of ``search`` and takes its batches and settings. The obvious step
    calls ``backward()`` for alpha too, which computes gradients of the weights that nobody reads, and works channels
    first. Neither is part of what models/ should be measured against, so ``fair`` leaves both out.
    """

    def __init__(self, search: Search, size: Size, *, fair: bool = False):
        assert isinstance(search.supernet, Supernet)
        assert isinstance(search.strategy, Alternating)
        self.network = PlainSupernet(
            search.domain.space,
            channels=size["channels"],
            cells=size["cells"],
            classes=CLASSES,
            channels_in=size["channels_in"],
        ).to(search.supernet.classifier.weight)  # its device and type
        copy_weights(search.supernet, self.network)
        self.fair = fair
        self.layout = torch.channels_last if fair else torch.contiguous_format
        self.network.to(memory_format=self.layout)  # pyright: ignore[reportCallIssue]
        self.alphas = {group: rows.requires_grad_() for group, rows in search.strategy.alphas().items()}
        self.precision = search.precision
        self.shifts = search.strategy.smoothing is not None
        self.loaders = search.loaders
        self.adam = torch.optim.Adam(
            self.alphas.values(),
            lr=ALPHA.learning_rate,
            betas=ALPHA.betas,
            weight_decay=ALPHA.weight_decay,
        )
        self.sgd = torch.optim.SGD(
            self.network.parameters(),
            lr=WEIGHTS.learning_rate,
            momentum=WEIGHTS.momentum,
            weight_decay=WEIGHTS.weight_decay,
        )

    def step(self) -> None:
        assert self.loaders.architecture is not None
        x, labels = self._laid_out(next(self.loaders.train))
        self._move_alpha(*self._laid_out(next(self.loaders.architecture)))
        mix = {group: torch.softmax(alpha, dim=-1).detach() for group, alpha in self.alphas.items()}
        if self.shifts:
            with computing_in(self.precision, x.device):
                mix = mean_shift_mix(
                    self.network,
                    x,
                    labels,
                    mix,
                    samples=MEAN_SHIFT.samples,
                    iterations=MEAN_SHIFT.iterations,
                    bandwidth=float(MEAN_SHIFT.bandwidth),
                    radius=MEAN_SHIFT.radius_start,
                )
        self.sgd.zero_grad()
        self._loss(x, labels, mix).backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), WEIGHTS.gradient_clip)
        self.sgd.step()

    def _move_alpha(self, x: Tensor, labels: Tensor) -> None:
        self.adam.zero_grad()
        mix = {group: torch.softmax(alpha, dim=-1) for group, alpha in self.alphas.items()}
        loss = self._loss(x, labels, mix)
        if self.fair:
            gradients = torch.autograd.grad(loss, list(self.alphas.values()))
            for alpha, gradient in zip(self.alphas.values(), gradients, strict=True):
                alpha.grad = gradient
        else:
            loss.backward()
        self.adam.step()

    def _loss(self, x: Tensor, labels: Tensor, mix: Mapping[str, Tensor]) -> Tensor:
        with computing_in(self.precision, x.device):
            logits = self.network(x, mix)
        return F.cross_entropy(in_float32(logits), labels)

    def _laid_out(self, batch: Batch) -> Batch:
        """Not ``contiguous()``, which leaves the strides of images with one channel as they are: channels last."""
        x, labels = batch
        return x.clone(memory_format=self.layout), labels
