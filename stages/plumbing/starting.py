"""Ctrl-C and SIGTERM while a command loads its modules: one line and the exit status, instead of a traceback.

The packages whose modules are commands (stages, pipelines, benchmarks) call ``end_at_once`` before anything slow is imported.
Nothing has begun by then, so the process just ends, a stage of DVC when its earlier results are back in place; an exception
would have to pass through the imports, which may catch it. What remains to Python itself are the hundredths of a second before
it imports the package.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_SILENT = "stages.plumbing.devices"  # a rank: the process that started it speaks


def module_of_command() -> str:
    """The module that ``python -m`` runs in this process; empty when Python was started otherwise."""
    words = sys.orig_argv
    place = words.index("-m") + 1 if "-m" in words else len(words)
    return words[place] if place < len(words) else ""


def is_stage_of_dvc() -> bool:
    """Whether this process is a stage that DVC has started."""
    return module_of_command() == f"stages.{os.environ.get('DVC_STAGE')}"


def end_at_once(package: str) -> None:
    """Lets SIGINT and SIGTERM end this process at once if it runs a module of the package as a command."""
    module = module_of_command()
    if not module.startswith(f"{package}."):
        return

    def end(number: int, _: FrameType | None) -> None:
        if module != _SILENT:
            name = module.rpartition(".")[2]
            os.write(2, f"{name}: interrupted by {signal.Signals(number).name} before it began\n".encode())
        if is_stage_of_dvc():
            program = "from stages.plumbing import earlier; earlier.bring_back()"
            os.spawnv(
                os.P_WAIT, sys.executable, [sys.executable, "-c", program]
            )  # no imports within a signal handler
        os._exit(128 + number)

    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) != signal.SIG_IGN:  # which it is under nohup
            signal.signal(number, end)


def ready() -> None:
    """Restores Python's signal handlers. A command calls this when it can handle KeyboardInterrupt itself."""
    for number, default in ((signal.SIGINT, signal.default_int_handler), (signal.SIGTERM, signal.SIG_DFL)):
        if signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, default)
