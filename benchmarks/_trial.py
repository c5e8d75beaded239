"""One run of `python -m benchmarks.stability`: what prepare, search and retrain do, at a small size, in memory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from stages.images.sources import SPLITS, read_source

from benchmarks import _machine
from benchmarks._collapse import collapsed, plain_edges
from models.images.batches import BatchStream, Preprocess, Split, batches
from models.images.genotype import to_json
from models.images.retrain import TrainConfig, train
from models.images.spaces import search_space
from models.images.task import ImageTask
from models.search.program import SearchConfig, SearchResult, search
from models.training.events import Event, Notice
from models.training.seeds import generator
from stages import prepare, retrain
from stages.images.data import EVALUATION_BATCH, Data, device
from stages.params import DataParams, Params
from stages.plumbing.checkpoint import key
from stages.plumbing.files import sha256_of
from stages.search import EARLY_STOPPING, STRATEGIES, loaders, read_benchmark

Run = Mapping[str, Any]  # what one search gave, as in the JSON lines

CURVES = (  # columns of the history that are kept; entropy_ and skip_connects_ of every cell type too
    "valid_accuracy",
    "hessian_eigenvalue",
    "tabulated_accuracy",
    "radius",
    "movement",
    "bandwidth",
    "effective_sample_size",
    "kernel_spread",
)


@dataclass(frozen=True)
class Job:
    """One search and what follows: picklable, for it is done in another process."""

    case: str
    params: Params
    crop: bool
    retrained: bool

    @property
    def seed(self) -> int:
        return self.params.search.seed

    @property
    def key(self) -> str:
        """The hash of all the result depends on."""
        table = self.params.search.benchmark_table
        inputs = {
            "crop": str(self.crop),
            "retrained": str(self.retrained),
            "table": "" if table is None else sha256_of(Path(table).expanduser()),
            "code": sha256_of(*(Path(file) for file in (__file__, prepare.__file__, retrain.__file__))),
        }
        sections = self.params.model_dump(include={"data", "search", "retrain"})
        return key("search", sections, inputs)


@dataclass(frozen=True)
class Uncropped(Data):
    """The same images without the random crop: to see whether it matters."""

    def preprocess(self, *, cutout: int, device: torch.device) -> Preprocess:
        return replace(super().preprocess(cutout=cutout, device=device), padding=0)


def read(params: DataParams, *, crop: bool = True) -> Data:
    """What the stage prepare would have written, in memory."""
    source = read_source(params.name, Path(params.root).expanduser(), params.image_size)
    splits = prepare.split(dict(source.splits), params, list(source.classes))
    about = prepare.describe(splits, list(source.classes), params, "")
    train_split, val, test = (Split(*map(torch.from_numpy, splits[name])) for name in SPLITS)
    return (Data if crop else Uncropped)(train_split, val, test, about)


def carry_out(job: Job) -> Run:
    """Search, discretization gap, eigenvalue, and the accuracy of the genotype."""
    start = time.perf_counter()
    data, config = read(job.params.data, crop=job.crop), job.params.search
    space = search_space(config.space, exclude_none=config.exclude_none)
    notices: list[str] = []

    def on_event(event: Event) -> None:
        if isinstance(event, Notice):
            notices.append(event.message)

    result = search(
        ImageTask(space, data.image_shape, len(data.classes), config.seed, stages=config.stages),
        STRATEGIES[config.strategy](space, config),
        loaders(data, config),
        SearchConfig(
            channels=config.channels,
            cells=config.cells,
            epochs=config.epochs,
            curvature_images=config.curvature_images,
            compile=config.compile,
            **config.weights.model_dump(),
        ),
        early_stopping=EARLY_STOPPING[config.early_stopping.watch](config),
        benchmark=read_benchmark(config)[0],
        device=device(),
        on_event=on_event,
    )
    searched = time.perf_counter() - start
    return {
        "key": job.key,
        "case": job.case,
        "seed": job.seed,
        **result.summary,
        "accuracy": accuracy(job, data, result),
        "plain_edges": plain_edges(result.genotype),
        "collapsed": collapsed(result.genotype),
        "genotype": to_json(result.genotype),
        "notices": notices,
        "search_seconds": round(searched, 1),
        "seconds": round(time.perf_counter() - start, 1),
        "date": _machine.today(),
        "curves": curves(result),
    }


def accuracy(job: Job, data: Data, result: SearchResult) -> float | None:
    """In [0, 1]: what the table says of the genotype, else its test accuracy after a short training, where wanted."""
    if (tabulated := result.history[-1].get("tabulated_accuracy")) is not None:
        return tabulated / 100
    if not job.retrained:
        return None
    config = job.params.retrain
    network = retrain.build_network(data, result.genotype, config, auxiliary=config.auxiliary_weight > 0)
    preprocess = data.preprocess(cutout=config.cutout, device=device())
    trained = train(
        network,
        BatchStream(data.train, config.batch_size, preprocess, generator(config.seed, "train batches")),
        lambda: batches(data.val, EVALUATION_BATCH, preprocess),
        TrainConfig(**config.model_dump(include=set(TrainConfig.__dataclass_fields__))),
        generator(config.seed, "drop path"),
        device=device(),
    )
    confusion = retrain.test_confusion(network, data)
    return retrain.summarize(trained, network, confusion, data.classes)["test_accuracy"]


def curves(result: SearchResult) -> dict[str, list[float | None]]:
    """Columns of the history, to five digits."""
    kept = [
        name
        for name in result.history[0]
        if name in CURVES or name.startswith(("entropy_", "skip_connects_"))
    ]
    return {name: [_short(row[name]) for row in result.history] for name in kept}


def _short(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
