"""The stages and their order, as DVC reads them from dvc.yaml: the graph is written there and nowhere else."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from pathlib import Path

from pipelines.dvc_internals import Stage, all_stages
from stages.errors import UserError

__all__ = ["Stage", "stages", "without_effect"]


def stages(folder: Path, target: str | None = None) -> list[Stage]:
    """What has to run for ``target`` (None: every stage), each stage after those it depends on.

    Raises UserError for an unknown target, or a dvc.yaml or params.yaml that DVC does not accept.
    """
    chain = all_stages(folder)
    if target is None:
        return chain
    if target not in {stage.name for stage in chain}:
        raise UserError(f"target is {target!r}; {_suggestion(target, sorted(stage.name for stage in chain))}")
    wanted = {target}
    for stage in reversed(chain):
        if stage.name in wanted:
            wanted.update(stage.needs)
    return [stage for stage in chain if stage.name in wanted]


def without_effect(chain: Sequence[Stage], keys: Collection[str]) -> list[Stage]:
    """The stages of a chain, in order, that do the same whatever the values of these keys of params.yaml are."""
    affected: set[str] = set()
    for stage in chain:
        if any(stage.reads(key) for key in keys) or not affected.isdisjoint(stage.needs):
            affected.add(stage.name)
    return [stage for stage in chain if stage.name not in affected]


def _suggestion(wrong: str, known: list[str]) -> str:
    close = difflib.get_close_matches(wrong, known, n=1)
    return f"did you mean {close[0]}?" if close else f"dvc.yaml has {', '.join(known)}"
