"""retrain: the found network from scratch; best weights by validation, then one look at the test set."""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torchmetrics.functional.classification import multiclass_confusion_matrix

from models.batches import BatchStream, batches
from models.describe import count_parameters
from models.errors import InvalidInput
from models.evaluate import evaluating
from models.events import EpochEnd, StepEnd
from models.genotype import Genotype, from_json
from models.network import Network
from models.seeds import generator
from models.spaces import search_space
from models.tasks import ImageTask
from models.train import TrainConfig, train
from stages import _pictures
from stages._checkpoint import Checkpoint, key
from stages._data import Data, device, read_data
from stages._files import GENOTYPE, RETRAIN, read_json, replacing, sha256_of, write_json, write_rows
from stages._progress import EpochProgress
from stages._runtime import run
from stages._tracking import stage_run
from stages.errors import UserError
from stages.params import Params, RetrainParams

EVALUATION_BATCH = 256  # images at once where there are no gradients


def main(params: Params) -> None:
    data = read_data()
    config = params.retrain
    genotype = read_genotype(GENOTYPE / "genotype.json")
    inputs = {"data": data.about["sha256"], "genotype": sha256_of(GENOTYPE / "genotype.json")}
    checkpoint = Checkpoint("retrain", key("retrain", config.model_dump(), inputs))
    resume = checkpoint.load()
    network = build_network(data, genotype, config, auxiliary=config.auxiliary_weight > 0)
    preprocess = data.preprocess(cutout=config.cutout, device=device())
    with stage_run("retrain", config.model_dump(), checkpoint.noted().get("run_id")) as tracked:
        tracked.dataset(data.about, params.data.root)
        checkpoint.note(run_id=tracked.id)
        if resume is not None:
            print(f"retrain: resumes after epoch {len(resume['history'])}", flush=True)
            tracked.rows_missing(resume["history"], "train_loss")
        with EpochProgress("retrain", ["train_loss", "valid_accuracy"]) as progress:

            def on_event(event: StepEnd | EpochEnd) -> None:
                if isinstance(event, StepEnd):
                    progress.step(event)
                else:
                    checkpoint.save(event.state())
                    tracked.row(event.row)
                    progress.epoch(event)

            result = train(
                network,
                BatchStream(
                    data.train, config.batch_size, preprocess, generator(config.seed, "train batches")
                ),
                lambda: batches(data.val, EVALUATION_BATCH, preprocess),
                TrainConfig(
                    **config.model_dump(exclude={"seed", "batch_size", "channels", "cells", "cutout"})
                ),
                generator(config.seed, "drop path"),
                device=device(),
                on_event=on_event,
                resume=resume,
            )
        confusion = test_confusion(network, data)
        metrics = summarize(confusion, data.classes)
        metrics["valid_accuracy"] = result.history[result.best_epoch - 1]["valid_accuracy"]
        metrics["best_epoch"] = result.best_epoch
        metrics["params"] = count_parameters(network) - count_parameters(
            network.auxiliary or torch.nn.Identity()
        )
        with replacing(RETRAIN) as folder:
            save_file(inference_weights(result.weights), folder / "weights.safetensors")
            write_rows(folder / "history.csv", result.history)
            write_json(folder / "metrics.json", metrics)
            pairs = [
                {"actual": data.classes[actual], "predicted": data.classes[predicted]}
                for actual, row in enumerate(confusion.tolist())
                for predicted, count in enumerate(row)
                for _ in range(count)
            ]
            write_rows(folder / "confusion.csv", pairs)
            _pictures.confusion(folder / "confusion.png", confusion, data.classes)
            _pictures.curves(folder / "curves.png", result.history, "Retraining")
        tracked.metrics({name: value for name, value in metrics.items() if isinstance(value, (int, float))})
        tracked.metrics({f"class_accuracy/{name}": value for name, value in metrics["class_accuracy"].items() if value is not None})  # fmt: skip
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


def build_network(data: Data, genotype: Genotype, config: RetrainParams, *, auxiliary: bool) -> Network:
    """The network of a genotype for these data, freshly initialized."""
    task = ImageTask(search_space("s5"), data.image_shape, len(data.classes), config.seed)
    return task.network(genotype, channels=config.channels, cells=config.cells, auxiliary=auxiliary)


def inference_weights(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without the auxiliary head's, which has a part in training only."""
    return {
        name: tensor.contiguous() for name, tensor in weights.items() if not name.startswith("auxiliary.")
    }


@torch.no_grad()
def test_confusion(network: Network, data: Data) -> Tensor:
    """The confusion matrix (actual, predicted) of counts on the test set, the only use that is made of it."""
    preprocess = data.preprocess(cutout=0, device=device())
    predicted, actual = [], []
    with evaluating(network):
        for x, labels in batches(data.test, EVALUATION_BATCH, preprocess):
            predicted.append(network(x)[0].argmax(dim=1).cpu())
            actual.append(labels.cpu())
    return multiclass_confusion_matrix(torch.cat(predicted), torch.cat(actual), num_classes=len(data.classes))


def summarize(confusion: Tensor, classes: list[str]) -> dict:
    """Test accuracy, and each class's: the share of its images that are recognized (None where it has no image)."""
    right, images = confusion.diagonal().tolist(), confusion.sum(dim=1).tolist()
    return {
        "test_accuracy": sum(right) / sum(images),
        "class_accuracy": {
            name: hit / count if count else None
            for name, hit, count in zip(classes, right, images, strict=True)
        },
    }


if __name__ == "__main__":
    sys.exit(run("retrain", main))
