"""measure: learns how long networks of the search space take, so that the search can keep to a budget.

Is always called, because only it knows the machine and the user's table; repeats nothing that it knows already.
``python -m stages.measure kit OUT.zip`` packs a kit that measures on another device.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from stages import tasks
from stages.errors import UserError
from stages.plumbing.files import LATENCY, LATENCY_JSON, replacing, write_json
from stages.plumbing.runtime import run

if TYPE_CHECKING:
    from stages.contracts import Latency
    from stages.params import Params


def main(params: Params) -> None:
    if not params.latency.known():
        if not LATENCY_JSON.is_file():  # DVC expects what the search depends on
            with replacing(LATENCY) as folder:
                write_json(folder / LATENCY_JSON.name, {})
        print("measure: nothing to do, because neither latency.budget_ms nor latency.measurements is set")
        return
    part = part_of(params)
    from stages.measuring.work import measure  # here, because it imports torch and MLflow

    for line in measure(params, part):
        print(f"measure: {line}")


def kit(params: Params, command: str | None, out: str | None) -> None:
    if command != "kit" or out is None:
        raise UserError(f"{command!r} is unknown or incomplete; give nothing, or `kit OUT.zip`")
    part, path = part_of(params), Path(out)
    if path.suffix != ".zip" or path.is_dir() or not path.parent.is_dir():
        raise UserError(
            f"the kit cannot be written to {out}; give the name of a .zip file in a folder that exists"
        )
    from stages.measuring.work import pack

    networks = pack(params, part, path)
    print(
        f"measure: {path}, {networks} networks, {path.stat().st_size / 1e6:.1f} MB; on the device: python {path.name}"
    )


def part_of(params: Params) -> Latency:
    """The task's part. Raises UserError when the task has none."""
    part = tasks.latency(params.task)
    if part is None:
        raise UserError(
            f"the task {params.task} cannot measure the latency of its networks; set latency.budget_ms and"
            " latency.measurements to null, and latency.weight to auto"
        )
    return part


if __name__ == "__main__":
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        meaning = {
            "command": "`kit`: packs networks for measuring on another device",
            "out": "the kit, a .zip file",
        }
        sys.exit(run("measure", kit, **meaning))
    sys.exit(run("measure", main))
