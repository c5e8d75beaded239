"""search: the architecture parameters that differentiable search finds for the prepared images."""

from __future__ import annotations

import sys
from collections.abc import Callable

import torch
from safetensors.torch import save_file

from models.batches import BatchStream, batches
from models.events import EpochEnd, StepEnd
from models.search import Loaders, SearchConfig, search
from models.seeds import generator
from models.spaces import search_space
from models.strategies import AlphaConfig, Alternating, MeanShift, MeanShiftConfig, Smoothing, Strategy
from models.tasks import ImageTask
from stages import _pictures
from stages._checkpoint import Checkpoint, key
from stages._data import Data, device, read_data
from stages._files import SEARCH, replacing, write_json, write_rows
from stages._progress import EpochProgress
from stages._runtime import run
from stages._tracking import stage_run
from stages.errors import UserError
from stages.params import Params, SearchParams

EVALUATION_BATCH = 256  # images at once where there are no gradients


def _mean_shift(params: SearchParams) -> Smoothing:
    config = MeanShiftConfig(**params.mean_shift.model_dump())
    return MeanShift(config, params.epochs, generator(params.seed, "mean shift"))


# The one place where the name of a strategy becomes what replaces the mix before the weight step.
SMOOTHINGS: dict[str, Callable[[SearchParams], Smoothing | None]] = {
    "darts": lambda _: None,
    "ms-darts": _mean_shift,
}


def main(params: Params) -> None:
    data = read_data()
    config = params.search
    checkpoint = Checkpoint("search", key("search", config.model_dump(), {"data": data.about["sha256"]}))
    resume = checkpoint.load()
    space = search_space(config.space)
    task = ImageTask(space, data.image_shape, len(data.classes), config.seed)
    with stage_run("search", config.model_dump(), checkpoint.noted().get("run_id")) as tracked:
        tracked.dataset(data.about, params.data.root)
        checkpoint.note(run_id=tracked.id)
        if resume is not None:
            print(f"search: resumes after epoch {len(resume['history'])}", flush=True)
            tracked.rows_missing(resume["history"], "train_loss")
        with EpochProgress("search", ["train_loss", "valid_accuracy"]) as progress:

            def on_event(event: StepEnd | EpochEnd) -> None:
                if isinstance(event, StepEnd):
                    progress.step(event)
                else:
                    checkpoint.save(event.state())
                    tracked.row(event.row)
                    progress.epoch(event)

            result = search(
                task,
                strategy(params),
                loaders(data, config),
                SearchConfig(
                    channels=config.channels,
                    cells=config.cells,
                    epochs=config.epochs,
                    **config.weights.model_dump(),
                ),
                device=device(),
                on_event=on_event,
                resume=resume,
            )
        with replacing(SEARCH) as folder:
            save_file(result.alphas, folder / "alphas.safetensors", {"space": config.space})
            save_file(result.weights, folder / "supernet.safetensors")
            write_rows(folder / "history.csv", result.history)
            best = max(result.history, key=lambda row: row["valid_accuracy"] or 0.0)
            summary = {
                **result.summary,
                "best_epoch": best["epoch"],
                "best_valid_accuracy": best["valid_accuracy"],
                "valid_accuracy": result.history[-1]["valid_accuracy"],
            }
            write_json(folder / "summary.json", summary)
            _pictures.curves(folder / "curves.png", result.history, "Search")
        tracked.metrics(result.summary)
        tracked.artifacts(
            *(SEARCH / name for name in ("alphas.safetensors", "history.csv", "summary.json", "curves.png"))
        )
    checkpoint.remove()
    print(f"search: discretization gap {result.summary['discretization_gap']:.4f}")


def strategy(params: Params) -> Strategy:
    """The strategy that params.yaml names."""
    config = params.search
    return Alternating(
        search_space(config.space),
        AlphaConfig(**config.alpha.model_dump()),
        generator(config.seed, "alpha"),
        SMOOTHINGS[config.strategy](config),
        device(),
    )


def loaders(data: Data, config: SearchParams) -> Loaders:
    """One random half of the training images for the weights, the other for the architecture; val for scores."""
    preprocess = data.preprocess(cutout=cutout_size(data, config), device=device())
    order = torch.randperm(len(data.train), generator=generator(config.seed, "halves"))
    halves = order[: len(order) // 2], order[len(order) // 2 :]
    if len(halves[0]) < 2:
        raise UserError(f"{len(data.train)} training images are too few to search with; add images")
    train, architecture = (
        BatchStream(data.train, config.batch_size, preprocess, generator(config.seed, name), half)
        for name, half in zip(("train batches", "architecture batches"), halves, strict=True)
    )
    return Loaders(
        train,
        architecture,
        valid=lambda: batches(data.val, EVALUATION_BATCH, preprocess),
        calibration=lambda: train.in_order(config.batch_size),
    )


def cutout_size(data: Data, config: SearchParams) -> int:
    """Side in pixels; auto is the published rule: used in the reduced spaces, not in the full one."""
    if config.cutout != "auto":
        return config.cutout
    return 0 if config.space == "s5" else min(data.image_shape[:2]) // 2


if __name__ == "__main__":
    sys.exit(run("search", main))
