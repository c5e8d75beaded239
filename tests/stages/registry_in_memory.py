"""A registry in memory, with registrations that can be interrupted or run at the same time."""

from __future__ import annotations

import random
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST

from stages.evaluation import Metric
from stages.registry.promotion import REPORT, promote

HIGHER = Metric("accuracy", "image", higher_is_better=True, outcomes="right or wrong")
LOWER = Metric("squared_error", "window", higher_is_better=False, outcomes="numbers")


@dataclass
class Registry:
    """The part of MlflowClient that promotion uses. ``before_call`` is called before every call."""

    metric: Metric = HIGHER
    tags: dict[int, dict[str, str]] = field(default_factory=dict)
    aliases: dict[str, int] = field(default_factory=dict)
    before_call: Callable[[str], None] = lambda _: None
    number: type = int  # of a version: MLflow gives int from its own database, str from a server

    def add(self, version: int, goodness: float, **tags: str) -> None:
        """Adds a tested version. More goodness is better, whatever the metric's direction."""
        score = goodness if self.metric.higher_is_better else 1 - goodness
        self.tags[version] = {f"test_{self.metric.name}": str(score), "test_sha256": "same", **tags}

    def goodness(self, version: Any) -> float:
        """The goodness that was given to ``add``."""
        score = float(self.tags[int(version)][f"test_{self.metric.name}"])
        return score if self.metric.higher_is_better else 1 - score

    def get_model_version(self, _: str, version: str) -> Any:
        self.before_call("get_model_version")
        if int(version) not in self.tags:
            raise MlflowException("no such version", RESOURCE_DOES_NOT_EXIST)
        return SimpleNamespace(version=self.number(version), tags=dict(self.tags[int(version)]))

    def get_model_version_by_alias(self, _: str, alias: str) -> Any:
        self.before_call("get_model_version_by_alias")
        if alias not in self.aliases:
            raise MlflowException("no such alias", RESOURCE_DOES_NOT_EXIST)
        version = self.aliases[alias]
        return SimpleNamespace(version=self.number(version), tags=dict(self.tags[version]))

    def search_model_versions(self, _: str) -> list[Any]:
        self.before_call("search_model_versions")
        return [SimpleNamespace(version=self.number(v), tags=dict(tags)) for v, tags in self.tags.items()]

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
    """Does what the stage does: promotes the version, then marks it as done. Returns the champion."""

    def judge(champion: Any) -> Judgement:
        assert champion is None or champion.version != version, (
            "a version must be compared with the one it replaces"
        )
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
    """Versions 1, 2, ... with this goodness. Version 1 was registered before and is champion."""
    registry = Registry(metric)
    for version, good in enumerate(goodness, start=1):
        registry.add(version, good)
    if champion is not None:
        registry.tags[champion][REPORT] = "{}"
        registry.aliases["champion"] = champion
    return registry


def run_in_order(registry: Registry, versions: list[int], draw: random.Random) -> None:
    """Registers the versions at the same time. Before every call to the registry, chance decides whose call is next."""
    turn = threading.Condition()
    waiting: set[int] = set()
    running = set(versions)
    chosen: list[int] = []
    last: list[int] = []
    stubbornness = draw.random()  # from alternating calls to whole promotions while another one waits
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


class Crash(BaseException):
    """Stands for the end of a process at this point."""


def crash_at(registry: Registry, call: int) -> None:
    calls = iter(range(10**6))

    def before_call(_: str) -> None:
        if next(calls) == call:
            raise Crash

    registry.before_call = before_call
