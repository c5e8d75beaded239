"""retrain: trains the found network from scratch and tests its weights of the best epoch by validation, once."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from models.training.distributed import rank
from models.training.loop import run as train
from models.training.precision import resolved
from stages import pictures, tasks
from stages.genotypes import read_genotype
from stages.plumbing.checkpoint import Checkpoint, key
from stages.plumbing.devices import on_devices
from stages.plumbing.files import GENOTYPE_JSON, RETRAIN, replacing, sha256_of, write_rows
from stages.plumbing.progress import reporting
from stages.plumbing.runtime import run, settled
from stages.plumbing.tracking import stage_run
from stages.records import RetrainMetrics, with_scores

if TYPE_CHECKING:
    from models.training.trained import Trained
    from stages.params import Params


@on_devices("retrain")
def main(params: Params) -> None:
    metric, card = tasks.metric(params.task), tasks.data(params.task).read_card()
    genotype = read_genotype(params.task)
    precision = resolved(params.train.precision)
    settings = {**params.retrain.active(), "train": {**params.train.active(), "precision": precision}}
    inputs = {"data": card.sha256, "genotype": sha256_of(GENOTYPE_JSON)}
    checkpoint = Checkpoint("retrain", key("retrain", params.task, settings, inputs))
    resume = checkpoint.load()
    program = tasks.training(params.task).retrain(params, genotype)
    settled()
    if rank() > 0:  # all processes find the same; the first one saves it
        train(program, resume=resume)
        return
    with stage_run("retrain", settings, checkpoint.noted().get("run_id")) as tracked:
        tracked.dataset(card, params.data.root)
        with reporting("retrain", checkpoint, tracked, resume, metric) as on_event:
            trained = train(program, on_event=on_event, resume=resume)
        with replacing(RETRAIN) as folder:
            metrics = write(folder, trained, params)
        content = metrics.content(metric)
        if (
            metrics.class_score is not None
        ):  # numbered, because MLflow takes some different names for the same
            content[f"class_{metric.name}"] = {
                f"{number} {name}": score for number, (name, score) in enumerate(metrics.class_score.items())
            }
        tracked.metrics(content)
        tracked.artifacts(RETRAIN)
    checkpoint.remove()
    print(
        f"retrain: test {metric.name} {metric.digits(metrics.test_score)} with the weights of epoch"
        f" {metrics.best_epoch}"
    )


def write(folder: Path, trained: Trained, params: Params) -> RetrainMetrics:
    """Writes the artifacts: weights, history, metrics, and pictures of the training and the test."""
    metric, testing = tasks.metric(params.task), tasks.testing(params.task)
    weights = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in trained.weights.items()}, weights)
    evaluation = testing.evaluate_weights(params, weights)
    metrics = RetrainMetrics(
        test_score=evaluation.score,
        valid_score=trained.history[trained.best_epoch - 1][f"valid_{metric.name}"] or 0.0,
        best_epoch=trained.best_epoch,
        params=int(evaluation.costs["params"]),
        **({} if (scores := testing.class_scores(evaluation)) is None else {"class_score": dict(scores)}),
    )
    metrics.write(folder / "metrics.json", metric)
    write_rows(folder / "history.csv", with_scores(trained.history, metric))
    pictures.curves(folder / "curves.png", trained.history, "Retraining", metric)
    testing.write_results(folder, evaluation)
    return metrics


if __name__ == "__main__":
    sys.exit(run("retrain", main))
