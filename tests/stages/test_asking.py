"""Which runs may change the champion, and how often the test cases have been used to choose."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from stages.images.params import METRIC
from stages.plumbing.runtime import TEMPORARY
from stages.registry import asking, uses
from stages.registry.asking import PROMOTE
from tests.stages.conftest import write_params
from tests.stages.networks import export, linear
from tests.stages.registering import BAD, GOOD, RunStage, alias, number, registry, run_champion, settings

EXPERIMENT = "DVC_EXP_NAME"


def champion(store: str, name: str) -> int | None:
    try:
        return number(store, name)
    except MlflowException:
        return None


def test_an_experiment_registers_a_challenger_and_says_how_to_promote_it(
    named: str,
    run_stage: RunStage,
    store: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    export(linear(BAD))
    assert run_stage("register") == 0
    assert champion(store, named) == 1
    monkeypatch.setenv(EXPERIMENT, "wild-guess")
    export(linear(GOOD))
    assert run_stage("register") == 0
    assert (champion(store, named), number(store, named, "challenger")) == (1, 2)
    how = "an experiment does not change the champion by itself; `python -m stages.champion 2` makes it champion"
    assert registry()["reason"].startswith("passes the gate (test accuracy ") and how in registry()["reason"]
    assert (registry()["promoted"], registry()["waits"], registry()["refusals"]) == (False, True, [])
    tags = alias(store, named, "challenger").tags
    assert tags["gate"] == "waits" and "refused" not in tags
    assert how in Path("artifacts/model_card.md").read_text()
    assert how in capsys.readouterr().out
    # Again: nothing is judged, and the line says the same.
    assert run_stage("register") == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "already registered" in line]
    assert line.endswith(
        "which has passed the gate (the champion is version 1); `python -m stages.champion 2` makes it champion"
    )


def test_a_run_of_the_project_promotes_what_an_experiment_has_found(
    named: str, run_stage: RunStage, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `dvc exp apply` and `dvc repro`."""
    export(linear(BAD))
    assert run_stage("register") == 0
    export(linear(GOOD))
    with monkeypatch.context() as experiment:
        experiment.setenv(EXPERIMENT, "wild-guess")
        assert run_stage("register") == 0
    assert run_stage("register") == 0
    assert champion(store, named) == 2
    assert registry()["reason"].startswith("champion: test accuracy ")
    assert "waits" not in registry()


