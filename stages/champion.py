"""champion: says which version is champion, moves it back (`back`), or to any version (its number) without comparison.

No stage of the pipeline but a person's hand on the registry: `make rollback` is `python -m stages.champion back`.
"""

from __future__ import annotations

import sys

from stages.errors import UserError
from stages.params import Params
from stages.plumbing.runtime import run
from stages.plumbing.tracking import client, reported
from stages.registry.promotion import CHAMPION, PREVIOUS, alone, choose, find_alias, roll_back


def main(params: Params, move: str | None) -> None:
    mlflow, name = client(), params.registry.name
    with reported():
        if move is None:
            for alias in (CHAMPION, PREVIOUS):
                version = find_alias(mlflow, name, alias)
                accuracy = f", test accuracy {float(version.tags['test_accuracy']):.4f}" if version else ""
                print(f"{alias} of {name}: {f'version {version.version}' if version else 'none'}{accuracy}")
            return
        with alone():
            if move == "back":
                print(roll_back(mlflow, name))
            elif move.isdecimal():
                print(choose(mlflow, name, move))
            else:
                raise UserError(f"{move!r} is no version; give its number, or `back`")


if __name__ == "__main__":
    sys.exit(
        run("champion", main, move="`back`, or the number of a version; without it: says which is champion")
    )
