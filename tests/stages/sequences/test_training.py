"""The search and the retraining that params.yaml asks for, on prepared series and texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from models.search.growth import AddNode, AddOperation, Widen
from models.sequences.retrain import FOUND
from models.training.events import EpochEnd, Event, State
from models.training.loop import run
from stages import tasks
from stages.genotypes import read_genotype
from stages.plumbing.files import RETRAIN
from stages.sequences import comparison, training
from stages.sequences.data import read_card
from stages.sequences.params import TEXT, Params
from stages.sequences.training.inputs import halves, windows_of
from tests.models.processes import Interrupted, copied, repeatable
from tests.stages.sequences.projects import project, trained

STRATEGIES = ("ms-darts", "darts", "darts-2nd", "sdarts-rs", "sdarts-adv", "single-level")


@pytest.mark.parametrize("kind", ["series", "text"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_searches_and_grows(
    kind: str, strategy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = project(kind, {"search.strategy": strategy})
    found = run(training.search(params))
    metric = tasks.metric(params).name
    assert [len(epoch["left"]) for epoch in found.alphas] == [5, 9, 9], "two nodes, then three"
    assert all(row[f"valid_{metric}"] is not None and row["train_loss"] is not None for row in found.history)
    space = tasks.architectures("sequences").space(params.search.named_space(), exclude_none=False)
    assert {group: len(edges) for group, edges in found.genotype.groups.items()} == dict.fromkeys(
        space.groups, 3
    )


def test_narrow_cells_take_one_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    params = project("series")
    wide = params.model_copy(update={"retrain": params.retrain.model_copy(update={"hidden": 129})})
    try:
        for settings, threads in ((wide, 2), (params, 1)):
            torch.set_num_threads(2)
            training.retrain(settings, read_genotype("sequences"))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(1)


@pytest.mark.parametrize("kind", ["series", "text"])
@pytest.mark.parametrize("which", ["search", "retrain"])
def test_a_training_resumes_bit_for_bit(
    kind: str, which: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = project(kind)

    def made() -> Any:
        return training.search(params) if which == "search" else training.retrain(params, read_genotype("sequences"))  # fmt: skip

    kept: list[State] = []

    def interrupt(event: Event) -> None:
        if isinstance(event, EpochEnd) and event.epoch == 1:
            kept.append(copied(event.state()))
            raise Interrupted

    with pytest.raises(Interrupted):
        run(made(), on_event=interrupt)
    again, whole = run(made(), resume=kept[0]), run(made())
    assert repeatable(again.history) == repeatable(whole.history)
    assert all(torch.equal(again.weights[name], weight) for name, weight in whole.weights.items())


def test_growth_adds_nodes_then_operations_then_width(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params = project(
        "series",
        {
            "search.operations": ["none", "tanh"],
            "search.growth.add_operations": ["relu"],
            "search.growth.hidden_start": 3,
            "search.growth.trigger": "plateau",
            "search.epochs": 9,
        },
    )
    growth = training.growth_of(params.search)
    assert growth is not None
    assert growth.edits == [AddNode(), AddOperation("relu"), Widen(4)]
    assert growth.patience == params.search.growth.patience
    off = project_params(params, mode="none")
    assert training.growth_of(off.search) is None


def project_params(params: Params, **growth: Any) -> Params:
    changed = params.search.growth.model_copy(update=growth)
    return params.model_copy(update={"search": params.search.model_copy(update={"growth": changed})})


def test_the_halves_share_no_window_and_few_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    project("series")
    windows = windows_of(read_card(), "train")
    own, others = halves(windows)
    assert sorted([*own.tolist(), *others.tolist()]) == list(range(len(windows)))
    blocks = {int(origin) // 16 for origin in windows.origins[own]}
    assert not blocks & {int(origin) // 16 for origin in windows.origins[others]}


def test_the_seed_decides_and_baselines_can_be_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params, genotype = project("series"), read_genotype("sequences")
    first, second = (run(training.retrain(params, genotype)) for _ in range(2))
    assert repeatable(first.history) == repeatable(second.history)
    alone = params.model_copy(update={"retrain": params.retrain.model_copy(update={"baselines": False})})
    third = run(training.retrain(alone, genotype))
    assert {name.split(".")[0] for name in first.weights} == {"network", "lstm", "dlinear"}
    assert {name.split(".")[0] for name in third.weights} == {"network"}
    assert all(torch.equal(first.weights[name], weight) for name, weight in third.weights.items())
    other = params.model_copy(update={"retrain": params.retrain.model_copy(update={"seed": 1})})
    assert repeatable(run(training.retrain(other, genotype)).history) != repeatable(first.history)


@pytest.mark.parametrize("kind", ["series", "text"])
def test_networks_to_compare_with_have_as_many_parameters(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    params, genotype = project(kind, {"retrain.hidden": 12}), read_genotype("sequences")
    found = comparison.found(params, genotype)
    cells = comparison.random(params, genotype, 3)
    by_hand = comparison.baselines(params, genotype)
    assert [arm.name for arm in by_hand] == (["LSTM"] if kind == TEXT else ["LSTM", "DLinear"])
    assert found.params is not None
    for arm in [*cells, by_hand[0]]:
        assert arm.params == pytest.approx(found.params, rel=0.1)
        assert arm.macs is not None and arm.macs > 0
    longer = comparison.random(params, genotype, 5)
    assert [arm.network for arm in longer[:3]] == [arm.network for arm in cells]

    whole = trained(params)
    again = run(comparison.retrain(params, found.network))
    assert repeatable(again.history) == repeatable(whole.history), "the same training as retrain's"
    evaluation = comparison.evaluate(params, found.network, RETRAIN / "weights.safetensors")
    expected = tasks.testing("sequences").evaluate_weights(params, RETRAIN / "weights.safetensors")
    assert evaluation.per_case == pytest.approx(expected.per_case)
    for arm in by_hand:
        program = comparison.retrain(params, arm.network)
        program.config = program.config.__class__(epochs=1)
        assert {name.split(".")[0] for name in run(program).weights} == {FOUND}
