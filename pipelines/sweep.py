"""Flow ``sweep``: search with several seeds, and values of other parameters, and keep only the best.

    python -m pipelines.sweep --seeds 5 --grid search.mean_shift.bandwidth=0.5,1.0

The protocol of the field (Liu et al., DARTS, section 3): search k times, rank the cells by validation accuracy, of the
search or of a short retraining; only the best is retrained in full, tested and registered. Trials run side by side, each
in a workspace of its own, in threads of this machine or by the workers of a Ray or Dask cluster. A failed one stops no
other; the same sweep again runs what is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner

from pipelines import sweep_report as report
from pipelines.command import BAD_INPUT, change, run_flow, yaml_value
from pipelines.graph import Stage, stages, without_effect
from pipelines.nas import execute_all, nas
from pipelines.process import COLOUR, ended_together
from pipelines.trials import (
    EPOCHS,
    SEED,
    TARGETS,
    RankBy,
    Result,
    Trial,
    accuracy,
    finished,
    plan,
    run_trial,
    winner,
)
from pipelines.workspace import WORKSPACES, save_experiment, workspace
from stages.errors import MachineError, UserError
from stages.plumbing.settings import PARAMS_FILE, load

WORKERS = 2  # trials at once, where nobody says otherwise
SHORT = 10  # a short retraining has this part of the epochs of a full one

RunnerName = Literal["threads", "ray", "dask"]


@dataclass(frozen=True)
class Runner:
    """A task runner of Prefect: where its class is, and how it starts workers of its own or goes to a cluster's."""

    module: str
    name: str
    local: Callable[[int], dict[str, Any]]  # number of workers -> arguments
    cluster: Callable[[str], dict[str, Any]] | None = None  # address -> arguments
    environment: Mapping[str, str] | None = None  # of this process, from before the module is imported
    local_environment: Mapping[str, str] | None = None  # besides, where it starts workers of its own


# A runner's name becomes an object here, and only here. Workers on this machine listen on loopback and serve no pages.
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
        # Loopback, as on those systems; on Linux Ray puts this machine's address in the place of 127.0.0.1.
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


@flow(name="sweep", persist_result=False)
def sweep(
    seeds: int | list[int] = 3,
    params: dict[str, Any] | None = None,
    grid: dict[str, list[Any]] | None = None,
    rank_by: RankBy = "search",
    ranking_epochs: int | None = None,
    runner: RunnerName = "threads",
    workers: int | None = None,
    address: str | None = None,
    timeout_hours: float = 48.0,
) -> State:
    """Several searches; the best is retrained and registered.

    Args:
        seeds: Of the search: how many (3: 0, 1 and 2), or which.
        params: Keys of params.yaml with other values in all trials, such as {"search.epochs": 50}.
        grid: Keys of params.yaml with several values; every combination is tried with every seed.
        rank_by: What is compared on the validation images: the networks of the searches, or the found ones after a short
            retraining.
        ranking_epochs: Epochs of the short retraining; empty: a tenth of retrain.epochs.
        runner: Who runs the trials: threads of this machine, or Ray or Dask (`make clusters` installs both).
        workers: Trials at once; empty: 2. A cluster with an address has its own number.
        address: Of a Ray or Dask cluster that is running; empty: workers on this machine, for this sweep.
        timeout_hours: The longest that one stage may take.
    """
    try:
        request = checked(seeds, params or {}, grid or {}, rank_by, ranking_epochs)
        environment = {} if address else threads_for(workers or WORKERS)
        pool = task_runner(runner, workers, address)
        with report.sweep_run(request.trials, rank_by) as run:
            _prepare(request, timeout_hours)
            results = _run(request, pool, timeout_hours, environment)
            best = winner(results)
            report.publish(run, results, best, rank_by)
            if best is None:
                raise _all_failed(results)
            said = report.publish_winner(run, *_finish(best, timeout_hours))
            return Completed(message=f"{best.trial} is the best of {len(results)} trials: {said}")
    except UserError as error:
        return Failed(name=BAD_INPUT, message=str(error))
    except MachineError as error:
        return Failed(message=str(error))


@dataclass(frozen=True)
class Request:
    """A sweep whose parameters make sense."""

    params: Mapping[str, Any]  # of all trials
    trials: Sequence[Trial]
    chain: Sequence[Stage]  # that each trial runs
    varied: Sequence[str]  # keys in which trials differ
    rank_by: RankBy


