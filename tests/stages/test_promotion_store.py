"""What promotions make of the registry's store: of one that fails, and of a SQLite file that they share."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INTERNAL_ERROR, INVALID_PARAMETER_VALUE, RESOURCE_DOES_NOT_EXIST

from stages.errors import MachineError, UserError
from stages.registry import promotion
from stages.registry.promotion import PROMOTED_OVER, alone, choose, find_alias, roll_back
from tests.stages.registry_in_memory import Registry, champion_with, register


@pytest.mark.parametrize("kind", [int, str])
def test_a_version_is_the_same_whether_its_number_comes_as_a_number_or_as_text(kind: type) -> None:
    registry = champion_with(0.5, *[0.4] * 7, 0.6, 0.6)
    registry.number = kind
    registry.tags[10][PROMOTED_OVER] = "1"  # as good as version 9, and later
    assert register(registry, 9) == registry.aliases["champion"] == 9
    assert registry.tags[9][PROMOTED_OVER] == "1"
    assert roll_back(registry, "model") == "champion of model is version 1 again, instead of version 9"  # type: ignore[arg-type]
    assert choose(registry, "model", "9") == "version 9 of model is now champion, instead of version 1"  # type: ignore[arg-type]
    assert registry.tags[9][PROMOTED_OVER] == "1"


def failing(registry: Registry, call: str, code: int, after: int = 0) -> None:
    """Makes the calls with this name fail with MLflow's error ``code``, but for the first ``after``."""
    calls: list[str] = []

    def before_call(name: str) -> None:
        calls.append(name)
        assert len(calls) < 100, "it goes on for ever"
        if name == call and calls.count(call) > after:
            raise MlflowException("the registry says so", code)

    registry.before_call = before_call


@pytest.mark.parametrize("code", [RESOURCE_DOES_NOT_EXIST, INVALID_PARAMETER_VALUE])
def test_a_missing_alias_and_a_missing_version_are_known_by_each_code_that_stores_give(code: int) -> None:
    registry = champion_with(0.5, champion=None)
    failing(registry, "get_model_version_by_alias", code)
    assert find_alias(registry, "model", "champion") is None  # type: ignore[arg-type]
    failing(registry, "get_model_version", code)
    with pytest.raises(UserError, match="model has no version 1;"):
        choose(registry, "model", "1")  # type: ignore[arg-type]


@pytest.mark.parametrize("call", ["get_model_version_by_alias", "get_model_version"])
@pytest.mark.parametrize(
    "move",
    [
        lambda registry: register(registry, 3),
        lambda registry: choose(registry, "model", "1"),
        lambda registry: roll_back(registry, "model"),
    ],
    ids=["register", "choose", "roll_back"],
)
def test_a_registry_that_fails_is_not_taken_for_an_empty_one(
    move: Callable[[Registry], object], call: str
) -> None:
    registry = champion_with(0.5, 0.6, 0.7)
    register(registry, 2)
    failing(registry, call, INTERNAL_ERROR)
    with pytest.raises(MlflowException, match="says so"):
        move(registry)


def test_a_rollback_that_cannot_read_the_version_before_keeps_the_alias() -> None:
    registry = champion_with(0.5, 0.6, 0.7)
    register(registry, 2)
    register(registry, 3)
    failing(registry, "get_model_version", INTERNAL_ERROR, after=1)
    with pytest.raises(MlflowException, match="says so"):
        roll_back(registry, "model")  # type: ignore[arg-type]
    assert registry.aliases == {"champion": 2, "previous_champion": 2}


def test_promotions_in_one_sqlite_file_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    database = tmp_path / "mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{database}")
    monkeypatch.setattr(promotion, "_PATIENCE", 0.1)
    second = threading.Thread(target=lambda: outcomes.append(attempt()))
    outcomes: list[str] = []

    def attempt() -> str:
        try:
            with alone():
                return "inside"
        except MachineError as error:
            return str(error)

    with alone():
        assert (tmp_path / "mlflow.db.promotion.lock").exists(), "it is where the message says"
        second.start()
        second.join(30)
    assert outcomes == [
        f"another promotion has held {database}.promotion.lock for more than 0 s; wait for that process or end it"
    ]
    assert attempt() == "inside", "the lock is released"


@pytest.mark.parametrize(
    "uri",
    [
        "http://127.0.0.1:9",
        "https://127.0.0.1:9/mlflow",
        "postgresql://127.0.0.1:9/mlflow",
        "databricks",
        "sqlite:///:memory:",
        "sqlite://",
    ],
)
def test_where_there_is_no_file_there_is_no_lock(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with alone():
        assert list(tmp_path.iterdir()) == []
