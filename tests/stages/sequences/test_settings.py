"""The settings of sequences: what does not fit each other is refused in one line, and what has no effect is inactive."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from models.sequences.spaces import OPERATIONS, SPACES
from stages import tasks
from stages.errors import UserError
from stages.plumbing.settings import load
from stages.sequences.params import Operation, SearchParams
from tests.stages.processes import ROOT

PROFILE = ROOT / "profiles" / "sequences.yaml"

WRONG: list[tuple[dict[str, Any], str]] = [
    ({"data.zone": "Mars/Base"}, "data.zone is 'Mars/Base'; it should be null, or a time zone of the IANA database"),
    ({"data.covariates": ["temp"]}, "data.targets names the column 'temp' and data.covariates; name it once"),
    ({"data.targets": ["temp", "temp"]}, "data.targets names the column 'temp' twice; name it once"),
    ({"data.series": "datetime"}, "data.time names the column 'datetime' and data.series"),
    ({"data.targets": []}, "data.targets is []"),
    ({"data.valid_fraction": 0.9}, "their sum must be less than 1"),
    ({"data.lookback": 1}, "data.lookback is 1"),
    ({"search.operations": ["none"]}, "nothing passes through none"),
    ({"search.operations": ["tanh", "tanh"]}, "have 'tanh' more than once"),
    ({"search.operations": ["tanh", "gelu"]}, "search.operations"),
    ({"search.growth.add_operations": ["tanh"]}, "have 'tanh' more than once"),
    ({"search.growth.start_nodes": 9}, "search.growth.start_nodes is 9; it should be at most search.nodes (4)"),
    ({"search.growth.hidden_start": 99}, "search.growth.hidden_start is 99; it should be at most search.hidden"),
    ({"search.growth.mode": "alternating"}, "search.growth.budget is null, but search.growth.mode is alternating"),
    ({"search.early_stopping.watch": "skip_connections"}, "search.early_stopping.watch is 'skip_connections'"),
    ({"train.devices": 2}, "train.devices is 2; it should be 1"),
    ({"train.precision": "bfloat16"}, "train.precision is bfloat16"),
    ({"latency.budget_ms": 3.0}, "latency: networks for sequences have no latency in the search"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "said"), WRONG, ids=[next(iter(changes)) for changes, _ in WRONG])
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UserError) as error:
        load(PROFILE, changes)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_the_kinds_of_data_have_metrics_of_their_own() -> None:
    assert tasks.metric(load(PROFILE)).name == "mase"
    assert tasks.metric(load(PROFILE, {"data.name": "text"})).name == "bits_per_character"


def test_settings_without_effect_are_inactive() -> None:
    series, text = load(PROFILE).active_keys(), load(PROFILE, {"data.name": "text"}).active_keys()
    assert {"data.lookback", "data.zone"} <= series - text
    assert {"data.chunk", "data.unit"} <= text - series
    assert "data.vocabulary" not in text
    assert "search.growth.every" in series and "search.growth.patience" not in series
    none = load(PROFILE, {"search.growth.mode": "none"}).active_keys()
    assert {key for key in none if key.startswith("search.growth")} == {"search.growth.mode"}


def test_the_schema_offers_what_the_models_have() -> None:
    assert set(get_args(Operation)) == set(OPERATIONS)
    assert set(get_args(SearchParams.model_fields["space"].annotation)) == set(SPACES)


def test_a_growing_search_is_named_by_the_space_that_it_grows_to() -> None:
    changes = {"search.operations": ["none", "tanh"], "search.growth.add_operations": ["relu"]}
    assert load(PROFILE, changes).search.named_space() == "two-input/4/none,tanh,relu"
    fixed = {**changes, "search.growth.mode": "none"}
    assert load(PROFILE, fixed).search.named_space() == "two-input/4/none,tanh"


def test_the_profile_is_complete_and_explained() -> None:
    lines = Path(PROFILE).read_text().splitlines()
    assert lines[0].startswith("#") and all(len(line) <= 128 for line in lines)
