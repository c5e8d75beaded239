"""search: the architecture parameters that differentiable search finds for the prepared images."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save_file

from models.images.batches import BatchStream, batches
from models.images.benchmark import Benchmark
from models.images.spaces import search_space
from models.images.task import ImageTask
from models.search.early_stopping import EarlyStopping, EigenvalueRise, SkipConnections
from models.search.gradients import unrolled
from models.search.program import Loaders, SearchConfig, SearchResult, search
from models.search.smoothing import MeanShift, MeanShiftConfig, Perturbation, PerturbationConfig
from models.search.spaces import SearchSpace
from models.search.strategies import AlphaConfig, Alternating, Relaxation, sigmoid, softmax
from models.training.distributed import rank
from models.training.seeds import generator
from stages.errors import UserError
from stages.images import pictures
from stages.images.data import EVALUATION_BATCH, Data, device, read_data
from stages.params import Params, SearchParams
from stages.plumbing.checkpoint import Checkpoint, key
from stages.plumbing.devices import on_devices
from stages.plumbing.files import (
    SEARCH,
    SEARCH_RESULTS,
    read_table,
    replacing,
    sha256_of,
    write_json,
    write_rows,
)
from stages.plumbing.progress import reporting
from stages.plumbing.runtime import run
from stages.plumbing.tracking import stage_run


@on_devices("search")
def main(params: Params) -> None:
    data, config = read_data(), params.search
    table = read_benchmark(config)
    inputs = {"data": data.about["sha256"], "table": table[1]}
    settings = {**config.model_dump(), "train": params.train.model_dump()}
    checkpoint = Checkpoint("search", key("search", settings, inputs))
    resume = checkpoint.load()
    space = search_space(config.space, exclude_none=config.exclude_none)
    task = ImageTask(space, data.image_shape, len(data.classes), config.seed, stages=config.stages)
    searching = partial(
        search,
        task,
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
        benchmark=table[0],
        device=device(),
        resume=resume,
    )
    if rank() > 0:  # the first process keeps what they all find
        searching()
        return
    with stage_run("search", settings, checkpoint.noted().get("run_id")) as tracked:
        tracked.dataset(data.about, params.data.root)
        with reporting("search", checkpoint, tracked, resume) as on_event:
            result = searching(on_event=on_event)
        write(result, config)
        tracked.metrics(result.summary)
        tracked.artifacts(*SEARCH_RESULTS, pictures=sorted(SEARCH.glob("*.png")))
    checkpoint.remove()
    print(f"search: discretization gap {result.summary['discretization_gap']:.4f}")


def write(result: SearchResult, config: SearchParams) -> None:
    """The artifacts: alpha after each epoch, the supernet's weights, the history and the summary."""
    rows = result.history
    best = max(rows, key=lambda row: row["valid_accuracy"] or 0.0)
    summary = {
        **result.summary,
        "epoch": result.epoch,
        "valid_accuracy": rows[result.epoch - 1]["valid_accuracy"],
        "best_epoch": best["epoch"],
        "best_valid_accuracy": best["valid_accuracy"],
    }
    about = {
        "space": config.space,
        "exclude_none": config.exclude_none,
        "relaxation": relaxation_name(config),
    }
    with replacing(SEARCH) as folder:
        # One entry, for safetensors writes several in an order that changes from process to process.
        save_file(result.alphas, folder / "alphas.safetensors", {"search": json.dumps(about)})
        save_file(result.weights, folder / "supernet.safetensors")
        write_rows(folder / "history.csv", rows)
        write_json(folder / "summary.json", summary)
        pictures.curves(folder / "curves.png", rows, "Search")
        pictures.instability(folder / "instability.png", rows)


# Every name in params.yaml becomes an object here, and only here.

RELAXATIONS: dict[str, Relaxation] = {"softmax": softmax, "sigmoid": sigmoid}


def relaxation_name(config: SearchParams) -> str:
    """How the strategy's alpha becomes a mix."""
    return config.single_level.relaxation if config.strategy == "single-level" else "softmax"


def _alternating(space: SearchSpace, config: SearchParams, **arguments) -> Alternating:
    alpha = AlphaConfig(**config.alpha.model_dump())
    return Alternating(space, alpha, generator(config.seed, "alpha"), device=device(), **arguments)


