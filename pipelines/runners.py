"""Who runs the trials of a sweep: threads of this machine, or the workers of a Ray or Dask cluster."""

from __future__ import annotations

import contextlib
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from prefect.task_runners import TaskRunner

from stages.errors import MachineError, UserError, lasting

WORKERS = 2  # trials at once, unless a number is given

RunnerName = Literal["threads", "ray", "dask"]


@dataclass(frozen=True)
class Runner:
    """A task runner of Prefect: where its class is, and how it starts its own workers or uses those of a cluster."""

    module: str
    name: str
    local: Callable[[int], dict[str, Any]]  # number of workers -> arguments
    cluster: Callable[[str], dict[str, Any]] | None = None  # address -> arguments
    environment: Mapping[str, str] | None = None  # set in this process before the module is imported
    local_environment: Mapping[str, str] | None = None  # set in addition where it starts its own workers


# The only place where a runner's name becomes an object. Workers on this machine listen on loopback and serve no pages.
RUNNERS: dict[RunnerName, Runner] = {
    "threads": Runner(
        "prefect.task_runners", "ThreadPoolTaskRunner", lambda workers: {"max_workers": workers}
    ),
    "ray": Runner(
        "prefect_ray",
        "RayTaskRunner",
        lambda workers: {
            "init_kwargs": {
                "num_cpus": workers,  # a trial takes one
                "include_dashboard": False,
                "object_store_memory": 100 * 2**20,  # bytes; trials exchange a few lines
            }
        },
        lambda address: {"address": address},
        {
            "RAY_USAGE_STATS_ENABLED": "0",  # nothing is reported to anybody
            "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",  # a trial sees the GPU that its worker sees
        },
        # Loopback, as on those systems: on Linux, Ray would replace 127.0.0.1 by this machine's address.
        {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"},
    ),
    "dask": Runner(
        "prefect_dask",
        "DaskTaskRunner",
        lambda workers: {
            "cluster_kwargs": {"n_workers": workers, "threads_per_worker": 1, "dashboard_address": None}
        },
        lambda address: {"address": address},
    ),
}


def task_runner(name: RunnerName, workers: int | None, address: str | None) -> TaskRunner[Any]:
    """The task runner of this name. Raises UserError where it is not installed or the options do not fit it."""
    chosen = RUNNERS[name]
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}; it should be 1 or more")
    if address and chosen.cluster is None:
        raise UserError(f"address is {address}, but runner is {name}; it should be ray or dask")
    if address and workers is not None:
        raise UserError(
            f"workers is {workers}, but the cluster at {address} has its own number of workers; leave one of them out"
        )
    local = {} if address else chosen.local_environment or {}
    for variable, value in {**(chosen.environment or {}), **local}.items():
        os.environ.setdefault(variable, value)
    try:
        kind = getattr(importlib.import_module(chosen.module), chosen.name)
    except ImportError as error:
        raise UserError(
            f"runner is {name}, which is not installed ({error}); `make clusters` installs it"
        ) from None
    if address and chosen.cluster is not None:
        return kind(**chosen.cluster(address))
    return kind(**chosen.local(workers or WORKERS))


def cores_per_trial(workers: int) -> dict[str, str]:
    """The variable that gives each trial its share of the cores, unless the user has set it."""
    own = os.environ.get("OMP_NUM_THREADS")
    return {"OMP_NUM_THREADS": own or str(max(1, (os.cpu_count() or 1) // workers))}


@contextlib.contextmanager
def connected(pool: TaskRunner[Any]) -> Iterator[None]:
    """Holds the task runner open. Raises MachineError where its cluster does not answer."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(pool)
            getattr(pool, "client", None)  # that of Dask connects when it is first used
        except OSError as error:
            raise lasting(error) or MachineError(
                f"the cluster does not answer ({' '.join(str(error).split())}); start it or correct address, and set"
                " RAY_AUTH_MODE=token where a Ray cluster asks for its token"
            ) from None
        yield
