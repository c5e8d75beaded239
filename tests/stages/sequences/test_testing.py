"""The evaluation of forecasts and of predicted text, against pandas, plain loops and the definition of the measures."""

from __future__ import annotations

import csv
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from models.sequences.retrain import FOUND
from stages.evaluation import Evaluation
from stages.plumbing.files import RETRAIN
from stages.sequences import testing
from stages.sequences.data import SequenceCard, read_card
from stages.sequences.params import Params
from stages.sequences.testing import comparing, series, text
from stages.sequences.testing.with_torch import load_networks, series_answer
from tests.stages.sequences.projects import project, trained, waves

WEIGHTS = RETRAIN / "weights.safetensors"


@pytest.fixture
def evaluation(retrained: Params) -> Evaluation:
    return testing.evaluate_weights(retrained, WEIGHTS)


def only(kind: str) -> SequenceCard:
    card = read_card()
    if card.kind != kind:
        pytest.skip(f"about {kind}")
    return card


def test_mase_is_that_of_the_definition(retrained: Params, evaluation: Evaluation) -> None:
    """From the user's table: the scale is the mean |y_t - y_(t-24)| of the training rows."""
    card = only("series")
    frame = pandas.read_csv("table.csv")[["load", "price"]].astype(np.float32).astype(np.float64)
    table = frame.to_numpy()
    train = table[: card.rows[0][1]]
    scales = np.abs(train[24:] - train[:-24]).mean(axis=0)
    network = load_networks(retrained.retrain, WEIGHTS)[FOUND]
    answer = series_answer(network, card)
    test = series.read_test_windows(card)
    assert len(evaluation.per_case) == len(test) == card.counts["test"]
    for case, origin in enumerate(test.origins):
        forecast = answer(test.inputs(case, case + 1))[0]
        start = origin + card.lookback
        truth = table[start : start + 4]
        assert start >= card.rows[0][2], "test windows forecast test rows"
        errors = np.abs(truth - forecast)
        assert evaluation.per_case[case] == pytest.approx((errors / scales).mean(), rel=1e-4)
        naive = np.abs(truth - table[start - 24 : start - 20]) / scales
        assert evaluation.details["mase.seasonal naive"][case] == pytest.approx(naive.mean(), rel=1e-4)
        relative = 200 * errors / (np.abs(forecast) + np.abs(truth))
        assert evaluation.details["smape.found"][case] == pytest.approx(relative.mean(), rel=1e-4)
    assert evaluation.score == pytest.approx(evaluation.per_case.mean())
    scores = testing.class_scores(evaluation)
    assert scores is not None and list(scores) == ["load", "price"]
    assert np.mean([score or 0 for score in scores.values()]) == pytest.approx(evaluation.score)


def test_results_have_all_networks_and_every_step(evaluation: Evaluation, tmp_path: Path) -> None:
    card = read_card()
    testing.write_results(tmp_path, evaluation)
    with (tmp_path / "baselines.csv").open() as file:
        rows = list(csv.DictReader(file))
    expected = {"found network", "LSTM", "DLinear", "seasonal naive"} if card.kind == "series" else {"found network", "LSTM"}  # fmt: skip
    assert rows[0]["network"] == "found network" and {row["network"] for row in rows} == expected
    metric = comparing.metric_of(card).name
    for row in rows[1:]:
        assert float(row["difference"]) == pytest.approx(float(row[metric]) - evaluation.score)
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])
    weights = load_file(WEIGHTS)
    sizes = [sum(w.numel() for name, w in weights.items() if name.startswith(f"{part}.")) for part in ("network", "lstm")]  # fmt: skip
    by_name = {row["network"]: int(row["parameters"]) for row in rows}
    assert [by_name["found network"], by_name["LSTM"]] == sizes
    assert by_name["LSTM"] == pytest.approx(by_name["found network"], rel=0.15), (
        "as near as whole units allow"
    )
    if card.kind == "text":
        assert not (tmp_path / "horizon.csv").exists()
        return
    steps = pandas.read_csv(tmp_path / "horizon.csv")
    assert list(steps["step"]) == [1, 2, 3, 4] * 2 and list(steps["target"]) == ["load"] * 4 + ["price"] * 4
    errors = np.abs(evaluation.details["forecasts"] - evaluation.details["truth"]).mean(axis=0)
    assert steps["found"].to_numpy() == pytest.approx(errors.T.flatten(), rel=1e-4)
    assert {"lstm", "dlinear", "seasonal naive"} <= set(steps.columns)