def _perturbation(config: SearchParams, steps: int) -> Perturbation:
    settings = PerturbationConfig(config.perturbation.radius_start, config.perturbation.radius_end, steps)
    return Perturbation(settings, config.epochs, generator(config.seed, "smoothing"))


def _mean_shift(config: SearchParams) -> MeanShift:
    settings = MeanShiftConfig(**config.mean_shift.model_dump())
    return MeanShift(settings, config.epochs, generator(config.seed, "smoothing"))


STRATEGIES: dict[str, Callable[[SearchSpace, SearchParams], Alternating]] = {
    "darts": _alternating,
    "darts-2nd": lambda space, config: _alternating(space, config, gradient=unrolled),
    "sdarts-rs": lambda space, config: _alternating(space, config, smoothing=_perturbation(config, 0)),
    "sdarts-adv": lambda space, config: _alternating(
        space, config, smoothing=_perturbation(config, config.perturbation.steps)
    ),
    "ms-darts": lambda space, config: _alternating(space, config, smoothing=_mean_shift(config)),
    "single-level": lambda space, config: _alternating(
        space, config, simultaneous=True, relaxation=RELAXATIONS[config.single_level.relaxation]
    ),
}

EARLY_STOPPING: dict[str, Callable[[SearchParams], EarlyStopping | None]] = {
    "none": lambda _: None,
    "eigenvalue": lambda config: EigenvalueRise(
        config.early_stopping.window, config.early_stopping.threshold, config.alpha.warmup_epochs
    ),
    "skip_connections": lambda config: SkipConnections(
        config.early_stopping.limit,
        "cell" if config.space == "nasbench201" else "normal",
        config.alpha.warmup_epochs,
    ),
}


def loaders(data: Data, config: SearchParams) -> Loaders:
    """One random half of the training images for the weights, the other for the architecture; val for scores.

    ``search.images`` takes a random part of them first. Single-level search has one stream over all training images.
    """
    preprocess = data.preprocess(cutout=cutout_size(data, config), device=device())
    order = torch.randperm(len(data.train), generator=generator(config.seed, "halves"))[: config.images]
    if len(order) < 4:
        raise UserError(f"{len(order)} training images are too few to search with; add images")

    def stream(name: str, indices: torch.Tensor) -> BatchStream:
        return BatchStream(data.train, config.batch_size, preprocess, generator(config.seed, name), indices)

    single = config.strategy == "single-level"
    half = len(order) // 2
    train = stream("train batches", order if single else order[:half])
    # Data sets may come sorted by class, and the curvature is measured on the first of these.
    val = torch.randperm(len(data.val), generator=generator(config.seed, "validation order"))
    return Loaders(
        train,
        None if single else stream("architecture batches", order[half:]),
        valid=lambda: batches(data.val, EVALUATION_BATCH, preprocess, val),
        calibration=lambda: train.in_order(config.batch_size),
    )


def cutout_size(data: Data, config: SearchParams) -> int:
    """Side in pixels; auto is the published rule: used in the reduced spaces, not in the full one."""
    if config.cutout != "auto":
        return config.cutout
    return min(data.image_shape[:2]) // 2 if config.space in ("s1", "s2", "s3", "s4") else 0


def read_benchmark(config: SearchParams) -> tuple[Benchmark | None, str]:
    """The table of search.benchmark_table and its hash. Raises UserError when it cannot be read."""
    if config.benchmark_table is None:
        return None, ""
    path = Path(config.benchmark_table).expanduser()
    rows = read_table(path, "search.benchmark_table")
    columns = [name for name in rows[0] if "acc" in name] if rows else []
    if not columns or "arch_str" not in rows[0]:
        raise UserError(
            f"{path} needs the column arch_str and one with acc in its name; it has {', '.join(rows[0]) if rows else 'no row'}"
        )
    try:
        return Benchmark({row["arch_str"]: float(row[columns[0]]) for row in rows}), sha256_of(path)
    except ValueError as error:
        raise UserError(
            f"{path}: column {columns[0]} holds something that is no number ({error}); correct it"
        ) from None


if __name__ == "__main__":
    sys.exit(run("search", main))
