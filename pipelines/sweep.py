"""Flow ``sweep``: searches with several seeds and values of other parameters, and keeps only the best.

    python -m pipelines.sweep --seeds 5 --grid search.mean_shift.bandwidth=0.5,1.0

The protocol of the field (Liu et al., DARTS, section 3): search k times and rank the cells by validation accuracy, of the
search or of a short retraining; only the best is retrained in full, tested and registered. Trials run side by side, each
in a workspace of its own, in threads of this machine or on the workers of a Ray or Dask cluster. A failed trial stops no
other. The same sweep, started again, runs what is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed
from prefect.task_runners import TaskRunner

from pipelines import alerts
from pipelines import sweep_report as report
from pipelines.command import BAD_INPUT, change, failed, message_of, named, on_profile, run_flow
from pipelines.graph import without_effect
from pipelines.nas import execute_all, nas
from pipelines.orphan import outlive_worker
from pipelines.process import ended_together
from pipelines.runners import RUNNERS, WORKERS, RunnerName, connected, cores_per_trial, task_runner
from pipelines.sweep_latency import front_of, share_table
from pipelines.sweep_request import Request, checked, grid_from, seeds_from
from pipelines.trials import TARGETS, RankBy, Result, Trial, finished, run_trial, scores, winner
from pipelines.workspace import WORKSPACES, save_experiment, workspace
from stages.errors import MachineError, UserError
from stages.evaluation import Metric
from stages.found_latency import read_found
from stages.front import Front
from stages.front import write as write_front
from stages.plumbing.files import FOUND_LATENCY
from stages.registry.asking import PROMOTE


@flow(
    name="sweep",
    flow_run_name=named("sweep", "seeds", "grid"),
    on_failure=[alerts.on_failure],
    persist_result=False,
)
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
    profile: str | None = None,
) -> State:
    """Runs several searches, and retrains and registers the best.

    Args:
        seeds: The seeds of the search: how many (3: 0, 1 and 2), or a list of them.
        params: Keys of params.yaml with other values in all trials, such as {"search.epochs": 50}.
        grid: Keys of params.yaml with several values; every combination is tried with every seed.
        rank_by: What is compared on the validation data: the supernets of the searches, or the found networks after a short
            retraining.
        ranking_epochs: Epochs of the short retraining; empty: a tenth of retrain.epochs.
        runner: Who runs the trials: threads of this machine, or Ray or Dask (`make clusters` installs both).
        workers: Trials at once; empty: 2. A cluster with an address has its own number.
        address: The address of a running Ray or Dask cluster; empty: workers on this machine, for this sweep.
        timeout_hours: The longest that one stage may take.
        profile: Another task, whose settings (profiles/TASK.yaml) all trials start from.
    """
    outlive_worker()
    try:
        request = checked(seeds, on_profile(profile, params or {}), grid or {}, rank_by, ranking_epochs)
        environment = {} if address else cores_per_trial(workers or WORKERS)
        pool = task_runner(runner, workers, address)
        with report.sweep_run(request.trials, rank_by) as run:
            _prepare(request, timeout_hours)
            results = _run(request, pool, timeout_hours, environment)
            best = winner(results, request.metric)
            front = front_of(results, best, rank_by, request.metric, _folder)
            report.publish(run, results, best, rank_by, request.metric, front)
            if best is None:
                raise _all_failed(results)
            said = report.publish_winner(
                run, *_finish(best, timeout_hours, front, request.metric), request.metric
            )
            return Completed(message=f"{best.trial} is the best of {len(results)} trials: {said}")
    except (UserError, MachineError, OSError) as error:
        return failed(error)


def _prepare(request: Request, timeout_hours: float) -> None:
    """Runs once what all trials share, and makes their workspaces from it. Raises UserError or MachineError."""
    with workspace(request.params, get_run_logger().info) as base:
        shared = without_effect(request.chain, request.varied)
        _succeed(execute_all(shared, base, timeout_hours))
        for trial in request.trials:
            with workspace(trial.changes, get_run_logger().info, base) as folder:
                if any(stage.name == "measure" for stage in shared):
                    share_table(base, folder)


def _run(
    request: Request, pool: TaskRunner[Any], timeout_hours: float, environment: dict[str, str]
) -> list[Result]:
    """Runs the unfinished trials, and keeps finished ones as DVC experiments. Results are in the order of the plan."""
    missing = [trial for trial in request.trials if not finished(_folder(trial), request.chain)]
    with connected(pool) if missing else contextlib.nullcontext(), ended_together():
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
            result = _result(trial, started.get(trial.name), request)
            measured = "" if result.score is None else request.metric.digits(result.score)
            said = result.error or f"{result.state}, validation {request.metric.words} {measured}"
            get_run_logger().info("%s: %s", trial, said)
            results.append(result)
    return results


def _result(trial: Trial, future: PrefectFuture[Any] | None, request: Request) -> Result:
    folder = _folder(trial)
    if future is not None:
        future.wait()
        state = future.state
        if not state.is_completed():
            return Result(
                trial, "failed", None, message_of(state), state.name == BAD_INPUT, report.run_of(folder)
            )
    save_experiment(folder)
    state = "cached" if future is None else "ran"
    others = scores(folder, request.rank_by)
    score = others.pop(request.metric.name)
    latency = read_found(request.metric, folder / FOUND_LATENCY)
    return Result(trial, state, score, run_id=report.run_of(folder), others=others, latency=latency)


def _folder(trial: Trial) -> Path:
    return Path.cwd() / WORKSPACES / trial.name


def _all_failed(results: Sequence[Result]) -> UserError | MachineError:
    first = results[0]
    kind = UserError if all(result.bad_input for result in results) else MachineError
    return kind(f"all {len(results)} trials have failed; the first, {first.trial}: {first.error}")


def _finish(best: Result, timeout_hours: float, front: Front | None, metric: Metric) -> tuple[Path, str]:
    """Retrains the winner in full and registers it. Returns its workspace and its run in MLflow."""
    trial = best.trial
    with workspace(trial.final, get_run_logger().info, _folder(trial)) as folder:
        # After a short retraining, this is another workspace, which begins with the results of the trial.
        if front is not None:
            write_front(folder, front, metric)
    with _promoting():
        _succeed(nas(dict(trial.final), timeout_hours=timeout_hours, return_state=True))
    return folder, report.run_of(folder)


@contextlib.contextmanager
def _promoting() -> Iterator[None]:
    """Lets the winner become champion without asking: it alone is tested, and was chosen on the validation cases."""
    os.environ[PROMOTE] = "auto"  # a stage has the environment of its flow, which is alone in its process
    try:
        yield
    finally:
        del os.environ[PROMOTE]


def _succeed(state: State) -> None:
    """Raises UserError or MachineError when the state is that of a failure."""
    if not state.is_completed():
        raise (UserError if state.name == BAD_INPUT else MachineError)(message_of(state))


def main(arguments: Sequence[str] | None = None) -> int:
    """The flow as a command, on the server that runs on this machine, or else on one for this sweep alone."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.sweep",
        description="Runs several searches, and retrains and registers the best.",
    )
    parser.add_argument("--seeds", default="3", metavar="K|A,B,..", help="how many, or which (3: 0, 1 and 2)")
    parser.add_argument("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE",
                        help="another value for a key of params.yaml in all trials; may be repeated")  # fmt: skip
    parser.add_argument("--profile", metavar="TASK", help="the settings of another task, profiles/TASK.yaml")
    parser.add_argument("--grid", action="append", default=[], metavar="KEY=VALUE,VALUE,..",
                        help="values to try with every seed; may be repeated")  # fmt: skip
    parser.add_argument(
        "--rank-by", choices=list(TARGETS), default="search", help="what is compared (search)"
    )
    parser.add_argument(
        "--ranking-epochs", type=int, help="epochs of a short retraining (a tenth of retrain.epochs)"
    )
    parser.add_argument(
        "--runner", choices=list(RUNNERS), default="threads", help="who runs trials (threads)"
    )
    parser.add_argument("--workers", type=int, help=f"trials at once ({WORKERS})")
    parser.add_argument("--address", help="address of a running Ray or Dask cluster")
    options = parser.parse_args(arguments)
    try:
        seeds = seeds_from(options.seeds)
        params = on_profile(options.profile, dict(change(text) for text in options.set_param))
        grid = dict(grid_from(text) for text in options.grid)
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


if __name__ == "__main__":
    sys.exit(main())
