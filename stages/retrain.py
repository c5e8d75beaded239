"""retrain: the found network from scratch; best weights by validation, then one look at the test set."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from models.errors import InvalidInput
from models.images.batches import BatchStream, batches
from models.images.evaluate import evaluating
from models.images.families import FoundNetwork
from models.images.genotype import from_json
from models.images.retrain import TrainConfig, TrainResult, train
from models.images.spaces import search_space
from models.images.task import ImageTask
from models.search.genotype import Genotype
from models.training.distributed import rank
from models.training.seeds import generator
from stages.errors import UserError
from stages.images import pictures
from stages.images.data import EVALUATION_BATCH, Data, device, read_data
from stages.params import Params, RetrainParams
from stages.plumbing.checkpoint import Checkpoint, key
from stages.plumbing.devices import on_devices
from stages.plumbing.files import GENOTYPE, RETRAIN, read_json, replacing, sha256_of, write_json, write_rows
from stages.plumbing.progress import reporting
from stages.plumbing.runtime import run
from stages.plumbing.tracking import stage_run


@on_devices("retrain")
def main(params: Params) -> None:
    data = read_data()
    config = params.retrain
    genotype = read_genotype(GENOTYPE / "genotype.json")
    inputs = {"data": data.about["sha256"], "genotype": sha256_of(GENOTYPE / "genotype.json")}
    settings = {**config.model_dump(), "train": params.train.model_dump()}
    checkpoint = Checkpoint("retrain", key("retrain", settings, inputs))
    resume = checkpoint.load()
    network = build_network(data, genotype, config, auxiliary=config.auxiliary_weight > 0)
    preprocess = data.preprocess(cutout=config.cutout, device=device())
    training = partial(
        train,
        network,
        BatchStream(data.train, config.batch_size, preprocess, generator(config.seed, "train batches")),
        lambda: batches(data.val, EVALUATION_BATCH, preprocess),
        TrainConfig(**config.model_dump(include=set(TrainConfig.__dataclass_fields__))),
        generator(config.seed, "drop path"),
        device=device(),
        resume=resume,
    )
    if rank() > 0:  # the first process keeps what they all find
        training()
        return
    with stage_run("retrain", settings, checkpoint.noted().get("run_id")) as tracked:
        tracked.dataset(data.about, params.data.root)
        with reporting("retrain", checkpoint, tracked, resume) as on_event:
            result = training(on_event=on_event)
        confusion = test_confusion(network, data)
        metrics = summarize(result, network, confusion, data.classes)
        write(result, confusion, metrics, data.classes)
        tracked.metrics({name: value for name, value in metrics.items() if isinstance(value, (int, float))})
        tracked.metrics(class_metrics(metrics["class_accuracy"]))
        tracked.artifacts(RETRAIN)
    checkpoint.remove()
    print(
        f"retrain: test accuracy {metrics['test_accuracy']:.4f} with the weights of epoch {result.best_epoch}"
    )


def read_genotype(path: Path) -> Genotype:
    """The genotype in a file. Raises UserError when no network can have it."""
    try:
        return from_json(read_json(path))
    except InvalidInput as error:
        raise UserError(f"{path}: {error}") from None


def build_network(data: Data, genotype: Genotype, config: RetrainParams, *, auxiliary: bool) -> FoundNetwork:
    """The network of a genotype for these data, freshly initialized."""
    space = search_space("nasbench201" if genotype.space == "nasbench201" else "s5")
    task = ImageTask(space, data.image_shape, len(data.classes), config.seed, stages=config.stages)
    return task.network(genotype, channels=config.channels, cells=config.cells, auxiliary=auxiliary)


@torch.no_grad()
def test_confusion(network: FoundNetwork, data: Data) -> Tensor:
    """The confusion matrix (actual, predicted) of counts on the test set, the only use that is made of it."""
    # Three seconds to import, which the processes of the other devices need not wait for.
    from torchmetrics.functional.classification import multiclass_confusion_matrix

    preprocess = data.preprocess(cutout=0, device=device())
    predicted, actual = [], []
    with evaluating(network):
        for x, labels in batches(data.test, EVALUATION_BATCH, preprocess):
            predicted.append(network(x)[0].argmax(dim=1).cpu())
            actual.append(labels.cpu())
    return multiclass_confusion_matrix(torch.cat(predicted), torch.cat(actual), num_classes=len(data.classes))


def summarize(
    result: TrainResult, network: FoundNetwork, confusion: Tensor, classes: list[str]
) -> dict[str, Any]:
    """The content of metrics.json; each class's accuracy is the share of its images recognized, None where it has none."""
    weights = {name: weight for name, weight in network.named_parameters() if not _is_auxiliary(name)}
    right, images = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    return {
        "test_accuracy": sum(right) / sum(images),
        "class_accuracy": {
            name: hit / count if count else None
            for name, hit, count in zip(classes, right, images, strict=True)
        },
        "valid_accuracy": result.history[result.best_epoch - 1]["valid_accuracy"],
        "best_epoch": result.best_epoch,
        "params": sum(weight.numel() for weight in weights.values()),
    }


def class_metrics(accuracies: Mapping[str, float | None]) -> dict[str, float]:
    """Accuracies under names that MLflow takes, whatever the classes are called; numbered, so that none meet."""
    return {
        f"class_accuracy/{number} {re.sub(r'[^a-zA-Z0-9_. -]', '_', name)}": accuracy
        for number, (name, accuracy) in enumerate(accuracies.items())
        if accuracy is not None
    }


def write(result: TrainResult, confusion: Tensor, metrics: Mapping[str, Any], classes: list[str]) -> None:
    """The artifacts: weights, history, metrics, confusion matrix and pictures."""
    with replacing(RETRAIN) as folder:
        kept = {
            name: tensor.contiguous() for name, tensor in result.weights.items() if not _is_auxiliary(name)
        }
        save_file(kept, folder / "weights.safetensors")
        write_rows(folder / "history.csv", result.history)
        write_json(folder / "metrics.json", metrics)
        pairs = [
            {"actual": classes[actual], "predicted": classes[predicted]}
            for actual, row in enumerate(confusion.tolist())
            for predicted, count in enumerate(row)
            for _ in range(count)
        ]
        write_rows(folder / "confusion.csv", pairs)
        pictures.confusion(folder / "confusion.png", confusion, classes)
        pictures.curves(folder / "curves.png", result.history, "Retraining")


def _is_auxiliary(name: str) -> bool:
    """Whether a weight is the auxiliary head's, which has a part in training only."""
    return name.startswith("auxiliary.")


if __name__ == "__main__":
    sys.exit(run("retrain", main))
