"""The retraining of sequences: side by side, resumable, and with the state carried from chunk to chunk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from models.errors import Diverged
from models.sequences.baselines import DLinear, LSTMCell
from models.sequences.cell import FoundCell
from models.sequences.retrain import Carrying, RetrainConfig, Retraining
from models.sequences.skeleton import Forecaster, LanguageModel, SeriesShape
from models.sequences.streams import TrackStream, Windows, WindowStream, tracks_in_order, windows_in_order
from models.sequences.task import SeriesCriterion, TextCriterion
from models.training.evaluation import evaluate
from models.training.events import EpochEnd, Event, State, silent
from models.training.loop import run
from models.training.seeds import generator, seeded
from models.training.trained import Trained
from tests.models.processes import Interrupted, copied, repeatable
from tests.models.test_sequences_cell import random_genotype

CPU = torch.device("cpu")
SHAPE = SeriesShape(lookback=12, horizon=3, variables=2, targets=1)
TEXT = torch.randint(5, (400,), generator=torch.Generator().manual_seed(0)).cumsum(0).remainder(5).int()
GOLDEN = Path(__file__).resolve().parent.parent / "golden" / "sequences_retrain.json"


def waves(first: int, cases: int) -> Windows:
    time = torch.arange(300, dtype=torch.float64)
    noise = torch.rand(300, generator=generator(0, "noise"), dtype=torch.float64)
    values = torch.stack([10 + torch.sin(time / 3) + 0.1 * noise, time.remainder(7)], dim=1).float()
    return Windows(
        values,
        torch.arange(first, first + cases),
        torch.full((cases, 1), 2.0),
        values.double().mean(dim=0),
        values.double().std(dim=0),
        SHAPE,
    )


def networks(space: str, kind: str) -> dict[str, nn.Module]:
    genotype = random_genotype(space, 3, 5)
    with seeded(0, "networks"):
        if kind == "text":
            return {
                "network": LanguageModel(FoundCell(genotype, 4, 6), 5, 4),
                "lstm": LanguageModel(LSTMCell(4, 5), 5, 4),
            }
        return {
            "network": Forecaster(FoundCell(genotype, 2, 6), SHAPE),
            "lstm": Forecaster(LSTMCell(2, 5), SHAPE),
            "dlinear": DLinear(SHAPE),
        }


def program(
    kind: str, space: str = "two-input", made: Mapping[str, nn.Module] | None = None, rate: float = 0.02
) -> Retraining:
    made, config = made or networks(space, kind), RetrainConfig(epochs=4, learning_rate=rate)
    if kind == "text":
        stream = TrackStream(TEXT[:300], 4, 10, generator(0, "tracks"), count=20)
        return Retraining(
            made,
            stream,
            lambda: tracks_in_order(TEXT[300:], 2, 10, CPU),
            config,
            TextCriterion(torch.ones(5)),
            "bits_per_character",
            carries=True,
        )
    stream = WindowStream(waves(0, 150), 16, generator(0, "windows"), count=64)
    return Retraining(
        made, stream, lambda: windows_in_order(waves(170, 40), 16, CPU), config, SeriesCriterion(), "mase"
    )


METRICS = {"series": "mase", "text": "bits_per_character"}


@pytest.mark.parametrize("kind", METRICS)
def test_each_network_keeps_its_own_best_epoch(kind: str) -> None:
    made = networks("two-input", kind)
    training = program(kind, made=made)
    found, metric = run(training), METRICS[kind]
    for name, network in made.items():
        column = f"valid_{metric}" if name == "network" else f"valid_{metric}_{name}"
        values = [float(row[column] or 0) for row in found.history]
        assert training.arms[name].best.epoch == 1 + values.index(min(values))
        kept = {
            key.removeprefix(f"{name}."): weight
            for key, weight in found.weights.items()
            if key.startswith(f"{name}.")
        }
        network.load_state_dict(kept)
        output = Carrying(network) if kind == "text" else network
        assert evaluate(network, output, training.valid(), training.scoring)[metric] == min(values)
    assert found.best_epoch == training.arms["network"].best.epoch
    assert found.history[-1]["train_loss"] < found.history[0]["train_loss"]  # pyright: ignore


class Overflowing(SeriesCriterion):
    """The loss itself, whose gradient is not finite in the second step."""

    steps = 0

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        loss = super().loss(output, target)
        if output.requires_grad:
            self.steps += 1
        return loss + (0.0 * output.sum()).sqrt() if output.requires_grad and self.steps == 2 else loss


def test_a_step_whose_gradient_is_not_finite_is_left_out_and_counted() -> None:
    training = program("series", made={"network": networks("two-input", "series")["network"]})
    training.criterion = Overflowing()
    steps = training.start_epoch(0)
    network = training.arms["network"].network
    for number in range(1, steps + 1):
        before = {name: weight.clone() for name, weight in network.state_dict().items()}
        training.step()
        moved = any(not torch.equal(before[name], weight) for name, weight in network.state_dict().items())
        assert moved == (number != 2)
    row = training.end_epoch([], silent)
    assert row["steps_left_out"] == 1 and math.isfinite(row["train_loss"] or math.nan)
    training.start_epoch(1)
    training.step()
    assert training.end_epoch([row], silent)["steps_left_out"] == 0
    for stream in training.inputs:
        stream.close()


@pytest.mark.parametrize("kind", METRICS)
def test_the_found_network_is_the_same_without_the_others(kind: str) -> None:
    alone = run(program(kind, made={"network": networks("two-input", kind)["network"]}))
    together = run(program(kind))
    assert all(torch.equal(together.weights[name], weight) for name, weight in alone.weights.items())
    assert all(row["valid_loss"] == other["valid_loss"] for row, other in zip(alone.history, together.history, strict=True))  # fmt: skip


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize("space", ["two-input", "one-input"])
@pytest.mark.parametrize("epoch", [1, 3])
def test_resumed_training_is_the_uninterrupted_one_bit_for_bit(kind: str, space: str, epoch: int) -> None:
    kept: list[State] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.epoch == epoch:
            kept.append(copied(event.state()))
            raise Interrupted

    with pytest.raises(Interrupted):
        run(program(kind, space), on_event=interrupt)
    resumed, whole = run(program(kind, space), resume=kept[0]), run(program(kind, space))
    assert repeatable(resumed.history) == repeatable(whole.history)
    assert resumed.best_epoch == whole.best_epoch and resumed.weights.keys() == whole.weights.keys()
    assert all(torch.equal(resumed.weights[name], weight) for name, weight in whole.weights.items())
    if kind == "text":
        assert kept[0]["program"]["arms"]["network"]["state"] is not None, "an epoch ends within a text"


def test_a_carried_state_gives_the_loss_of_one_long_pass() -> None:
    made = networks("two-input", "text")["network"]
    criterion = TextCriterion(torch.ones(5))
    chunked = evaluate(made, Carrying(made), tracks_in_order(TEXT[:201], 2, 10, CPU), criterion)
    (whole,) = tracks_in_order(TEXT[:201], 2, 100, CPU)
    once = evaluate(made, Carrying(made), [whole], criterion)
    assert chunked["loss"] == pytest.approx(once["loss"], abs=1e-6)
    forgetful = evaluate(made, lambda x: made(x[0], None)[0], tracks_in_order(TEXT[:201], 2, 10, CPU), criterion)  # fmt: skip
    assert abs(forgetful["loss"] - once["loss"]) > 1e-4


def test_gradients_stop_between_chunks() -> None:
    training = program("text")
    training.start_epoch(0)
    training.step()
    state = training.arms["network"].state
    assert state is not None and not state.requires_grad


def test_a_loss_that_is_not_finite_ends_the_training() -> None:
    with pytest.raises(Diverged, match="lower retrain.learning_rate"):
        run(program("series", rate=1e30))


def trace(kind: str, space: str) -> dict[str, list[float]]:
    """Losses of all networks over the epochs, in float64."""
    found: Trained = run(program(kind, space))
    names = [name for name in found.history[0] if "loss" in name]
    return {name: [float(row[name] or 0) for row in found.history] for name in names}


CASES = [f"{kind}/{space}" for kind in METRICS for space in ("two-input", "one-input")]


@pytest.mark.usefixtures("double")
@pytest.mark.parametrize("case", CASES)
def test_losses_are_the_golden_ones(case: str) -> None:
    golden = json.loads(GOLDEN.read_text())
    assert list(golden) == CASES
    kind, space = case.split("/")
    for name, values in trace(kind, space).items():
        assert values == pytest.approx(golden[case][name], rel=1e-9), name


def regenerate() -> None:
    """``python -m tests.models.test_sequences_retrain``, to be run only when a change of the numbers is meant."""
    torch.set_num_threads(1)
    torch.set_default_dtype(torch.float64)
    traces = {case: trace(*case.split("/")) for case in CASES}
    lines = ",\n".join(f"{json.dumps(case)}: {json.dumps(traces[case])}" for case in CASES)
    GOLDEN.write_text("{\n" + lines + "\n}\n")


if __name__ == "__main__":
    regenerate()