def test_bits_are_those_of_reading_the_text_from_the_beginning(
    retrained: Params, evaluation: Evaluation
) -> None:
    card = only("text")
    network = load_networks(retrained.retrain, WEIGHTS)[FOUND]
    test = text.read_test_text(card)
    content = Path("book.txt").read_text()
    first = card.bounds[1]
    numbers = [card.vocabulary.index(letter) for letter in content[first : first + len(test) * 10 + 1]]
    with torch.no_grad():
        logits, _ = network(torch.tensor([numbers[:-1]]), None)
    bits = -logits[0].double().log_softmax(dim=1)[range(len(numbers) - 1), numbers[1:]] / math.log(2)
    assert evaluation.per_case == pytest.approx(bits.reshape(-1, 10).mean(dim=1).numpy(), abs=2e-3)
    assert evaluation.score == pytest.approx(float(bits.mean()), abs=1e-3)
    # The tracks that are read at once begin with the chunk before them; the first is exact.
    length = -(-len(test) // max(1, len(test) // 16))
    assert evaluation.per_case[:length] == pytest.approx(bits.reshape(-1, 10).mean(dim=1)[:length].numpy(), abs=1e-5)  # fmt: skip


def test_words_of_different_lengths_weigh_by_their_characters() -> None:
    card = SequenceCard(name="text", counts={}, sha256="", kind="text", chunk=2, vocabulary=["?", "a", "bcd"])
    test = text.TestText(np.array([1, 2, 1, 2, 2]), np.array([4, 6]), card)

    def uniform(tokens: NDArray[np.int64], state: object) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return np.zeros((*tokens.shape, 3), np.float32), np.zeros((len(tokens), 1), np.float32)

    bits = text.bits_of(uniform, test)
    assert bits == pytest.approx(2 * math.log2(3))
    values = bits / test.characters_N.mean()
    assert values.mean() == pytest.approx(4 * math.log2(3) / 10), "all bits over all characters"


def test_notice_when_another_network_is_better() -> None:
    card = SequenceCard(name="csv", counts={}, sha256="", kind="series", targets=["y"])
    source = np.random.default_rng(0)
    ours = source.uniform(1, 2, 100)
    details = {
        "mase.found": ours,
        "mase.lstm": ours + 0.2,
        "mase.dlinear": ours - 0.1 - 0.01 * source.normal(size=100),
        "mase.seasonal naive": ours - 0.05,
        **{f"parameters.{name}": np.array([5]) for name in ("found", "lstm", "dlinear", "seasonal naive")},
    }
    made = Evaluation(float(ours.mean()), ours, "", details=details)
    line = comparing.worse_than(made, card)
    assert line is not None and "\n" not in line
    assert line.startswith("the found network is worse than DLinear: MASE ")
    assert "2 of the 3 it is compared with are better" in line and "chance" not in line
    assert [row.name for row in comparing.compared(made, card)] == ["found network", "DLinear", "seasonal naive", "LSTM"]  # fmt: skip
    noisy = {**details, "mase.dlinear": ours + source.normal(size=100), "mase.seasonal naive": ours + 3}
    noisy["mase.dlinear"] += -0.01 - (noisy["mase.dlinear"] - ours).mean()
    line = comparing.worse_than(replace(made, details=noisy), card)
    assert line is not None and line.endswith("which may be chance)")
    assert comparing.worse_than(replace(made, details={**noisy, "mase.dlinear": ours + 1}), card) is None


def test_the_interval_of_the_bootstrap_is_that_of_the_normal_distribution() -> None:
    values = np.random.default_rng(3).normal(2, 1, 400)
    low, high = comparing.interval(values)
    half = 1.96 * values.std() / math.sqrt(400)
    assert (low, high) == (pytest.approx(values.mean() - half, abs=0.02), pytest.approx(values.mean() + half, abs=0.02))  # fmt: skip


def test_a_series_of_several_has_a_score_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows = waves(300).splitlines()
    content = "\n".join(
        [f"{rows[0]},place"] + [f"{row},{place}" for place in ("north", "south") for row in rows[1:]]
    )
    params = project("series", {"data.series": "place", "data.targets": ["load"]}, content + "\n")
    trained(params)
    evaluation = testing.evaluate_weights(params, WEIGHTS)
    scores = testing.class_scores(evaluation)
    assert scores is not None and list(scores) == ["north", "south"]
    assert scores["north"] == pytest.approx(scores["south"]), "both are the same series"
