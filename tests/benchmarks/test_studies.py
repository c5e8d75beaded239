from __future__ import annotations

from typing import Any

import pytest
import torch
from matplotlib.figure import Figure

from benchmarks import studies
from benchmarks._convergence import BANDWIDTHS, ITERATIONS, convergence
from benchmarks._studies_report import DARTS, MEASURES, REFERENCE, report
from benchmarks.stability import settings
from models.images.search import image_search
from models.search.landscape import Landscape
from models.search.program import Found, Search
from models.training.loop import run as train
from stages.landscape_picture import heights
from tests.models.tiny import STRATEGIES, config, loaders, size, task


def test_every_case_changes_one_setting_of_the_published_ones() -> None:
    wanted = studies.jobs(studies.options(["--seeds", "2"]))
    assert [job.seed for job in wanted] == sorted(job.seed for job in wanted), "seed by seed"
    first = {job.case: job.params.search for job in wanted if job.seed == 0}
    published = first[REFERENCE].mean_shift
    assert (published.samples, published.iterations, published.bandwidth, published.probe_images) == (
        3,
        2,
        1.0,
        None,
    )
    assert first.pop(DARTS).strategy == "darts"
    del first[REFERENCE]
    for case, search in first.items():
        changed = {
            name: value
            for name, value in search.mean_shift.model_dump().items()
            if value != getattr(published, name)
        }
        ((name, value),) = changed.items()
        word, number = case.split()
        assert (name.removesuffix("_images"), str(value)) == (word, number)
    assert len({job.key for job in wanted}) == len(wanted)


def test_with_fixed_samples_the_mean_shift_settles_and_with_redrawn_ones_it_does_not() -> None:
    search, found = searched()
    curves = convergence(search, found, settings({}).search.mean_shift, seed=0)
    assert list(curves) == [f"{kind}, {width}" for kind in ("fixed", "redrawn") for width in BANDWIDTHS]
    for name, curve in curves.items():
        assert len(curve["step"]) == len(curve["moved"]) == ITERATIONS
        assert curve["step"][0] == curve["moved"][0] > 0, "the first step starts at the mix"
        settled = curve["step"][-1] < 0.02 * curve["step"][0]
        assert settled is name.startswith("fixed"), name
    same = convergence(search, found, settings({}).search.mean_shift, seed=0)
    assert same == curves


def searched() -> tuple[Search, Found]:
    """A tiny search that has ended."""
    tiny = task("nasbench201")
    strategy = STRATEGIES["ms-darts"](tiny.space, 1)
    search = image_search(tiny, strategy, loaders(), config(epochs=1), size("nasbench201"))
    return search, train(search)


def a_run(case: str, seed: int, value: float, **others: Any) -> dict[str, Any]:
    return {"case": case, "seed": seed, "search_seconds": 1.0, **dict.fromkeys(MEASURES, value), **others}


def test_the_report_has_means_and_deviations_of_each_case_in_its_table() -> None:
    flat = {
        f"fixed, {width}": {"step": [0.5] * ITERATIONS, "moved": [0.25] * ITERATIONS} for width in BANDWIDTHS
    }
    runs = [a_run(DARTS, 0, 0.5), a_run(DARTS, 1, 0.7)]
    runs += [a_run(REFERENCE, 0, 0.1, convergence=flat), a_run("samples 6", 0, 0.3)]
    tables = report({}, runs).split("\n## ")
    assert f"| {DARTS} | 2 | {' | '.join(['0.600 ± 0.141'] * len(MEASURES))} |" in tables[1]
    assert f"| {REFERENCE} | 1 | " in tables[1] and "samples 6" not in tables[1]
    assert "| samples 6 | 1 | 0.300" in tables[2] and f"| {REFERENCE} | 1 | 0.100" in tables[2]
    assert "| fixed, auto | 0.500 | 0.500 | 0.500 | 0.500 | 0.500 | 0.250 | 0.250 |" in tables[5]


@pytest.mark.parametrize("flat", [False, True])
def test_a_landscape_is_drawn_whether_it_has_heights_or_not(flat: bool) -> None:
    losses = torch.zeros(3, 3) if flat else torch.arange(9.0).reshape(3, 3)
    found = Landscape(torch.tensor([-1.0, 0.0, 1.0]), losses)
    drawn = heights(Figure().add_subplot(), found, float(losses.min()), float(losses.max()))
    levels = list(drawn.levels)
    assert levels[0] == 0.0
    assert levels[-1] == pytest.approx(1e-6 if flat else 8.0)
