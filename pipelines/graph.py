"""The stages and their order, as DVC reads them from dvc.yaml: the graph is written there and nowhere else."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import networkx
from dvc.dependency.param import ParamsDependency
from dvc.exceptions import DvcException
from dvc.repo import Repo

from stages.errors import UserError


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml."""

    name: str
    gpu: bool  # it computes on a GPU where there is one (``meta: {gpu: true}``)
    needs: tuple[str, ...] = ()  # the stages whose outputs it reads
    params: tuple[str, ...] = ()  # the sections and keys of params.yaml that it reads

    def reads(self, key: str) -> bool:
        """Whether the value of a key of params.yaml changes what the stage does."""
        return any(
            key == own or key.startswith(f"{own}.") or own.startswith(f"{key}.") for own in self.params
        )


def stages(folder: Path, target: str | None = None) -> list[Stage]:
    """What has to run for ``target`` (every stage: None), each after those it depends on.

    Raises UserError for an unknown target, or a dvc.yaml or params.yaml that DVC does not accept.
    """
    try:
        with Repo(str(folder)) as repo:
            graph = repo.index.graph  # from a stage to those it depends on
            names = {stage.name: stage for stage in graph}
            if target is not None and target not in names:
                raise UserError(f"target is {target!r}; {_suggestion(target, sorted(names))}")
            wanted = (
                set(graph) if target is None else {names[target], *networkx.descendants(graph, names[target])}
            )
            # Among stages that do not depend on each other the order of their names: the same every time.
            order = networkx.lexicographical_topological_sort(graph.reverse(), key=lambda stage: stage.name)
            return [_stage(graph, stage) for stage in order if stage in wanted]
    except DvcException as error:
        raise UserError(f"dvc.yaml in {folder}: {' '.join(str(error).split())}") from None


def without_effect(chain: Sequence[Stage], keys: Collection[str]) -> list[Stage]:
    """The stages of a chain, in order, that do the same whatever the values of these keys of params.yaml are."""
    affected: set[str] = set()
    for stage in chain:
        if any(stage.reads(key) for key in keys) or not affected.isdisjoint(stage.needs):
            affected.add(stage.name)
    return [stage for stage in chain if stage.name not in affected]


def up_to_date(folder: Path, *names: str) -> bool:
    """Whether nothing that these stages depend on, and none of their outputs, has changed: ``dvc repro`` would skip them.

    Asked within this process, for a process of DVC costs a second to say so. "No" also where another process of DVC
    holds the folder: the stage's own process waits for it.
    """
    try:
        # Not repo.status(), which looks for names in the dvc.yaml of the current folder.
        with Repo(str(folder)) as repo, repo.lock:
            return not any(stage.status() for stage in repo.index.graph if stage.name in names)
    except DvcException:
        return False


def _stage(graph: networkx.DiGraph, stage: Any) -> Stage:
    params = [key for dep in stage.deps if isinstance(dep, ParamsDependency) for key in dep.params]
    needs = sorted(needed.name for needed in graph.successors(stage))
    return Stage(stage.name, bool((stage.meta or {}).get("gpu")), tuple(needs), tuple(params))


def _suggestion(wrong: str, known: list[str]) -> str:
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {close[0]}?" if close else f"dvc.yaml has {', '.join(known)}"
