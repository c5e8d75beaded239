"""Flow ``compare``: was the search worth it? Trains the found cell beside random cells and networks made by hand.

    python -m pipelines.compare --random 8 --seeds 3

All networks have the same data, recipe, epochs, seeds and number of parameters. Every network and seed is one training in
a process of its own; they run side by side, in threads of this machine or on the workers of a Ray or Dask cluster. The
same comparison, started again, trains what is missing; more seeds or random cells train only these.
docs/compare.md says how to read the result.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.states import Completed, Failed
from prefect.task_runners import TaskRunner

from pipelines import alerts
from pipelines import compare_report as report
from pipelines.command import BAD_INPUT, change, message_of, named, on_profile, run_flow
from pipelines.comparing import finish, made, plan_of, run_training
from pipelines.orphan import outlive_worker
from pipelines.process import ended_together
from pipelines.runners import RUNNERS, WORKERS, RunnerName, connected, cores_per_trial, task_runner
from pipelines.sweep_request import seeds_from
from pipelines.workspace import workspace
from stages.compare.jobs import Plan, is_done
from stages.errors import MachineError, UserError
from stages.plumbing.settings import PARAMS_FILE, load

RANDOM, SEEDS = 8, 3  # random cells and seeds, unless numbers are given


@flow(name="compare", flow_run_name=named("compare"), on_failure=[alerts.on_failure], persist_result=False)
def compare(
    random: int = RANDOM,
    seeds: int | list[int] = SEEDS,
    params: dict[str, Any] | None = None,
    search_minutes: float | None = None,
    runner: RunnerName = "threads",
    workers: int | None = None,
    address: str | None = None,
    timeout_hours: float = 48.0,
    profile: str | None = None,
) -> State:
    """Compares the found cell with random cells and with networks made by hand.

    Args:
        random: How many random cells of the same space are trained.
        seeds: The seeds of the trainings: how many (3: 0, 1 and 2), or a list of them.
        params: Other values for keys of params.yaml, such as {"retrain.epochs": 50}; the results of `make flow` with the
            same values are compared.
        search_minutes: How long the search took; empty: as MLflow knows it.
        runner: Who runs the trainings: threads of this machine, or Ray or Dask (`make clusters` installs both).
        workers: Trainings at once; empty: 2. A cluster with an address has its own number.
        address: The address of a running Ray or Dask cluster; empty: workers on this machine, for this comparison.
        timeout_hours: The longest that one training may take.
        profile: Another task, whose settings (profiles/TASK.yaml) the comparison starts from.
    """
    outlive_worker()
    try:
        numbers, changes = checked(random, seeds, search_minutes), on_profile(profile, params or {})
        environment = {} if address else cores_per_trial(workers or WORKERS)
        pool = task_runner(runner, workers, address)
        with workspace(changes, get_run_logger().info) as folder:
            made(folder)
            plan = plan_of(folder, numbers, random)
            with report.compare_run(plan) as run:
                _train(plan, folder, pool, timeout_hours, {**environment, **report.below(run)})
                finish(folder, search_minutes)
                return Completed(message=report.publish(run, folder))
    except UserError as error:
        return Failed(name=BAD_INPUT, message=str(error))
    except MachineError as error:
        return Failed(message=str(error))


def checked(random: int, seeds: int | Sequence[int], search_minutes: float | None) -> list[int]:
    """The seeds. Raises UserError for numbers that make no comparison."""
    numbers = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    if random < 1:
        raise UserError(f"random is {random}; it should be 1 or more, because there is no comparison without")
    if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise UserError(
            f"seeds is {seeds}; it should be how many, 1 or more, or a list without repetitions (as an option, the seed 0"
            " alone is `--seeds 0,`)"
        )
    if search_minutes is not None and not 0 < search_minutes < float("inf"):
        raise UserError(f"search_minutes is {search_minutes}; it should be more than 0")
    return numbers


def _train(
    plan: Plan, folder: Path, pool: TaskRunner[Any], timeout_hours: float, environment: Mapping[str, str]
) -> None:
    """Runs the trainings that are missing. Raises UserError or MachineError when some have failed, after the others."""
    missing = [
        (f"{arm.name}, seed {seed}", key) for arm, seed, key in plan.trainings() if not is_done(key, folder)
    ]
    get_run_logger().info("%d of %d trainings are missing", len(missing), len(plan.trainings()))
    if not missing:
        return
    with connected(pool), ended_together():
        started: dict[str, PrefectFuture[Any]] = {
            name: pool.submit(
                run_training,
                {
                    "name": name,
                    "key": key,
                    "project": Path.cwd(),
                    "folder": folder,
                    "timeout_hours": timeout_hours,
                    "environment": dict(environment),
                },
            )
            for name, key in missing
        }
        failed: dict[str, State] = {}
        for name, future in started.items():
            future.wait()
            if not future.state.is_completed():
                failed[name] = future.state
    if failed:
        name, state = next(iter(failed.items()))
        kind = UserError if all(state.name == BAD_INPUT for state in failed.values()) else MachineError
        raise kind(
            f"{len(failed)} of {len(plan.trainings())} trainings have failed; the first, {name}: {message_of(state)}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    """The comparison as a command. Returns the exit status of a stage: 0, 1 or 2."""
    parser = argparse.ArgumentParser(
        prog="python -m pipelines.compare", description="Compares the found cell with others."
    )
    parser.add_argument("--random", type=int, default=RANDOM, help=f"how many random cells ({RANDOM})")
    parser.add_argument("--seeds", default=str(SEEDS), help="how many, or numbers separated by commas (3)")
    parser.add_argument(
        "--search-minutes", type=float, help="how long the search took, if MLflow does not know"
    )
    parser.add_argument("-S", "--set-param", action="append", default=[], metavar="KEY=VALUE",
                        help="another value for a key of params.yaml; may be repeated")  # fmt: skip
    parser.add_argument("--profile", metavar="TASK", help="the settings of another task, profiles/TASK.yaml")
    parser.add_argument(
        "--runner", choices=[*RUNNERS], default="threads", help="who runs the trainings (threads)"
    )
    parser.add_argument("--workers", type=int, help=f"trainings at once ({WORKERS})")
    parser.add_argument("--address", help="of a running Ray or Dask cluster")
    options = parser.parse_args(arguments)
    try:
        seeds = seeds_from(options.seeds)
        changes = on_profile(options.profile, dict(change(text) for text in options.set_param))
        checked(options.random, seeds, options.search_minutes)  # a mistake does not wait for a server
        load(PARAMS_FILE, changes)
        if not changes:
            made(Path.cwd())
        task_runner(options.runner, options.workers, options.address)
    except UserError as error:
        print(f"error: compare: {error}", file=sys.stderr)
        return 2
    return run_flow(
        lambda: compare(
            options.random,
            seeds,
            changes,
            options.search_minutes,
            options.runner,
            options.workers,
            options.address,
            return_state=True,
        )
    )


if __name__ == "__main__":
    sys.exit(main())
