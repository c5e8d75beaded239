"""report: writes one page about the whole run: the network found, the search, the results, and how to repeat the run.

The page is a single file: it contains all drawings and pictures, and no script. Equal inputs give equal pages.

It shows what this registry decided, so it is no output that DVC keeps: a team shares dvc.lock, but not every registry.
DVC calls this stage every time, and the stage itself draws only when something that the page shows has changed.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import TYPE_CHECKING

from stages import tasks
from stages.page import versions
from stages.plumbing.code import ROOT
from stages.plumbing.files import ARTIFACTS, CARD, DATA, REGISTRY, REPORT, sha256_of, write_text
from stages.plumbing.runtime import STATE, run
from stages.registry.record import RegistryRecord

if TYPE_CHECKING:
    from stages.params import Params
    from stages.plumbing.tracking import StageRun

RUN_TAG = "run_report"  # tag of the registered version that names the run with the page; the server reads it
_MADE_FROM = STATE / "report" / "made_from"  # holds the hash of what the page was made from


def main(params: Params) -> None:
    registry, key = RegistryRecord.read(REGISTRY), made_from(params)
    if REPORT.is_file() and _MADE_FROM.is_file() and _MADE_FROM.read_text() == key:
        print(f"report: {REPORT} is up to date")
        return
    from stages import report_page  # here, because most calls draw nothing
    from stages.plumbing.tracking import stage_run

    page = report_page.rendered(params, registry, tasks.metric(params))
    with stage_run("report", params.report.active()) as tracked:
        write_text(REPORT, page)
        tracked.artifacts(REPORT)
        tell_registry(registry, tracked)
    _MADE_FROM.parent.mkdir(parents=True, exist_ok=True)
    write_text(_MADE_FROM, key)  # last, so that a page whose registry does not know of it is made again
    print(f"report: {REPORT}, {len(page.encode()) / 1e6:.1f} MB")


def tell_registry(registry: RegistryRecord, tracked: StageRun) -> None:
    """Tags the version with the run that has its report."""
    from stages.plumbing.tracking import reported

    with reported():
        tracked.mlflow.set_model_version_tag(registry.model, str(registry.version), RUN_TAG, tracked.id)


def made_from(params: Params) -> str:
    """The hash of all that the page depends on: settings, artifacts, code and packages.

    All artifacts and all code of stages/ and models/ count, because hashing these takes less time than to find out which
    of them the page shows. The arrays of the data do not, because data.json has their hash.
    """
    others = {REPORT, CARD, *(path for path in DATA.glob("*") if path.suffix != ".json")}
    shown = sorted(path for path in ARTIFACTS.rglob("*") if path.is_file() and path not in others)
    rooms = [path for room in ("models", "stages") for path in (ROOT / room).rglob("*")]
    code = sorted(path for path in rooms if path.suffix in (".py", ".html"))
    content = {
        "params": params.of_results(),
        "artifacts": {str(path): sha256_of(path) for path in shown},
        "code": sha256_of(*code),
        "versions": versions(tasks.packages(params.task)),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


if __name__ == "__main__":
    sys.exit(run("report", main))