def checked(
    seeds: int | Sequence[int],
    params: Mapping[str, Any],
    grid: Mapping[str, Sequence[Any]],
    rank_by: RankBy,
    ranking_epochs: int | None,
) -> Request:
    """The trials that are asked for. Raises UserError for what no trial could do, or what would have no effect."""
    which = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if not which or len(set(which)) < len(which):
        raise UserError(
            f"seeds is {seeds}; it should be how many, 1 or more, or a list in which none is there twice"
        )
    for key in (*params, *grid):
        if key == SEED:
            raise UserError(f"{SEED} is among the parameters; give its values as seeds")
        if key in params and key in grid:
            raise UserError(f"{key} is in params and in grid; it should be in one of them")
    for key, values in grid.items():
        if not values or any(value in values[:place] for place, value in enumerate(values)):
            raise UserError(f"grid: {key} is {values}; it should be a list in which no value is there twice")
    epochs = load(PARAMS_FILE, params).retrain.epochs
    if rank_by == "search" and ranking_epochs is not None:
        raise UserError(f"ranking_epochs is {ranking_epochs}; rank_by should be short-retrain with it")
    if rank_by == "short-retrain":
        if EPOCHS in grid:
            raise UserError(f"grid: {EPOCHS} is that of ranking while trials are ranked; use ranking_epochs")
        ranking_epochs = max(1, epochs // SHORT) if ranking_epochs is None else ranking_epochs
    trials = plan(which, params, grid, ranking_epochs)
    for trial in trials:
        load(PARAMS_FILE, trial.changes)
    chain = stages(Path.cwd(), TARGETS[rank_by])
    for key in grid:
        if not any(stage.reads(key) for stage in chain):
            raise UserError(
                f"grid: {key} has no effect up to {TARGETS[rank_by]}, where trials are compared;"
                f" put it in params{', or rank by short-retrain' if rank_by == 'search' else ''}"
            )
    return Request(params, trials, chain, [SEED, *grid], rank_by)


def task_runner(name: RunnerName, workers: int | None, address: str | None) -> TaskRunner[Any]:
    """The task runner of this name. Raises UserError where it is not installed or cannot be had so."""
    chosen = RUNNERS[name]
    if workers is not None and workers < 1:
        raise UserError(f"workers is {workers}; it should be 1 or more")
    if address and chosen.cluster is None:
        raise UserError(f"address is {address}, but runner is {name}; it should be ray or dask")
    if address and workers is not None:
        raise UserError(
            f"workers is {workers}, but the cluster at {address} has its own; leave one of them out"
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


def threads_for(workers: int) -> dict[str, str]:
    """The share of the processor's cores that each of so many trials computes with; the user's own number goes first."""
    own = os.environ.get("OMP_NUM_THREADS")
    return {"OMP_NUM_THREADS": own or str(max(1, (os.cpu_count() or 1) // workers))}


def _prepare(request: Request, timeout_hours: float) -> None:
    """Runs once what is the same in all trials, and makes their workspaces from it. Raises what made it fail."""
    with workspace(request.params, get_run_logger().info) as base:
        _succeed(execute_all(without_effect(request.chain, request.varied), base, timeout_hours))
        for trial in request.trials:
            with workspace(trial.changes, get_run_logger().info, base):
                pass


def _run(
    request: Request, pool: TaskRunner[Any], timeout_hours: float, environment: dict[str, str]
) -> list[Result]:
    """Runs the trials that are not finished, and keeps each that is as a DVC experiment. In the order of the plan."""
    missing = [trial for trial in request.trials if not finished(_folder(trial), request.chain)]
    with _connected(pool) if missing else contextlib.nullcontext(), ended_together():
        started = {
            trial.name: pool.submit(
                run_trial,
                {
                    "name": str(trial),
                    "project": Path.cwd(),
                    "changes": dict(trial.changes),
                    "chain": list(request.chain),
                    "timeout_hours": timeout_hours,
                    "environment": environment,
                },
            )
            for trial in missing
        }
        results = []
        for trial in request.trials:
            result = _result(trial, started.get(trial.name), request.rank_by)
            said = result.error or f"{result.state}, validation accuracy {result.accuracy:.4f}"
            get_run_logger().info("%s: %s", trial, said)
            results.append(result)
    return results


@contextlib.contextmanager
def _connected(pool: TaskRunner[Any]) -> Iterator[None]:
    """The task runner at work. Raises UserError where its cluster does not answer."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(pool)
            getattr(pool, "client", None)  # Dask's connects when it is first asked for
        except OSError as error:
            raise UserError(
                f"the cluster does not answer ({' '.join(str(error).split())}); start it or correct address, and set"
                " RAY_AUTH_MODE=token where a Ray cluster asks for its token"
            ) from None
        yield


def _result(trial: Trial, future: PrefectFuture[Any] | None, rank_by: RankBy) -> Result:
    folder = _folder(trial)
    if future is not None:
        future.wait()
        state = future.state
        if not state.is_completed():
            return Result(
                trial, "failed", None, _message(state), state.name == BAD_INPUT, report.run_of(folder)
            )
    save_experiment(folder)
    score = accuracy(folder, rank_by)
    return Result(trial, "cached" if future is None else "ran", score, run_id=report.run_of(folder))


def _folder(trial: Trial) -> Path:
    return Path.cwd() / WORKSPACES / trial.name


def _all_failed(results: Sequence[Result]) -> UserError | MachineError:
    first = results[0]
    kind = UserError if all(result.bad_input for result in results) else MachineError
    return kind(f"all {len(results)} trials have failed; the first, {first.trial}: {first.error}")


def _finish(best: Result, timeout_hours: float) -> tuple[Path, str]:
    """Retrains the winner in full and registers it; its workspace and its run in MLflow."""
    trial = best.trial
    with workspace(trial.final, get_run_logger().info, _folder(trial)) as folder:
        pass  # after a short retraining it is another one, which starts with what this trial has found
    _succeed(nas(dict(trial.final), timeout_hours=timeout_hours, return_state=True))
    return folder, report.run_of(folder)


def _succeed(state: State) -> None:
    """Raises UserError or MachineError when the state is of a failure."""
    if not state.is_completed():
        raise (UserError if state.name == BAD_INPUT else MachineError)(_message(state))


def _message(state: State) -> str:
    """The one line that a state has to say; of what an exception on a worker says, its first and last."""
    lines = [line.strip() for line in COLOUR.sub("", state.message or "").splitlines() if line.strip()]
    if not lines:
        return "its worker was lost, or could not import this project; the logs of the cluster say which"
    return lines[0] if len(lines) == 1 else f"{lines[0]} ... {lines[-1]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The flow as a command: on the server that is running on this machine, else on one for this sweep alone."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.sweep",
        description="Several searches; the best is retrained and registered.",
    )
    parser.add_argument("--seeds", default="3", metavar="K|A,B,..", help="how many, or which (3: 0, 1 and 2)")
    parser.add_argument("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE",
                        help="another value for a key of params.yaml in all trials; may be repeated")  # fmt: skip
    parser.add_argument("--grid", action="append", default=[], metavar="KEY=VALUE,VALUE,..",
                        help="values to try with every seed; may be repeated")  # fmt: skip
    parser.add_argument(
        "--rank-by", choices=list(TARGETS), default="search", help="what is compared (search)"
    )
    parser.add_argument(
        "--ranking-epochs", type=int, help="of a short retraining (a tenth of retrain.epochs)"
    )
    parser.add_argument(
        "--runner", choices=list(RUNNERS), default="threads", help="who runs trials (threads)"
    )
    parser.add_argument("--workers", type=int, help=f"trials at once ({WORKERS})")
    parser.add_argument("--address", help="of a Ray or Dask cluster that is running")
    options = parser.parse_args(arguments)
    try:
        seeds = _seeds(options.seeds)
        params = dict(change(text) for text in options.set_param)
        grid = dict(_values(text) for text in options.grid)
        checked(seeds, params, grid, options.rank_by, options.ranking_epochs)
        task_runner(options.runner, options.workers, options.address)
    except UserError as error:
        print(f"error: sweep: {error}", file=sys.stderr)
        return 2
    return run_flow(
        lambda: sweep(
            seeds, params, grid, options.rank_by, options.ranking_epochs, options.runner, options.workers,
            options.address, return_state=True,
        )
    )  # fmt: skip


def _seeds(text: str) -> int | list[int]:
    """ "3" as a number, "3,5" (or "3,") as a list. Raises UserError."""
    try:
        return [int(seed) for seed in text.split(",") if seed.strip()] if "," in text else int(text)
    except ValueError:
        raise UserError(
            f"--seeds is {text!r}; it should be a number, or numbers with commas between"
        ) from None


def _values(text: str) -> tuple[str, list[Any]]:
    """``search.channels=8,16`` as a key and its values. Raises UserError."""
    key, equals, values = text.partition("=")
    if not equals or not values:
        raise UserError(f"--grid {text} has no values; write it as KEY=VALUE,VALUE")
    return key.strip(), yaml_value(f"[{values}]", f"--grid {text}")


if __name__ == "__main__":
    sys.exit(main())
