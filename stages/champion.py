"""champion: shows which version is champion, rolls back to the one before (`back`), or makes any version champion.

A version that is named by its number becomes champion without comparison. This command is not a stage of the
pipeline: a person changes the registry with it. `make rollback` is `python -m stages.champion back`.
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
                raise UserError(f"{move!r} is not a version; give the number of a version, or `back`")


def described(version: ModelVersion | None, metric: Metric) -> str:
    """A version, with its scores as far as it has them."""
    if version is None:
        return "none"
    scores = [
        f"test {form.words} {form.digits(float(score))}"
        for form in metric.forms
        if (score := version.tags.get(score_tag(form)))
    ]
    return ", ".join([f"version {version.version}", *scores])


if __name__ == "__main__":
    sys.exit(
        run(
            "champion",
            main,
            move="`back`, or the number of a version; without it, the command shows which version is champion",
        )
    )
