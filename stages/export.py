"""export: writes the retrained network as a file for other programs, and checks it against torch on all test cases.

The same weights give the same file. Where the network comes from is in export.json and in the tags of the run.
"""

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
    metric = tasks.metric(params)
    with stage_run("export", params.export.active()) as tracked:
        with replacing(EXPORT) as folder:
            exported = tasks.export(params.task).export(params, folder)
            data_sha256 = tasks.data(params.task).read_card().sha256
            origin = {"git_commit": git_commit(), "run_id": tracked.id, "data_sha256": data_sha256}
            record = exported.record.model_copy(update={"origin": origin})
            record.write(folder / "export.json", metric)
            record.write_numbers(folder, metric)
            exported.evaluation.save(folder / "evaluation.safetensors")
        tracked.metrics(record.content(metric))
        tracked.artifacts(EXPORT)
        tracked.tags(data_sha256=data_sha256, model_sha256=record.model_sha256)
    for line in exported.lines:
        print(f"export: {line}")


if __name__ == "__main__":
    sys.exit(run("export", main))
