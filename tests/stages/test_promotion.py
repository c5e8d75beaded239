"""Who is champion: whatever happens at the same time, wherever a process ends, and on the way back.

The registry here is in memory, so that thousands of orders of events can be tried; test_register.py has MLflow's
own.
"""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest

from stages.errors import UserError
from stages.evaluation import Metric
from stages.registry import promotion
from stages.registry.promotion import PROMOTED_OVER, WITHDRAWN, choose, roll_back
from tests.stages.registry_in_memory import (
    HIGHER,
    LOWER,
    Crash,
    Judgement,
    champion_with,
    crash_at,
    promoted,
    register,
    run_in_order,
)


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
            assert registry.aliases["previous_champion"] == 1  # so a rollback at this point would work
        registry.before_call = lambda _: None
        assert register(registry, 2) == registry.aliases["champion"] == (2 if challenger > 0.5 else 1)
        assert registry.aliases.get("previous_champion") == (1 if challenger > 0.5 else None)
    assert crashes >= 3


def test_of_two_at_once_the_better_is_champion_without_being_judged_against_the_other() -> None:
    registry = champion_with(0.5, 0.7, 0.65)
    registry.tags[3][PROMOTED_OVER] = "1"  # its promotion has begun
    judged: list[int] = []

    def the_other_moves(call: str) -> None:
        if call == "search_model_versions" and PROMOTED_OVER in registry.tags[2]:
            registry.aliases["champion"] = 3
            registry.before_call = lambda _: None

    def judge(champion: Any) -> Judgement:
        judged.append(champion.version)
        return Judgement(champion.version == 1)  # not enough better than version 3

    registry.before_call = the_other_moves
    assert promoted(registry, 2, judge)[1] == registry.aliases["champion"] == 2
    assert judged == [1]


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


def test_one_that_followed_the_overwritten_one_comes_back_too() -> None:
    registry = champion_with(0.5, 0.6, 0.65, 0.8, 0.7)
    assert (register(registry, 3), register(registry, 4)) == (3, 4)
    registry.tags[2][PROMOTED_OVER] = (
        "1"  # version 2 began before version 3, moved the alias last and was cut off
    )
    registry.aliases["champion"] = 2
    assert register(registry, 5) == registry.aliases["champion"] == 4


def test_one_that_was_cut_off_does_not_bring_back_the_champion_that_a_person_has_replaced() -> None:
    registry = champion_with(0.9, 0.6, 0.5, 0.7, champion=None)
    register(registry, 1)
    registry.tags[2] |= {PROMOTED_OVER: "1", "test_sha256": "other"}  # cut off
    choose(registry, "model", "3")  # type: ignore[arg-type]
    assert register(registry, 4) == registry.aliases["champion"] == 4


def test_of_equals_the_first_is_best() -> None:
    for metric in (HIGHER, LOWER):
        tags = {f"test_{metric.name}": "0.5"}
        first, second = (SimpleNamespace(version=number, tags=tags) for number in (2, 10))
        assert promotion._rank(first, metric) > promotion._rank(second, metric)  # type: ignore[arg-type]


def test_a_version_from_before_there_was_the_metric_ranks_below_the_worst() -> None:
    balanced = Metric("accuracy", "image", True, "right or wrong", classes=True).forms[-1]
    older = SimpleNamespace(version=1, tags={"test_accuracy": "0.9"})
    worst = SimpleNamespace(version=2, tags={"test_accuracy": "0.1", "test_balanced_accuracy": "0.0"})
    assert promotion._rank(older, balanced) < promotion._rank(worst, balanced)  # type: ignore[arg-type]


