"""Trains one network of a comparison with one seed: ``python -m stages.compare.train KEY``.

The network is trained as the stage retrain does, on one device, and tested with its weights of the best epoch by
validation. KEY hashes all that the result depends on. A result that is there is never made again, and an interrupted
training continues after its last epoch, with the same result to the bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file

from models.training.events import EpochEnd, Event, Listener
from models.training.loop import run as train
from models.training.precision import resolved
from stages import tasks
from stages.compare.jobs import ANSWERS, RESULT, STAGE, TRAININGS, Job
from stages.errors import UserError
from stages.evaluation import Evaluation, Metric
from stages.genotypes import read_genotype
from stages.plumbing import checkpoint as checkpoints
from stages.plumbing.checkpoint import Checkpoint
from stages.plumbing.files import replacing, write_rows
from stages.plumbing.progress import reporting
from stages.plumbing.runtime import run, settled
from stages.plumbing.tracking import PARENT, stage_run
from stages.records import Record, balanced_score, with_scores

if TYPE_CHECKING:
    from models.training.loop import Program
    from models.training.trained import Trained
    from stages.params import Params


class TrainingResult(Record):
    """result.json: how one training ended."""

    network: dict[str, Any]
    seed: int
    test_score: float
    valid_score: float
    valid_balanced_score: float | None = None
    best_epoch: int
    params: int
    minutes: float  # of the clock, interruptions left out
    run_id: str  # of MLflow

    def validated(self, metric: Metric) -> float:
        """The validation score by a form of the metric."""
        score = self.valid_score if metric.balances is None else self.valid_balanced_score
        assert score is not None, "the task's metric has a balanced form"
        return score


def main(params: Params, key: str) -> None:
    job, metric = Job.read(key), tasks.metric(params)
    if training_key(params, job.network, job.seed) != key:
        raise UserError(
            "params.yaml, the data or the code has changed since the comparison began; start it again"
        )
    params, settings = seeded(params, job.seed), settings_of(params, job.seed)
    checkpoint = Checkpoint(STAGE, key)
    resume = checkpoint.load()
    program = program_of(params, job.network)
    settled()
    label, notes = f"{job.name}, seed {job.seed}", checkpoint.noted()
    with stage_run(
        "compare/train", settings, notes.get("run_id"), name=label, parent=os.environ.get(PARENT)
    ) as tracked:
        tracked.tags(network=json.dumps(job.network), training=key)
        with reporting(f"{STAGE}/{key}", checkpoint, tracked, resume, metric, label=label) as on_event:
            clock = _Clock(checkpoint, on_event, float(notes.get("seconds", 0)) if resume else 0.0)
            trained = train(program, on_event=clock, resume=resume)
        with replacing(TRAININGS / key) as folder:
            result = write(folder, trained, params, job, clock.seconds() / 60, tracked.id)
        tracked.metrics(result.content(metric))
        tracked.artifacts(TRAININGS / key)
    checkpoint.remove()
    print(f"compare: {label}: test {metric.words} {metric.digits(result.test_score)}")


def write(
    folder: Path, trained: Trained, params: Params, job: Job, minutes: float, run_id: str
) -> TrainingResult:
    """Writes the result, the answers to the test cases, and the history. The weights are not kept."""
    metric, weights = tasks.metric(params), folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in trained.weights.items()}, weights)
    evaluation = evaluated(params, job.network, weights)
    weights.unlink()
    evaluation.save(folder / ANSWERS)
    best = trained.history[trained.best_epoch - 1]
    known = {
        "network": job.network,
        "seed": job.seed,
        "test_score": evaluation.score,
        "valid_score": best[f"valid_{metric.name}"],
        "valid_balanced_score": balanced_score(best, metric),
        "best_epoch": trained.best_epoch,
        "params": int(evaluation.costs["params"]),
        "minutes": minutes,
        "run_id": run_id,
    }
    result = TrainingResult.model_validate(
        {name: value for name, value in known.items() if value is not None}
    )
    write_rows(folder / "history.csv", with_scores(trained.history, metric))
    result.write(folder / RESULT, metric)
    return result


def program_of(params: Params, network: Mapping[str, Any]) -> Program[Trained]:
    """The training of a network; without the task's part ``comparison``, of the found one."""
    part = tasks.comparison(params.task)
    if part is None:
        return tasks.training(params.task).retrain(params, read_genotype(params.task))
    return part.retrain(params, network)


def evaluated(params: Params, network: Mapping[str, Any], weights: Path) -> Evaluation:
    """How a trained network does on the test cases; without the task's part ``comparison``, the found one."""
    part = tasks.comparison(params.task)
    if part is None:
        return tasks.testing(params.task).evaluate_weights(params, weights)
    return part.evaluate(params, network, weights)


def seeded(params: Params, seed: int) -> Params:
    """The settings with another seed of the section retrain."""
    return params.model_copy(update={"retrain": params.retrain.model_copy(update={"seed": seed})})


def settings_of(params: Params, seed: int) -> dict[str, Any]:
    """The settings that a training depends on."""
    train = {"precision": resolved(params.train.precision)}
    return {**seeded(params, seed).retrain.active(), "train": train}


def training_key(params: Params, network: Mapping[str, Any], seed: int) -> str:
    """The hash of all that a training's result depends on."""
    content = json.dumps(network, sort_keys=True).encode()
    inputs = {
        "data": tasks.data(params.task).read_card().sha256,
        "network": hashlib.sha256(content).hexdigest(),
    }
    return checkpoints.key("compare.train", params.task, settings_of(params, seed), inputs)


def result_of(key: str, metric: Metric) -> tuple[TrainingResult, Evaluation]:
    """The result of a training. Raises UserError when it is missing or damaged."""
    folder = TRAININGS / key
    return TrainingResult.read(folder / RESULT, metric), Evaluation.load(folder / ANSWERS)


class _Clock:
    """A listener that adds up the seconds of a training and keeps them beside each checkpoint."""

    def __init__(self, checkpoint: Checkpoint, on_event: Listener, before: float):
        self.checkpoint, self.on_event, self.before = checkpoint, on_event, before
        self.started = time.monotonic()

    def __call__(self, event: Event) -> None:
        self.on_event(event)
        if isinstance(event, EpochEnd):
            self.checkpoint.note(seconds=f"{self.seconds():.3f}")

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.started


if __name__ == "__main__":
    key = sys.argv[1] if len(sys.argv) > 1 else ""
    sys.exit(run(f"{STAGE}/{key}", main, key="the training, as the plan names it"))
