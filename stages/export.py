"""export: writes the retrained network as a file for other programs, and checks it against torch on all test cases."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from stages import tasks
from stages.plumbing.files import EXPORT, replacing
from stages.plumbing.runtime import run
from stages.plumbing.tracking import git_commit, stage_run

if TYPE_CHECKING:
    from stages.params import Params


def main(params: Params) -> None:
    metric = tasks.metric(params.task)
    with stage_run("export", params.export.active()) as tracked:
        with replacing(EXPORT) as folder:
            origin = {"git_commit": git_commit(), "run_id": tracked.id}
            exported = tasks.export(params.task).export(params, folder, origin)
            exported.record.write(folder / "export.json", metric)
            exported.evaluation.save(folder / "evaluation.safetensors")
        tracked.metrics(exported.record.content(metric))
        tracked.artifacts(EXPORT)
    for line in exported.lines:
        print(f"export: {line}")


if __name__ == "__main__":
    sys.exit(run("export", main))
