"""A stage that fails leaves its earlier results in place, although DVC has removed them before it ran.

DVC removes the outputs of a stage and then runs it. With ``persist: true`` it would leave them, but then its run-cache does
not serve the stage: going back to earlier settings would compute everything again. So a stage that ends without outputs asks
DVC for those that dvc.lock still names. A stage that is killed with -9 cannot; `dvc checkout` does the same by hand.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

LOCK = Path("dvc.lock")


def bring_back() -> None:
    """Takes the earlier outputs of the stage that DVC runs out of DVC's cache, where they are missing."""
    stage = os.environ["DVC_STAGE"]
    if all(path.exists() for path in _outputs(stage)):
        return
    # A process, because DVC promises nothing about its Python. It gets the lock, which DVC gives up while a stage runs.
    command = [sys.executable, "-m", "dvc", "--wait-for-lock", "checkout", "--quiet", stage]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = " ".join((done.stderr or done.stdout).split())[:200]
        print(
            f"{stage}: its earlier results are not in place ({said}); `dvc checkout {stage}` takes them out of DVC's cache",
            file=sys.stderr,
        )


def _outputs(stage: str) -> list[Path]:
    """The outputs that dvc.lock names: those of the last time that the stage succeeded."""
    from ruamel.yaml import YAML, YAMLError

    try:
        stages = YAML(typ="safe").load(LOCK)["stages"]
    except (FileNotFoundError, YAMLError, KeyError, TypeError):  # no stage has ever succeeded here
        return []
    return [Path(out["path"]) for out in stages.get(stage, {}).get("outs", [])]
