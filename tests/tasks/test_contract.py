"""What every task must fulfil so that the stages, the registry, the gate and the report work for it unchanged."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from markupsafe import escape
from mlflow import MlflowClient
from safetensors.torch import load_file

from models.training.events import EpochEnd, Event, State
from models.training.loop import Program
from models.training.loop import run as train
from serving.errors import ModelError
from serving.registry import Registry
from stages import comparison, tasks
from stages.alphas import read_alphas
from stages.compare import train as training
from stages.compare.jobs import TRAININGS, is_done
from stages.comparison import COMPARE_JSON, ComparisonRecord
from stages.errors import UserError
from stages.evaluation import Evaluation
from stages.genotypes import read_genotype
from stages.measure import part_of
from stages.measuring import bench
from stages.params import Params
from stages.plumbing.files import (
    ALPHAS,
    DATA,
    EVALUATION,
    EXPORT,
    GENOTYPE_JSON,
    REGISTRY,
    REPORT,
    RETRAIN,
    SEARCH,
    read_rows,
)
from stages.plumbing.settings import load
from stages.records import ExportRecord, RetrainMetrics, SearchSummary
from stages.registry.markdown import plain
from stages.registry.record import RegistryRecord
from tests.models.processes import Interrupted, copied, repeatable
from tests.serving import triton
from tests.serving.conftest import running
from tests.tasks import comparing
from tests.tasks.conftest import CHAIN, run, write_profile


@pytest.fixture
def params(task: str, finished_chain: Path) -> Params:
    return load()


def test_preparing_again_gives_the_same_bytes(task: str, params: Params, tmp_path: Path) -> None:
    (tmp_path / "again").mkdir()
    card = tasks.preparation(task).prepare(params, tmp_path / "again")
    assert card == tasks.data(task).read_card()
    made = sorted((tmp_path / "again").iterdir())
    assert made
    for file in made:
        assert file.read_bytes() == (DATA / file.name).read_bytes(), file.name
    assert set(card.counts) == {"train", "val", "test"}


def programs(task: str, params: Params) -> dict[str, Callable[[], Program[Any]]]:
    training = tasks.training(task)
    return {
        "search": lambda: training.search(params),
        "retrain": lambda: training.retrain(params, read_genotype(task)),
    }


@pytest.mark.parametrize("which", ["search", "retrain"])
def test_a_training_resumes_bit_for_bit_after_any_epoch(task: str, params: Params, which: str) -> None:
    make = programs(task, params)[which]
    whole = train(make())
    for epoch in range(1, len(whole.history)):
        kept: list[State] = []

        def interrupt(event: Event, kept: list[State] = kept, epoch: int = epoch) -> None:
            if isinstance(event, EpochEnd) and event.epoch == epoch:
                kept.append(copied(event.state()))
                raise Interrupted

        with pytest.raises(Interrupted):
            train(make(), on_event=interrupt)
        again = train(make(), resume=kept[0])
        assert repeatable(again.history) == repeatable(whole.history)
        assert all(torch.equal(again.weights[name], weight) for name, weight in whole.weights.items())


def test_the_history_has_the_columns_that_stages_read(task: str, finished_chain: Path) -> None:
    metric = tasks.metric(load()).name
    for file in (SEARCH / "history.csv", RETRAIN / "history.csv"):
        for row in read_rows(file):
            for split in ("train", "valid"):
                assert row[f"{split}_{metric}"] == row[f"{split}_score"]
                assert isinstance(row[f"{split}_loss"], float)


def test_the_records_tell_what_the_files_hold(task: str, params: Params) -> None:
    metric = tasks.metric(load())
    history, alphas = read_rows(SEARCH / "history.csv"), read_alphas(ALPHAS)
    summary = SearchSummary.read(SEARCH / "summary.json", metric)
    assert summary.epoch == len(history) == len(alphas.epochs)
    assert summary.valid_score == history[-1]["valid_score"]
    scores = [row["valid_score"] for row in history]
    best = max(scores) if metric.higher_is_better else min(scores)  # pyright: ignore[reportArgumentType]
    assert summary.best_valid_score == best
    gap = metric.gain(summary.supernet_score, summary.discretized_score)
    assert summary.discretization_gap == pytest.approx(gap)
    metrics = RetrainMetrics.read(RETRAIN / "metrics.json", metric)
    weights = load_file(RETRAIN / "weights.safetensors")
    assert 0 <= metrics.params <= sum(weight.numel() for weight in weights.values())
    for record, file in ((summary, SEARCH / "summary.json"), (metrics, RETRAIN / "metrics.json")):
        assert record.content(metric) == json.loads(file.read_text())


def test_the_genotype_is_that_of_the_last_mix_and_can_be_written_and_read(task: str, params: Params) -> None:
    architectures, genotype = tasks.architectures(task), read_genotype(task)
    content = architectures.genotype_json(genotype)
    assert content == json.loads(GENOTYPE_JSON.read_text()) and "space" in content
    assert architectures.genotype_of(content) == genotype
    assert set(architectures.space(params.search.named_space(), exclude_none=False).groups) == set(
        genotype.groups
    )


def test_the_exported_file_answers_as_torch_does(task: str, params: Params) -> None:
    metric = tasks.metric(load())
    record = ExportRecord.read(EXPORT / "export.json", metric)
    saved, exported = Evaluation.load(EVALUATION), tasks.exported(task).evaluate(EXPORT / record.file)
    ours = tasks.testing(task).evaluate_weights(params, RETRAIN / "weights.safetensors")
    for other in (exported, ours):
        assert other.cases_sha256 == saved.cases_sha256
        np.testing.assert_allclose(other.per_case, saved.per_case, atol=1e-5)
    assert len(saved.per_case) == record.test_cases == tasks.data(task).read_card().counts["test"]
    assert saved.score == pytest.approx(saved.per_case.mean()) == pytest.approx(record.test_score)
    assert {"latency_ms", "size_bytes", "params"} <= {*saved.costs, *record.content(metric)}
    call = tasks.exported(task).one_call(EXPORT / record.file)
    assert (call is None) == (RegistryRecord.read(REGISTRY).latency_ms is None)
    if call is not None:
        call()


def test_exporting_again_gives_the_same_bytes_and_the_origin_is_beside_them(
    task: str, params: Params, tmp_path: Path
) -> None:
    record = ExportRecord.read(EXPORT / "export.json", tasks.metric(load()))
    (tmp_path / "again").mkdir()
    again = tasks.export(task).export(params, tmp_path / "again").record
    assert again.model_sha256 == record.model_sha256
    for name in filter(None, (record.file, record.int8.file if record.int8 else None)):
        assert (tmp_path / "again" / name).read_bytes() == (EXPORT / name).read_bytes(), name
    assert record.origin is not None
    assert set(record.origin) == {"git_commit", "run_id", "data_sha256"}


def test_the_version_is_champion_and_card_and_report_speak_of_it(
    task: str, finished_chain: Path, store: str
) -> None:
    metric, registry = tasks.metric(load()), RegistryRecord.read(REGISTRY)
    assert registry.promoted and registry.metric == metric.name
    version = MlflowClient(store).get_model_version_by_alias(registry.model, "champion")
    assert int(version.version) == registry.version
    score = Evaluation.load(EVALUATION).score
    assert float(version.tags[f"test_{metric.name}"]) == pytest.approx(score)
    card, page = Path("artifacts/model_card.md").read_text(), REPORT.read_text()
    for text in (card, page):
        assert metric.text(score) in text or f"{100 * score:.1f}%" in text
        assert f"{metric.case}s" in text
    if task != "images":
        shown = re.sub(r"<style>.*?</style>|<svg.*?</svg>|<[^>]*>", "", page, flags=re.DOTALL)
        words = (shown + card).replace("probe_images", "")  # a setting of the mean shift, whatever the task
        assert not re.search("image|accuracy", words), "words of another task"


def test_a_second_run_registers_nothing_and_a_worse_network_is_refused(
    task: str, finished_chain: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("register") == 0
    assert "is already registered as" in capsys.readouterr().out
    before = RegistryRecord.read(REGISTRY)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        (tmp_path / "data").mkdir()
        write_profile(
            task,
            tmp_path / "params.yaml",
            **{
                "registry.name": before.model,
                "retrain.epochs": 1,
                "retrain.learning_rate": 1e-7,
                "retrain.seed": 5,
            },
        )
        assert [run(stage) for stage in CHAIN[:-1]] == [0] * (len(CHAIN) - 1)
        worse = RegistryRecord.read(REGISTRY)
    assert (worse.version, worse.champion_before) == (before.version + 1, before.version)
    metric = tasks.metric(load())
    assert worse.score is not None and before.score is not None
    assert worse.promoted == metric.better(worse.score, before.score)
    assert worse.compared is not None and 0 < worse.compared.p_value <= 1


@pytest.fixture
def copy_of_chain(finished_chain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished project, as the current folder."""
    shutil.copytree(finished_chain, tmp_path / "copy", ignore=shutil.ignore_patterns(".checkpoints"))
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_a_comparison_trains_every_network_once_as_retrain_does(
    task: str, copy_of_chain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = comparing.planned("0", 1)
    by_hand = [arm.name for arm in first.arms if arm.kind == "baseline"]
    assert [arm.name for arm in first.arms] == ["found", "random 1", *by_hand]
    assert bool(by_hand) == (task in ("images", "sequences"))
    assert comparing.trained(first) == [f"{arm.name}, seed 0" for arm in first.arms]
    (found,) = [key for arm, _, key in first.trainings() if arm.kind == "found"]
    assert comparing.history(TRAININGS / found) == comparing.history(RETRAIN), "seed 0 is that of retrain"

    more = comparing.planned("0,1", 1)
    assert comparing.trained(more) == [f"{arm.name}, seed 1" for arm in more.arms], "only the new ones"
    comparing.finished(monkeypatch)
    said, metric = capsys.readouterr().out, tasks.metric(load())
    record = ComparisonRecord.read(COMPARE_JSON, metric)
    assert record.content(metric) == json.loads(COMPARE_JSON.read_text())
    assert record == comparison.current(load(), metric)
    retrained = RetrainMetrics.read(RETRAIN / "metrics.json", metric)
    assert record.found.test[0] == pytest.approx(retrained.test_score)
    assert record.random is not None and record.best_of is not None
    assert record.random.count == 1 and record.best_of.cells == 1
    lead = metric.gain(record.found.mean, record.others[0].mean)
    assert record.random.difference.mean == pytest.approx(lead)
    assert record.random.difference.low <= lead <= record.random.difference.high
    assert set(record.baselines) == set(by_hand)
    for sentence in comparison.sentences(record, metric):
        assert f"compare: {sentence}" in said
    again = COMPARE_JSON.read_bytes()
    comparing.finished(monkeypatch)
    assert COMPARE_JSON.read_bytes() == again


def test_an_interrupted_training_of_a_comparison_continues_bit_for_bit(
    task: str, copy_of_chain: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = comparing.planned("3", 1)
    for _, _, key in made.trainings()[:3]:
        training.main(load(), key)
        whole = list(comparing.results(key))
        shutil.rmtree(TRAININGS / key)
        comparing.interrupted(monkeypatch, key)
        assert not is_done(key)
        training.main(load(), key)
        assert list(comparing.results(key)) == whole


def test_card_and_report_have_the_comparison_of_this_cell_and_no_other(
    task: str, copy_of_chain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    card, page = Path("artifacts/model_card.md"), REPORT
    for file in (card, page):
        assert comparison.NOT_COMPARED in file.read_text() and comparison.TITLE in file.read_text()
    comparing.trained(comparing.planned("0", 1))
    comparing.finished(monkeypatch)
    metric = tasks.metric(load())
    record = comparison.current(load(), metric)
    assert record is not None
    assert [run("register"), run("report")] == [0, 0]
    for file in (card, page):
        assert comparison.NOT_COMPARED not in file.read_text()
    for sentence in comparison.sentences(record, metric):
        assert plain(sentence) in card.read_text()
        assert str(escape(sentence)) in page.read_text()
    version = MlflowClient().get_model_version_by_alias(RegistryRecord.read(REGISTRY).model, "champion")
    assert comparison.sentences(record, metric)[0] in (version.description or "")

    content = json.loads(COMPARE_JSON.read_text())
    COMPARE_JSON.write_text(json.dumps({**content, "identity": "of another cell"}))
    assert run("report") == 0
    assert comparison.NOT_COMPARED in page.read_text()
    GENOTYPE_JSON.write_text(GENOTYPE_JSON.read_text() + "\n")  # now another file
    with pytest.raises(UserError, match="genotype.json, the data or params.yaml has changed"):
        comparing.finished(monkeypatch)


def test_without_its_part_a_task_compares_nothing_and_says_so(
    task: str, copy_of_chain: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tasks, "comparison", lambda _: None)
    made = comparing.planned("0", 4)
    assert comparing.trained(made) == ["found, seed 0"]
    comparing.finished(monkeypatch)
    said = capsys.readouterr().out
    assert f"notice: the task {task} offers no networks to compare with" in said
    assert "compare: Nothing was compared" in said
    record = ComparisonRecord.read(COMPARE_JSON, tasks.metric(load()))
    assert (record.random, record.best_of, record.baselines, record.others) == (None, None, {}, [])
    assert record.found.params == RetrainMetrics.read(RETRAIN / "metrics.json", tasks.metric(load())).params


def test_latency_is_measured_or_refused_in_one_line(task: str, params: Params) -> None:
    genotype = read_genotype(task)
    if tasks.latency(task) is None:
        with pytest.raises(
            UserError, match=f"the task {task} cannot measure the latency of its networks; set"
        ):
            part_of(params)
        return
    part = part_of(params)
    ((ms, spread),) = bench.measured(
        [part.network(params, genotype)], bench.feed_of(part.inputs(params), 2), 1, 2, 0
    )
    assert ms > 0 and spread >= 0 and part.macs(params, genotype) > 0
    assert json.loads(json.dumps(part.size(params))) == part.size(params)


def test_the_exported_file_is_served_to_another_projects_client_or_offered_in_one_line(
    task: str, finished_chain: Path, store: str, tmp_path: Path
) -> None:
    record = ExportRecord.read(EXPORT / "export.json", tasks.metric(load()))
    if not record.file.endswith(".onnx"):
        registry = Registry(f"contract-{task}", "champion", 1)
        with pytest.raises(ModelError) as refused:
            registry.load(registry.current())
        said = str(refused.value)
        assert f"there is no server for {record.file}" in said and "\n" not in said
        assert f"mlflow artifacts download -u models:/contract-{task}/" in said
        return
    file = (finished_chain / EXPORT / record.file).resolve()
    with running(tmp_path, "--model", str(file)) as server:
        triton.assert_equals_onnxruntime(server.url, file)