def test_back_and_back_again_to_the_first() -> None:
    registry = champion_with(0.5, 0.6, 0.7)
    register(registry, 2)
    register(registry, 3)
    assert registry.aliases == {"champion": 3, "previous_champion": 2}
    assert roll_back(registry, "model") == "champion of model is version 2 again, instead of version 3"  # type: ignore[arg-type]
    assert registry.aliases == {"champion": 2, "previous_champion": 1}
    # Registries that exist hold these names, and docs/registry.md gives them.
    assert registry.tags[2]["promoted_over"] == "1" and "report" in registry.tags[2]
    assert registry.tags[3]["withdrawn"] == "rolled back to 2"
    assert "promoted_over" not in registry.tags[3], "the version has lost its promotion"
    assert choose(registry, "model", "3") == "version 3 of model is now champion, instead of version 2"  # type: ignore[arg-type]
    assert registry.tags[3][PROMOTED_OVER] == "2" and WITHDRAWN not in registry.tags[3]
    roll_back(registry, "model")  # type: ignore[arg-type]
    roll_back(registry, "model")  # type: ignore[arg-type]
    assert registry.aliases == {"champion": 1}
    with pytest.raises(UserError, match="none was champion before version 1;"):
        roll_back(registry, "model")  # type: ignore[arg-type]
    assert registry.aliases == {"champion": 1}


def test_back_from_a_champion_whose_promotion_was_cut_off_between_the_aliases() -> None:
    registry = champion_with(0.5, 0.6, 0.7)
    register(registry, 2)
    registry.aliases["previous_champion"] = 2  # version 3 was about to become champion
    assert roll_back(registry, "model") == "champion of model is version 1 again, instead of version 2"  # type: ignore[arg-type]
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
        registry.add(3, 0.6)  # a withdrawn version is no longer a rival
        assert register(registry, 3) == registry.aliases["champion"] == 3


def test_a_person_may_choose_any_version_and_go_back() -> None:
    registry = champion_with(0.5, 0.6, 0.7)
    register(registry, 2)
    register(registry, 3)
    assert choose(registry, "model", "1") == "version 1 of model is now champion, instead of version 3"  # type: ignore[arg-type]
    registry.add(4, 0.55)  # better than the champion, worse than the former ones that a person has withdrawn
    assert register(registry, 4) == registry.aliases["champion"] == 4
    roll_back(registry, "model")  # type: ignore[arg-type]
    roll_back(registry, "model")  # type: ignore[arg-type]
    assert registry.aliases["champion"] == 3
    assert choose(registry, "model", "3") == "version 3 of model is already champion"  # type: ignore[arg-type]
    with pytest.raises(UserError, match="model has no version 9; `make ui` shows its versions"):
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


def test_a_score_on_other_test_cases_does_not_count() -> None:
    registry = champion_with(0.9, 0.6, champion=None)
    registry.tags[1] |= {"test_sha256": "other", PROMOTED_OVER: "none"}  # cut off before it became champion
    assert register(registry, 2) == registry.aliases["champion"] == 2


def test_a_chosen_version_without_a_score_can_be_replaced() -> None:
    registry = champion_with(0.5, 0.6, champion=None)
    registry.tags[1] = {}  # somebody has made it with MLflow alone
    choose(registry, "model", "1")  # type: ignore[arg-type]
    assert promoted(registry, 2, lambda _: Judgement(True))[1] == registry.aliases["champion"] == 2


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


def test_a_promotion_that_has_not_moved_champion_yet_leaves_nothing_to_go_back_to() -> None:
    registry = champion_with(0.5, 0.7)
    crash_at(registry, 6)
    with pytest.raises(Crash):
        register(registry, 2)
    registry.before_call = lambda _: None
    assert registry.aliases == {"champion": 1, "previous_champion": 1}
    with pytest.raises(UserError, match="model has no version to roll back to"):
        roll_back(registry, "model")  # type: ignore[arg-type]
    assert registry.aliases["champion"] == 1
    assert WITHDRAWN not in registry.tags[1]


def test_a_rollback_to_a_version_whose_predecessor_was_deleted() -> None:
    registry = champion_with(0.5, 0.6, 0.7)
    register(registry, 2)
    register(registry, 3)
    del registry.tags[1]
    roll_back(registry, "model")  # type: ignore[arg-type]
    assert registry.aliases == {"champion": 2}