def test_the_command_that_is_printed_promotes_and_experiments_agree_from_then_on(
    named: str, run_stage: RunStage, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(linear(BAD))
    assert run_stage("register") == 0
    monkeypatch.setenv(EXPERIMENT, "wild-guess")
    export(linear(GOOD))
    assert run_stage("register") == 0
    assert run_champion(run_stage, "2") == 0
    for _ in range(2):
        assert run_stage("register") == 0
        assert champion(store, named) == 2
        assert registry()["promoted"] is True and "experiment" not in registry()["reason"]


def test_an_experiment_alone_leaves_a_registry_without_champion(
    named: str, run_stage: RunStage, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(EXPERIMENT, "wild-guess")
    assert run_stage("register") == 0
    assert champion(store, named) is None
    assert registry()["reason"] == (
        "passes the gate, but an experiment does not change the champion by itself;"
        " `python -m stages.champion 1` makes it champion"
    )


def test_an_experiment_that_the_gate_refuses_is_refused(
    named: str, run_stage: RunStage, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(linear(GOOD))
    assert run_stage("register") == 0
    monkeypatch.setenv(EXPERIMENT, "wild-guess")
    export(linear(BAD))
    assert run_stage("register") == 0
    assert registry()["reason"].startswith("not promoted: test accuracy ")
    assert alias(store, named, "challenger").tags["gate"] == "refused"


def test_an_experiment_is_no_heir_of_a_champion_that_was_deleted(
    named: str, run_stage: RunStage, store: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    export(linear(BAD))
    assert run_stage("register") == 0
    export(linear(GOOD))
    with monkeypatch.context() as experiment:
        experiment.setenv(EXPERIMENT, "wild-guess")
        assert run_stage("register") == 0
    MlflowClient(tracking_uri=store).delete_model_version(named, "1")
    export(linear(BAD, sharpness=20.0))
    assert run_stage("register") == 0
    assert champion(store, named) == 3


def test_with_ask_no_run_changes_the_champion(named: str, run_stage: RunStage, store: str) -> None:
    settings(named, promote="ask")
    assert run_stage("register") == 0
    assert champion(store, named) is None
    assert (
        "but registry.promote is ask; `python -m stages.champion 1` makes it champion" in registry()["reason"]
    )
    settings(named, promote="auto")
    assert run_stage("register") == 0
    assert champion(store, named) == 1


def test_a_run_in_a_workspace_is_an_experiment_unless_a_sweep_has_chosen_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from stages.plumbing.settings import load

    def reason(folder: Path, promote: str = "auto") -> str | None:
        folder.mkdir(parents=True, exist_ok=True)
        write_params(folder / "params.yaml", {"registry.promote": promote})
        monkeypatch.chdir(folder)
        return asking.reason_to_ask(load().registry)

    monkeypatch.delenv(EXPERIMENT, raising=False)
    workspace = tmp_path / TEMPORARY / "flows" / "nas-1"
    assert reason(tmp_path) is None
    assert reason(workspace) == "an experiment does not change the champion by itself"
    monkeypatch.setenv(PROMOTE, "auto")
    assert reason(workspace) is None
    assert reason(workspace, "ask") == "registry.promote is ask"
    monkeypatch.setenv(PROMOTE, "ask")
    assert reason(tmp_path) == "a comparison does not change the champion"


def test_the_networks_judged_on_a_test_set_are_counted_once_each_also_after_their_deletion(
    named: str, run_stage: RunStage, store: str, capsys: pytest.CaptureFixture[str]
) -> None:
    settings(named, max_test_uses=2)
    counted = []
    for pixels, sharpness in ((BAD, 30.0), (GOOD, 30.0), (GOOD, 30.0), (GOOD, 20.0)):
        export(linear(pixels, sharpness=sharpness))
        capsys.readouterr()
        assert run_stage("register") == 0
        counted.append(registry()["test_uses"])
        card, said = Path("artifacts/model_card.md").read_text().replace("\\", ""), capsys.readouterr().out
        assert f"judged on these test images, this one included: {counted[-1]}." in card
        asked = "3 networks have been judged on these test images, more than registry.max_test_uses (2)"
        assert (asked in card, asked in said) == (counted[-1] == 3, counted[-1] == 3)
    assert counted == [1, 2, 2, 3]
    client = MlflowClient(tracking_uri=store)
    client.delete_model_version(named, "1")
    export(linear(BAD, sharpness=20.0))
    assert run_stage("register") == 0
    assert registry()["test_uses"] == 4
    # The count is of the registry, not of what a team shares.
    assert "test_uses" not in Path("artifacts/candidate.json").read_text()


def test_versions_from_before_there_was_a_count_are_counted(
    named: str, run_stage: RunStage, store: str
) -> None:
    export(linear(BAD))
    assert run_stage("register") == 0
    client = MlflowClient(tracking_uri=store)
    (tag,) = (tag for tag in client.get_registered_model(named).tags if tag.startswith("judged_on_"))
    client.delete_registered_model_tag(named, tag)
    export(linear(GOOD))
    assert run_stage("register") == 0
    assert registry()["test_uses"] == 2


def test_without_a_limit_nobody_asks_for_fresh_test_cases() -> None:
    assert uses.notice(1000, None, METRIC) is None
    assert uses.notice(20, 20, METRIC) is None
    assert str(uses.notice(21, 20, METRIC)).endswith("take fresh test images, which no run has seen")
