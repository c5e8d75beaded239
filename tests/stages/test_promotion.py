"""Who is champion: whatever happens at the same time, wherever a process ends, and on the way back.

The registry here is in memory, so that thousands of orders of events can be tried; test_register.py has MLflow's own.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from stages.errors import MachineError, UserError
from stages.evaluation import Metric
from stages.registry import promotion
from stages.registry.promotion import PROMOTED_OVER, REPORT, WITHDRAWN, alone, choose, promote, roll_back

HIGHER = Metric("accuracy", "image", higher_is_better=True, outcomes="right or wrong")
LOWER = Metric("squared_error", "window", higher_is_better=False, outcomes="numbers")


@dataclass
class Registry:
    """As much of MlflowClient as promotion uses; ``before_call`` is called before every call."""

    metric: Metric = HIGHER
    tags: dict[int, dict[str, str]] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    before_call: Callable[[str], None] = lambda _: None

    def add(self, version: int, goodness: float, **tags: str) -> None:
        """A version that has been tested. More goodness is better in either direction of the metric."""
        score = goodness if self.metric.higher_is_better else 1 - goodness
        self.tags[version] = {f"test_{self.metric.name}": str(score), "test_sha256": "same", **tags}

    def goodness(self, version: Any) -> float:
        """What was given to ``add``."""
        score = float(self.tags[int(version)][f"test_{self.metric.name}"])
        return score if self.metric.higher_is_better else 1 - score

    def get_model_version(self, _: str, version: str) -> Any:
        self.before_call("get_model_version")
        if int(version) not in self.tags:
            raise MlflowException("no such version", RESOURCE_DOES_NOT_EXIST)
        return SimpleNamespace(version=int(version), tags=dict(self.tags[int(version)]))

    def get_model_version_by_alias(self, _: str, alias: str) -> Any:
        self.before_call("get_model_version_by_alias")
        if alias not in self.aliases:
            raise MlflowException("no such alias", RESOURCE_DOES_NOT_EXIST)
        version = self.aliases[alias]
        return SimpleNamespace(version=version, tags=dict(self.tags[version]))

    def search_model_versions(self, _: str) -> list[Any]:
        self.before_call("search_model_versions")
        return [SimpleNamespace(version=v, tags=dict(tags)) for v, tags in self.tags.items()]

    def set_model_version_tag(self, _: str, version: str, key: str, value: str) -> None:
        self.before_call("set_model_version_tag")
        self.tags[int(version)][key] = value

    def delete_model_version_tag(self, _: str, version: str, key: str) -> None:
        self.before_call("delete_model_version_tag")
        self.tags[int(version)].pop(key, None)

    def set_registered_model_alias(self, _: str, alias: str, version: str) -> None:
        self.before_call("set_registered_model_alias")
        self.aliases[alias] = int(version)

    def delete_registered_model_alias(self, _: str, alias: str) -> None:
        self.before_call("delete_registered_model_alias")
        self.aliases.pop(alias, None)


@dataclass(frozen=True)
class Judgement:
    accepted: bool


def register(registry: Registry, version: int) -> int | None:
    """What the stage does with it: promotes, then marks the version as done; returns the champion."""

    def judge(champion: Any) -> Judgement:
        assert champion is None or champion.version != version, "it is to be compared with what it replaces"
        return Judgement(
            champion is None or registry.goodness(version) > registry.goodness(champion.version) + 1e-9
        )

    _, champion = promoted(registry, version, judge)
    registry.set_model_version_tag("model", str(version), REPORT, "{}")
    return champion


def promoted(
    registry: Registry, version: int, judge: Callable[[Any], Judgement]
) -> tuple[Judgement, int | None]:
    """``promote`` on the registry in memory."""
    return promote(registry, "model", str(version), judge, registry.metric)  # type: ignore[arg-type]


def champion_with(*goodness: float, champion: int | None = 1, metric: Metric = HIGHER) -> Registry:
    """Versions 1, 2, ... that are this good, of which 1 was registered before and is champion."""
    registry = Registry(metric)
    for version, good in enumerate(goodness, start=1):
        registry.add(version, good)
    if champion is not None:
        registry.tags[champion][REPORT] = "{}"
        registry.aliases["champion"] = champion
    return registry


def run_in_order(registry: Registry, versions: list[int], draw: random.Random) -> None:
    """Registers the versions at once; before every call to the registry, chance chooses whose call is next."""
    turn = threading.Condition()
    waiting: set[int] = set()
    running = set(versions)
    chosen: list[int] = []
    last: list[int] = []
    stubbornness = draw.random()  # from calls in turn to whole promotions while another one stands still
    mine = threading.local()

    def choose_next() -> None:
        if running and waiting == running and not chosen:
            again = (
                last[-1:]
                if last and last[-1] in waiting and draw.random() < stubbornness
                else sorted(waiting)
            )
            chosen.append(draw.choice(again))
            last.append(chosen[0])
            turn.notify_all()

    def before_call(_: str) -> None:
        with turn:
            waiting.add(mine.version)
            choose_next()
            assert turn.wait_for(lambda: chosen == [mine.version], timeout=30)
            chosen.clear()
            waiting.discard(mine.version)

    def work(version: int) -> None:
        mine.version = version
        try:
            register(registry, version)
        finally:
            with turn:
                running.discard(version)
                choose_next()

    registry.before_call = before_call
    threads = [threading.Thread(target=work, args=(version,)) for version in versions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    registry.before_call = lambda _: None


@pytest.mark.parametrize("metric", [HIGHER, LOWER], ids=["higher", "lower"])
@pytest.mark.parametrize("champion", [1, None])
@pytest.mark.parametrize(
    "goodness",
    [(0.6, 0.7), (0.7, 0.6), (0.7, 0.7), (0.6, 0.7, 0.65), (0.6, 0.65, 0.75), (0.6, 0.65, 0.7, 0.75)],
)
def test_of_several_at_once_the_best_is_champion(
    goodness: tuple[float, ...], champion: int | None, metric: Metric
) -> None:
    for seed in range(300):
        registry = champion_with(0.5, *goodness, champion=champion, metric=metric)
        run_in_order(registry, list(range(2, 2 + len(goodness))), random.Random(f"{seed} {metric.name}"))
        winner = registry.aliases["champion"]
        assert registry.goodness(winner) == pytest.approx(max(goodness)), f"seed {seed}"
        assert registry.aliases.get("previous_champion") != winner


class Crash(BaseException):
    """The process ends here."""


def crash_at(registry: Registry, call: int) -> None:
    calls = iter(range(10**6))

    def before_call(_: str) -> None:
        if next(calls) == call:
            raise Crash

    registry.before_call = before_call


@pytest.mark.parametrize("metric", [HIGHER, LOWER], ids=["higher", "lower"])
@pytest.mark.parametrize("challenger", [0.4, 0.7])
def test_wherever_it_ends_there_is_one_champion_and_another_run_completes_it(
    challenger: float, metric: Metric
) -> None:
    crashes = 0
    for call in range(100):
        registry = champion_with(0.5, challenger, metric=metric)
        crash_at(registry, call)
        try:
            register(registry, 2)
        except Crash:
            crashes += 1
        else:
            break
        assert registry.aliases["champion"] in (1, 2)
        if registry.aliases["champion"] == 2:
            assert registry.aliases["previous_champion"] == 1  # a rollback now would find its way
        registry.before_call = lambda _: None
        assert register(registry, 2) == registry.aliases["champion"] == (2 if challenger > 0.5 else 1)
        assert registry.aliases.get("previous_champion") == (1 if challenger > 0.5 else None)
    assert crashes >= 3


def test_one_that_was_cut_off_does_not_stop_the_next() -> None:
    for call in range(9):
        registry = champion_with(0.5, 0.6, 0.7)
        crash_at(registry, call)
        with pytest.raises(Crash):
            register(registry, 2)
        registry.before_call = lambda _: None
        assert register(registry, 3) == registry.aliases["champion"] == 3


def test_a_better_one_that_was_overwritten_in_a_crash_comes_back_with_the_next() -> None:
    registry = champion_with(0.5, 0.6, 0.7, 0.65)
    moves = iter(range(100))

    def overtaken(call: str) -> None:
        if call != "set_registered_model_alias" or (move := next(moves)) == 0:
            return
        assert move == 1  # version 2 is about to become champion, and has not seen version 3
        registry.before_call = lambda _: None
        assert register(registry, 3) == 3
        registry.before_call = crash_after_this

    def crash_after_this(_: str) -> None:
        raise Crash

    registry.before_call = overtaken
    with pytest.raises(Crash):
        register(registry, 2)
    registry.before_call = lambda _: None
    assert registry.aliases["champion"] == 2, "the worse one has overwritten the better one"
    assert register(registry, 4) == registry.aliases["champion"] == 3


def test_of_equals_the_first_is_best() -> None:
    for metric in (HIGHER, LOWER):
        tags = {f"test_{metric.name}": "0.5"}
        first, second = (SimpleNamespace(version=number, tags=tags) for number in (2, 10))
        assert promotion._rank(first, metric) > promotion._rank(second, metric)  # type: ignore[arg-type]


def test_back_and_back_again_to_the_first() -> None:
    registry = champion_with(0.5, 0.6, 0.7)
    register(registry, 2)
    register(registry, 3)
    assert registry.aliases == {"champion": 3, "previous_champion": 2}
    assert roll_back(registry, "model") == "champion of model is version 2 again, instead of version 3"  # type: ignore[arg-type]
    assert registry.aliases == {"champion": 2, "previous_champion": 1}
    assert WITHDRAWN in registry.tags[3]
    assert PROMOTED_OVER not in registry.tags[3], "it has lost what it won"
    assert choose(registry, "model", "3") == "version 3 of model is now champion, instead of version 2"  # type: ignore[arg-type]
    assert registry.tags[3][PROMOTED_OVER] == "2" and WITHDRAWN not in registry.tags[3]
    roll_back(registry, "model")  # type: ignore[arg-type]
    roll_back(registry, "model")  # type: ignore[arg-type]
    assert registry.aliases == {"champion": 1}
    with pytest.raises(UserError, match="none was champion before version 1;"):
        roll_back(registry, "model")  # type: ignore[arg-type]
    assert registry.aliases == {"champion": 1}


def test_wherever_a_rollback_ends_another_completes_it() -> None:
    for call in range(100):
        registry = champion_with(0.5, 0.7)
        register(registry, 2)
        crash_at(registry, call)
        try:
            roll_back(registry, "model")  # type: ignore[arg-type]
        except Crash:
            assert registry.aliases["champion"] in (1, 2)
        else:
            assert call > 3
            break
        registry.before_call = lambda _: None
        if registry.aliases["champion"] == 2:
            roll_back(registry, "model")  # type: ignore[arg-type]
        assert registry.aliases["champion"] == 1
        registry.add(3, 0.6)  # what was withdrawn is no rival any more
        assert register(registry, 3) == registry.aliases["champion"] == 3


def test_a_person_may_choose_any_version_and_go_back() -> None:
    registry = champion_with(0.5, 0.6, 0.7)
    register(registry, 2)
    register(registry, 3)
    assert choose(registry, "model", "1") == "version 1 of model is now champion, instead of version 3"  # type: ignore[arg-type]
    registry.add(4, 0.55)  # better than the champion, worse than former ones, which a person has put aside
    assert register(registry, 4) == registry.aliases["champion"] == 4
    roll_back(registry, "model")  # type: ignore[arg-type]
    roll_back(registry, "model")  # type: ignore[arg-type]
    assert registry.aliases["champion"] == 3
    assert choose(registry, "model", "3") == "version 3 of model is already champion"  # type: ignore[arg-type]
    with pytest.raises(UserError, match="model has no version 9"):
        choose(registry, "model", "9")  # type: ignore[arg-type]


@pytest.mark.parametrize("accepted", [True, False])
def test_a_person_who_moves_champion_while_another_is_judged_has_the_new_one_judged_again(
    accepted: bool,
) -> None:
    registry = champion_with(0.5, 0.7, 0.6)
    register(registry, 2)
    seen = []

    def judge(champion: Any) -> Judgement:
        seen.append(champion.version)
        if len(seen) == 1:
            roll_back(registry, "model")  # type: ignore[arg-type]
        return Judgement(len(seen) == 1 or accepted)

    assert promoted(registry, 3, judge)[1] == (3 if accepted else 1)
    assert seen == [2, 1]
    # The version that was rolled back does not return, not even as the one before the champion.
    assert registry.aliases == ({"champion": 3, "previous_champion": 1} if accepted else {"champion": 1})


@pytest.mark.parametrize("accepted", [True, False])
def test_a_person_who_moves_champion_during_the_move_is_not_overruled(accepted: bool) -> None:
    registry = champion_with(0.5, 0.7, 0.6)
    judged: list[int] = []

    def moved_by_hand(_: str) -> None:
        if (
            PROMOTED_OVER in registry.tags[2]
            and registry.aliases["champion"] == 1
            and "previous_champion" in registry.aliases
        ):
            registry.aliases["champion"] = 3

    def judge(champion: Any) -> Judgement:
        judged.append(champion.version)
        return Judgement(champion.version == 1 or accepted)

    registry.before_call = moved_by_hand
    assert promoted(registry, 2, judge)[1] == registry.aliases["champion"] == (2 if accepted else 3)
    assert judged == [1, 3]
    if accepted:
        assert (registry.aliases["previous_champion"], registry.tags[2][PROMOTED_OVER]) == (3, "3")


def test_a_former_champion_is_no_rival_where_the_alias_was_removed_by_hand() -> None:
    registry = champion_with(0.5, 0.7, 0.6)
    register(registry, 2)
    del registry.aliases["champion"]
    assert PROMOTED_OVER in registry.tags[2]
    assert register(registry, 3) == registry.aliases["champion"] == 3


def test_without_a_champion_there_is_nothing_to_go_back_to_and_any_version_may_be_chosen() -> None:
    registry = champion_with(0.5, champion=None)
    with pytest.raises(UserError, match="model has no champion to roll back"):
        roll_back(registry, "model")  # type: ignore[arg-type]
    assert choose(registry, "model", "1") == "version 1 of model is now champion, and there was none before"  # type: ignore[arg-type]
    assert registry.aliases == {"champion": 1}
    assert registry.tags[1][PROMOTED_OVER] == "none"


def test_a_first_champion_was_promoted_over_none() -> None:
    registry = champion_with(0.5, champion=None)
    assert register(registry, 1) == 1
    assert registry.tags[1][PROMOTED_OVER] == "none"
    assert registry.aliases == {"champion": 1}


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
        second.start()
        second.join(30)
    assert outcomes == [
        f"another promotion has held {database}.promotion.lock for more than 0 s; wait for that process or end it"
    ]
    assert attempt() == "inside", "the lock is given back"


@pytest.mark.parametrize("uri", ["http://127.0.0.1:9", "sqlite:///:memory:", "sqlite://"])
def test_where_there_is_no_file_there_is_no_lock(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with alone():
        assert list(tmp_path.iterdir()) == []
