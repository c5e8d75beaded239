"""The stages and their order, as DVC reads them from dvc.yaml: the graph is written there and nowhere else."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path

import networkx
from dvc.exceptions import DvcException
from dvc.repo import Repo

from stages.errors import UserError


@dataclass(frozen=True)
class Stage:
    """A stage of dvc.yaml. ``gpu``: it computes on a GPU where there is one (``meta: {gpu: true}``)."""

    name: str
    gpu: bool


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
            return [
                Stage(stage.name, bool((stage.meta or {}).get("gpu"))) for stage in order if stage in wanted
            ]
    except DvcException as error:
        raise UserError(f"dvc.yaml in {folder}: {' '.join(str(error).split())}") from None


def up_to_date(folder: Path, name: str) -> bool:
    """Whether nothing that the stage depends on, and none of its outputs, has changed: ``dvc repro`` would skip it.

    Asked within this process, for a process of DVC costs a second to say so. "No" also where another process of DVC
    holds the folder: the stage's own process waits for it.
    """
    try:
        with Repo(str(folder)) as repo:
            return not repo.status(targets=[f"{folder / 'dvc.yaml'}:{name}"])
    except DvcException:
        return False


def _suggestion(wrong: str, known: list[str]) -> str:
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {close[0]}?" if close else f"dvc.yaml has {', '.join(known)}"
