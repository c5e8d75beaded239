"""Names of runs: readable, bounded, and valid wherever they are used."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stages.plumbing.naming import MOST, experiment_name, run_name, since_commit
from stages.plumbing.settings import load
from tests.stages.conftest import ROOT, write_params

PARAMS = load(ROOT / "params.yaml")


@pytest.mark.parametrize(
    ("changes", "begin"),
    [
        ({"search.seed": 3}, "digits-ms-darts-seed3-"),
        ({"search.epochs": 5, "search.seed": 3}, "digits-ms-darts-seed3-epochs5-"),
        ({"search.seed": 1, "retrain.seed": 2}, "digits-ms-darts-retrain.seed2-search.seed1-"),
        ({"latency.budget_ms": None}, "digits-ms-darts-budget_ms-null-"),
        ({"search.mean_shift.bandwidth": 0.5}, "digits-ms-darts-bandwidth0.5-"),
        ({"data.mirror": False}, "digits-ms-darts-mirror-false-"),
        ({"data.root": "/home/me/My pictures/"}, "digits-ms-darts-root-My-pictures-"),
        ({"data.root": "/home/me/Фото"}, "digits-ms-darts-root-"),
        ({"registry.name": "a..b.lock"}, "digits-ms-darts-name-a.b-"),
        ({"search.strategy": "darts"}, "digits-ms-darts-"),  # of the settings, which the test leaves alone
    ],
)
def test_a_name_says_what_differs(changes: dict[str, Any], begin: str) -> None:
    name = run_name(PARAMS, changes)
    assert name.startswith(begin)
    assert len(name) == len(begin) + 8, "and nothing more but a hash"


def test_the_same_changes_have_the_same_name_and_others_another() -> None:
    one, other = {"search.seed": 3, "search.epochs": 5}, {"search.epochs": 5, "search.seed": 3}
    assert run_name(PARAMS, one) == run_name(PARAMS, other)
    assert run_name(PARAMS, {"data.root": "/a/x"}) != run_name(PARAMS, {"data.root": "/b/x"})
    assert run_name(PARAMS, {}) == "digits-ms-darts"
    assert run_name(PARAMS, {"search.seed": 1}, "sweep").startswith("digits-ms-darts-sweep-seed1-")


def test_a_long_name_says_how_much_it_leaves_out() -> None:
    changes = {f"search.setting_{number}": number for number in range(20)}
    name = run_name(PARAMS, changes)
    shown = name.count("setting_")
    assert len(name) <= MOST and shown > 1
    assert f"-{20 - shown}more-" in name


values = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.lists(st.text(), max_size=3)
)
keys = st.lists(st.text(), min_size=1, max_size=4).map(".".join)


@given(st.dictionaries(keys, values, max_size=6))
def test_every_name_is_valid_for_git_folders_and_trackers(changes: dict[str, Any]) -> None:
    name = run_name(PARAMS, changes)
    assert name.isascii() and 0 < len(name) <= MOST
    assert not set(name) & set("/\\: ~^?*[]{}@'\"\n\t")
    # https://git-scm.com/docs/git-check-ref-format
    assert ".." not in name and not name.startswith(("-", ".")) and not name.endswith((".", ".lock"))


def test_without_changes_a_run_is_named_after_what_differs_from_the_last_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_params(tmp_path / "params.yaml", {})
    assert (since_commit(), experiment_name({})) == ({}, "digits-ms-darts"), "outside git"
    git = ["git", "-c", "user.name=test", "-c", "user.email=test@example.org"]
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "project"]):
        subprocess.run([*git, *command], check=True)
    assert experiment_name({}) == "digits-ms-darts"
    write_params(tmp_path / "params.yaml", {"search.seed": 3, "search.mean_shift.samples": 5})
    assert since_commit() == {"search.seed": 3, "search.mean_shift.samples": 5}
    assert experiment_name({}).startswith("digits-ms-darts-seed3-samples5-")
    assert experiment_name({"search.epochs": 7}).startswith("digits-ms-darts-epochs7-"), (
        "asked for is what counts"
    )
