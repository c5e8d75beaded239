"""champion: says which version is champion, moves it back (`back`), or to any version (its number) without comparison.

This is not a stage of the pipeline. A person changes the registry with it: `make rollback` is
`python -m stages.champion back`.
"""

from __future__ import annotations

import sys

from mlflow.entities.model_registry import ModelVersion

from stages.errors import UserError
from stages.evaluation import Metric
from stages.params import Params
from stages.plumbing.runtime import run
from stages.plumbing.tracking import client, reported
from stages.registry.promotion import CHAMPION, PREVIOUS, alone, choose, find_alias, roll_back, score_tag
from stages.registry.task import task_of


def main(params: Params, move: str | None) -> None:
    mlflow, name = client(), params.registry.name
    with reported():
        if move is None:
            for alias in (CHAMPION, PREVIOUS):
                version = find_alias(mlflow, name, alias)
                print(f"{alias} of {name}: {described(version, task_of(params).metric)}")
            return
        with alone():
            if move == "back":
                print(roll_back(mlflow, name))
            elif move.isdecimal():
                print(choose(mlflow, name, move))
            else:
                raise UserError(f"{move!r} is not a version; give a version's number, or `back`")


def described(version: ModelVersion | None, metric: Metric) -> str:
    """A version and its score, where it has one."""
    if version is None:
        return "none"
    score = version.tags.get(score_tag(metric))
    return f"version {version.version}" + (
        f", test {metric.words} {metric.digits(float(score))}" if score else ""
    )


if __name__ == "__main__":
    sys.exit(
        run(
            "champion",
            main,
            move="`back`, or a version's number; without it, the command says which version is champion",
        )
    )
