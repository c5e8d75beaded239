"""search: finds architecture parameters for the prepared data by differentiable search."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors.torch import save_file

from models.search.landscape import COLUMNS
from models.training.distributed import rank
from models.training.loop import run as train
from models.training.precision import resolved
from stages import pictures, tasks
from stages.alphas import save_alphas
from stages.landscape_picture import landscape
from stages.latencies import predictor_sha256
from stages.plumbing.checkpoint import Checkpoint, key
from stages.plumbing.devices import on_devices
from stages.plumbing.files import LANDSCAPE, SEARCH, SEARCH_RESULTS, replacing, write_rows
from stages.plumbing.progress import reporting
from stages.plumbing.runtime import run, settled
from stages.plumbing.tracking import stage_run
from stages.records import SearchAbout, SearchSummary, balanced_score, with_scores

if TYPE_CHECKING:
    from models.search.program import Found
    from stages.evaluation import Metric
    from stages.params import Params
    from stages.search_params import SearchParams

UNDECIDED = 0.9  # the share of a uniform mix's entropy from which on a search has decided next to nothing


@on_devices("search")
def main(params: Params) -> None:
    metric, card = tasks.metric(params), tasks.data(params.task).read_card()
    training = tasks.training(params.task)
    precision = resolved(params.train.precision)
    settings = {**params.search.active(), "train": {**params.train.active(), "precision": precision}}
    inputs = {"data": card.sha256, **training.inputs(params)}
    if params.latency.in_search():
        settings["latency"] = params.latency.of_search()
        inputs["latency"] = predictor_sha256()
    checkpoint = Checkpoint("search", key("search", params.task, settings, inputs))
    resume = checkpoint.load()
    program = training.search(params)
    settled()
    if rank() > 0:  # all processes find the same; the first one saves it
        train(program, resume=resume)
        return
    with stage_run("search", settings, checkpoint.noted().get("run_id")) as tracked:
        tracked.dataset(card, params.data.root)
        with reporting("search", checkpoint, tracked, resume, metric) as on_event:
            found = train(program, on_event=on_event, resume=resume)
        summary = summarize(found, metric, params.search)
        with replacing(SEARCH) as folder:
            write(folder, found, summary, about(params), metric)
        tracked.metrics(found.summary)  # the scores of the epochs are there already
        tracked.artifacts(*SEARCH_RESULTS, pictures=[LANDSCAPE, *sorted(SEARCH.glob("*.png"))])
    checkpoint.remove()
    print(f"search: discretization gap {summary.discretization_gap:.4f}")
    if summary.notice is not None:
        print(f"search: notice: {summary.notice}")


def about(params: Params) -> SearchAbout:
    """How to read the architecture parameters."""
    return SearchAbout(
        space=params.search.named_space(),
        exclude_none=bool(params.search.active().get("exclude_none", False)),
        relaxation=params.search.relaxation(),
    )


def summarize(found: Found, metric: Metric, settings: SearchParams) -> SearchSummary:
    """The content of summary.json."""
    column = f"valid_{metric.name}"
    best = found.history[0]
    for row in found.history:
        if metric.better(row[column] or 0.0, best[column] or 0.0):
            best = row
    measured = {name.replace(f"_{metric.name}", "_score"): value for name, value in found.summary.items()}
    last = found.history[found.epoch - 1]
    balanced = {
        "valid_balanced_score": balanced_score(last, metric),
        "best_valid_balanced_score": balanced_score(best, metric),
    }
    return SearchSummary.model_validate(
        {
            **measured,
            "epoch": found.epoch,
            "valid_score": last[column],
            "best_epoch": best["epoch"],
            "best_valid_score": best[column],
            **(balanced if metric.balanced else {}),
            **notice(found.summary["indecision"], found.summary["largest_weight"], settings),
        }
    )


def notice(indecision: float, largest_weight: float, settings: SearchParams) -> dict[str, str]:
    """The field ``notice`` of a search that has hardly decided anything; otherwise nothing."""
    if indecision < UNDECIDED:
        return {}
    words = (
        f"the search has decided next to nothing: the mix has {indecision:.1%} of the entropy of a uniform mix, and the"
        f" strongest operation of an edge weighs {largest_weight:.3f} on average, so the genotype is little better than"
        f" a random one; {settings.remedy()}"
    )
    return {"notice": words}


def write(folder: Path, found: Found, summary: SearchSummary, about: SearchAbout, metric: Metric) -> None:
    """Writes the artifacts: alpha after each epoch, the supernet's weights, tables, the summary and pictures."""
    save_alphas(folder / "alphas.safetensors", found.alphas, about)
    save_file(found.weights, folder / "supernet.safetensors")
    write_rows(folder / "history.csv", with_scores(found.history, metric))
    summary.write(folder / "summary.json", metric)
    summary.write_numbers(folder, metric)
    pictures.curves(folder / "curves.png", found.history, "Search", metric)
    pictures.instability(folder / "instability.png", found.history)
    # Written without rows, too, because DVC expects the file that the report depends on.
    write_rows(folder / LANDSCAPE.name, found.landscape.rows() if found.landscape else (), COLUMNS)
    if found.landscape:
        landscape(folder / "landscape.png", found.landscape)


if __name__ == "__main__":
    sys.exit(run("search", main))
