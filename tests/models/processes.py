"""Trainings small enough to repeat on several processes, and the program that each of these processes runs.

``python -m tests.models.processes RANK PROCESSES FOLDER`` writes what ``CASES`` find to FOLDER/RANK.json.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist

from models.errors import InvalidInput
from models.images.balance import WithBalancedAccuracy, balanced_weights
from models.images.batches import Preprocess, Split, batches
from models.images.genotype import from_json
from models.images.mixing import mixing
from models.images.retrain import Classification, RetrainConfig, Retraining
from models.images.spaces import search_space
from models.images.task import ImageTask
from models.search.early_stopping import EigenvalueRise
from models.search.genotype import Genotype
from models.training.events import EpochEnd, Event, Row, State
from models.training.loop import DATA_WAIT, run
from models.training.seeds import generator
from tests.models.tiny import (
    CLASSES,
    PREPROCESS,
    DefaultTypeStream,
    config,
    in_default_type,
    search,
    split,
    stacked,
)

Found = dict[str, Any]  # history, weights and the like, as JSON holds them


class Interrupted(Exception):
    pass


def resumed(run: Callable[..., Found]) -> Found:
    """A run that is interrupted after its first epoch and then resumed."""
    kept: list[State] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd):
            kept.append(copied(event.state()))
            raise Interrupted

    with contextlib.suppress(Interrupted):
        run(on_event=interrupt)
    return run(resume=kept[0])


def searched(space: str, name: str, **arguments: Any) -> Found:
    """Two epochs of a search."""
    found = search(name, space, config(curvature_cases=4), **arguments)
    return {
        "history": repeatable(found.history),
        "summary": found.summary,
        "weights": {name: weight.tolist() for name, weight in found.weights.items()},
        "alphas": {name: alphas.tolist() for name, alphas in stacked(found).items()},
    }


def trained(
    genotype: Genotype,
    side: int,
    *,
    auxiliary: bool,
    weighted: bool = False,
    modern: bool = False,
    precision: torch.dtype = torch.float32,
    **arguments: Any,
) -> Found:
    """Two epochs of training a found network, with everything that draws random numbers.

    ``weighted``: with class weights, and with the balanced accuracy in the history. ``modern``: with
    everything that a recipe may ask for.
    """
    stages = 2 if genotype.space == "nasbench201" else 3
    space = search_space("nasbench201" if genotype.space == "nasbench201" else "s5")
    tiny = ImageTask(space, (side, side, 3), CLASSES, seed=0, stages=stages)
    network = tiny.network(genotype, channels=2, cells=3, auxiliary=auxiliary).to(torch.get_default_dtype())
    preprocess = Preprocess((0.5,) * 3, (0.25,) * 3, padding=1, mirror=True, cutout=3)
    config = RetrainConfig(epochs=2, learning_rate=0.1, drop_path=0.5, label_smoothing=0.1)
    if modern:
        preprocess = replace(preprocess, random_erasing=0.5, randaugment=2, randaugment_magnitude=5.0)
        config = replace(config, warmup_epochs=1, nesterov=True, ema_decay=0.6)
    plain = Classification()
    data, held_out = enlarged(split(13, 1), side), enlarged(split(5, 2), side)
    program = Retraining(
        network,
        DefaultTypeStream(data, 4, preprocess, generator(0, "train")),
        lambda: map(in_default_type, batches(held_out, 2, preprocess)),
        config,
        generator(0, "drop path"),
        class_weights=balanced_weights(data.labels, CLASSES) if weighted else None,
        scoring=WithBalancedAccuracy(plain, balanced_weights(held_out.labels, CLASSES))
        if weighted
        else plain,
        precision=precision,
        mixing=mixing(0.5, 1.0, 0.8, generator(0, "mixing")) if modern else None,
        calibration=lambda: map(in_default_type, batches(data, 4, preprocess, torch.arange(8))),
    )
    found = run(program, **arguments)
    weights = {name: weight.tolist() for name, weight in found.weights.items()}
    return {"history": repeatable(found.history), "weights": weights, "best_epoch": found.best_epoch}


def repeatable(history: Sequence[Row]) -> list[Row]:
    """The history without its column of time, in which two runs of one training differ."""
    return [{name: value for name, value in row.items() if name != DATA_WAIT} for row in history]


def enlarged(of: Split, side: int) -> Split:
    times = side // of.images.shape[1]
    return Split(of.images.repeat_interleave(times, 1).repeat_interleave(times, 2), of.labels)


def copied(state: Any) -> Any:
    """A copy, as if the state had been written to a file and read back."""
    if isinstance(state, torch.Tensor):
        return state.detach().clone()
    if isinstance(state, Mapping):
        return {key: copied(value) for key, value in state.items()}
    return [copied(value) for value in state] if isinstance(state, list | tuple) else state


_DARTS = {
    group: [[op, source] for source in (0, 1, 1, 2, 2, 3, 3, 4)]
    for group, op in (("normal", "sep_conv_3x3"), ("reduce", "dil_conv_5x5"))
}
DARTS = from_json({"space": "darts", **_DARTS, "normal_concat": [2, 3, 4, 5], "reduce_concat": [2, 3, 4, 5]})
# Node 1 leads nowhere, so the convolution before it never gets a gradient.
BENCHMARK = from_json(
    {
        "space": "nasbench201",
        "arch_str": "|nor_conv_1x1~0|+|nor_conv_3x3~0|none~1|+|avg_pool_3x3~0|none~1|nor_conv_3x3~2|",
    }
)

CASES: Mapping[str, Callable[..., Found]] = {
    "darts": partial(searched, "s2", "darts"),
    "ms-darts": partial(searched, "s4", "ms-darts"),  # s4: noise
    "darts-2nd": partial(searched, "nasbench201", "darts-2nd"),
    "sdarts-adv": partial(searched, "nasbench201", "sdarts-adv", early_stopping=EigenvalueRise()),
    "single-level": partial(searched, "nasbench201", "single-level-sigmoid"),
    "retrain darts": partial(trained, DARTS, 32, auxiliary=True),
    "retrain nasbench201": partial(trained, BENCHMARK, 8, auxiliary=False),
    "retrain weighted": partial(trained, BENCHMARK, 8, auxiliary=False, weighted=True),
    "retrain modern": partial(trained, BENCHMARK, 8, auxiliary=False, weighted=True, modern=True),
}
IN_BFLOAT16: Mapping[str, Callable[..., Found]] = {
    "ms-darts": partial(searched, "s4", "ms-darts", precision=torch.bfloat16),
    "retrain darts": partial(trained, DARTS, 32, auxiliary=True, precision=torch.bfloat16),
    "retrain modern": partial(trained, DARTS, 32, auxiliary=True, modern=True, precision=torch.bfloat16),
}
RESUMED = ("ms-darts", "retrain nasbench201", "retrain modern")


def uneven() -> str:
    """The error that a batch of three causes."""
    try:
        DefaultTypeStream(split(8, 1), 3, PREPROCESS, generator(0, "train"))
    except InvalidInput as error:
        return str(error)
    return "nothing"


def main(rank: int, processes: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=processes)
    found = {name: run() for name, run in CASES.items()}
    found |= {f"{name}, resumed": resumed(CASES[name]) for name in RESUMED}
    torch.set_default_dtype(torch.float32)
    found |= {f"{name}, bfloat16": run() for name, run in IN_BFLOAT16.items()}
    (folder / f"{rank}.json").write_text(json.dumps({**found, "uneven": uneven()}))
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
