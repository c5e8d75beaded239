"""retrain: trains the found network from scratch and tests its weights of the best epoch by validation, once."""

from __future__ import annotations

import sys
from collections.abc import Sequence
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
from stages.records import RetrainMetrics, balanced_score, with_scores

if TYPE_CHECKING:
    from models.training.trained import Trained
    from stages.params import Params


@on_devices("retrain")
def main(params: Params) -> None:
    metric, card = tasks.metric(params), tasks.data(params.task).read_card()
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
            metrics, notices = write(folder, trained, params)
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
    scores = ", ".join(f"{form.words} {form.digits(score)}" for form, score in metrics.tested(metric))
    print(f"retrain: test {scores} with the weights of epoch {metrics.best_epoch}")
    for notice in notices:
        print(f"retrain: notice: {notice}")


def write(folder: Path, trained: Trained, params: Params) -> tuple[RetrainMetrics, Sequence[str]]:
    """Writes the artifacts: weights, history, metrics, and pictures of the training and the test.

    Also returns what a user should know about the test.
    """
    metric, testing = tasks.metric(params), tasks.testing(params.task)
    weights = folder / "weights.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in trained.weights.items()}, weights)
    evaluation = testing.evaluate_weights(params, weights)
    best, scores = trained.history[trained.best_epoch - 1], testing.class_scores(evaluation)
    balanced = metric.balanced
    known = {
        "test_score": evaluation.score,
        "test_balanced_score": balanced and balanced.score(evaluation),
        "class_score": scores and dict(scores),
        "valid_score": best[f"valid_{metric.name}"] or 0.0,
        "valid_balanced_score": balanced_score(best, metric),
        "best_epoch": trained.best_epoch,
        "params": int(evaluation.costs["params"]),
    }
    metrics = RetrainMetrics.model_validate(
        {name: value for name, value in known.items() if value is not None}
    )
    metrics.write(folder / "metrics.json", metric)
    metrics.write_numbers(folder, metric)
    write_rows(folder / "history.csv", with_scores(trained.history, metric))
    pictures.curves(folder / "curves.png", trained.history, "Retraining", metric)
    testing.write_results(folder, evaluation)
    return metrics, testing.notices(evaluation)


if __name__ == "__main__":
    sys.exit(run("retrain", main))
