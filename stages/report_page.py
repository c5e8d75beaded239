"""The report's page: the values that its template shows, and the drawings. Equal inputs give equal pages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from models.search.landscape import Landscape
from models.search.spaces import restricted, shapes_of
from stages import comparison, front, growth_view, latency_view, pictures, tasks
from stages.alphas import read_alphas
from stages.compare.pictures import draw as comparison_picture
from stages.evaluation import Evaluation, Metric
from stages.found_latency import read_found
from stages.genotypes import read_genotype
from stages.landscape_picture import landscape as landscape_picture
from stages.narrow_cell import narrow_cell
from stages.page import environment, versions
from stages.plumbing.files import (
    ALPHAS,
    EVALUATION,
    EXPORT,
    GENOTYPE_JSON,
    LANDSCAPE,
    RETRAIN,
    SEARCH,
    read_rows,
)
from stages.plumbing.settings import write as write_settings
from stages.records import ExportRecord, RetrainMetrics, SearchSummary
from stages.registry.record import RegistryRecord
from stages.report_facts import (
    facts,
    gap_sentence,
    gap_text,
    headline_latency,
    interval,
    score_text,
    tiles,
    times,
    versus,
)

if TYPE_CHECKING:
    from models.search.genotype import Genotype
    from stages.contracts import Layout, Words
    from stages.params import Params


def rendered(params: Params, registry: RegistryRecord, metric: Metric) -> str:
    """The page as HTML."""
    return environment(__file__).get_template("report_page.html").render(content(params, registry, metric))


def content(params: Params, registry: RegistryRecord, metric: Metric) -> dict[str, Any]:
    """The values that the template shows."""
    evaluation, views = Evaluation.load(EVALUATION), tasks.views(params.task)
    exported = ExportRecord.read(EXPORT / "export.json", metric)
    search = searched(params, metric, views.words())
    latency = latency_view.section(
        params, metric, registry, search["space"], search["history"], search["chosen"]
    )
    headline, cases = (
        headline_latency(exported, registry, read_found(metric), metric),
        len(evaluation.per_case),
    )
    return {
        "metric": metric,
        "words": views.words(),
        "score": lambda value: score_text(value, metric),
        "difference": lambda value: gap_text(value, metric),
        "interval": lambda value: interval(value, cases, metric),
        "registry": registry,
        "sentence": first_upper(registry.reason),
        "facts": facts(registry.model_dump(), metric),
        "versus": versus(registry, cases, metric, headline),
        "tiles": tiles(exported, search["summary"], cases, metric, headline, views.words()),
        "gap": gap_sentence(search["summary"], metric, views.words()),
        "data": tasks.data(params.task).read_card(),
        "data_words": views.data_words(),
        "search": search,
        "retrain": retrained(metric),
        "export": exported,
        "times": times(exported, metric),
        "latency": latency,
        "front": front_section(metric),
        "test": views.test_panel(params, evaluation),
        "worth": worth(params, metric),
        "repeat": repeat(params, registry),
    }


def worth(params: Params, metric: Metric) -> dict[str, Any]:
    """What a comparison says about the network, if there is one."""
    record = comparison.current(params, metric)
    if record is None:
        return {"title": comparison.TITLE, "sentences": [comparison.NOT_COMPARED], "rows": []}
    heads, rows = comparison.table(record, metric)
    return {
        "title": comparison.TITLE,
        "sentences": comparison.sentences(record, metric),
        "heads": heads,
        "rows": rows,
        "measured_with": record.measured_with,
        "drawing": drawn(comparison_picture, record, metric),
    }


def front_section(metric: Metric) -> dict[str, Any] | None:
    """What the page shows of the sweep that this network has won, if that was about latency."""
    if (found := front.current(metric)) is None:
        return None
    heads, rows = front.table(found, metric)
    return {"title": front.TITLE, "heads": heads, "rows": rows, "drawing": drawn(front.draw, found, metric)}


def searched(params: Params, metric: Metric, words: Words) -> dict[str, Any]:
    """What the page shows about the search: the cells, the curves, and the mix over the epochs."""
    architectures, alphas = tasks.architectures(params.task), read_alphas(ALPHAS)
    genotype = read_genotype(params.task)
    layout = architectures.layout(genotype)
    whole = architectures.space(alphas.about.space, exclude_none=alphas.about.exclude_none)
    history = read_rows(SEARCH / "history.csv")
    summary = SearchSummary.read(SEARCH / "summary.json", metric)
    chosen = summary.chosen_epoch(params.discretize.epoch)
    mixes = [alphas.mix(epoch) for epoch in range(1, len(alphas.epochs) + 1)]
    space = restricted(whole, shapes_of(mixes[-1]))
    grown = growth_view.changes(history)
    panels = [*pictures.learning_panels(metric), *pictures.instability_panels(history)]
    return {
        "summary": summary,
        "space": space,
        "history": history,
        "epochs": len(history),
        "chosen": chosen,
        "note": layout.note,
        "cells": {
            name: [drawn(draw, genotype, name, layout) for draw in (pictures.cell, narrow_cell)]
            for name in layout.pictures(genotype)
        },
        "panels": [drawn(pictures.small, history, panel, chosen) for panel in panels],
        "grown": grown,
        "time_line": drawn(growth_view.draw, history, chosen) if grown else None,
        "landscape": landscape(read_rows(LANDSCAPE)),
        "mixes": {
            group: drawn(
                pictures.mix, space, genotype, group, [mix[group].tolist() for mix in mixes], chosen, layout
            )
            for group in genotype.groups
        },
        "genotype": GENOTYPE_JSON.read_text(),
        "edges": {name: sentence(genotype, name, layout) for name in layout.pictures(genotype)},
        "signs": signs(words, metric, summary),
        "titles": {name: layout.title(name) for name in (*genotype.groups, *layout.pictures(genotype))},
    }


def signs(words: Words, metric: Metric, summary: SearchSummary) -> str:
    """How to read the panels of the search."""
    grows = ", the dominant eigenvalue of the Hessian grows" if summary.hessian_eigenvalue is not None else ""
    return words.signs.format(eigenvalue=grows, name=metric.words)


def landscape(rows: Sequence[Mapping[str, float | None]]) -> dict[str, Any] | None:
    """The loss around the architecture, as a drawing and in numbers; None if the search has not measured it."""
    if not rows:
        return None
    found = Landscape.of_rows([{name: value or 0.0 for name, value in row.items()} for row in rows])
    radius = float(found.offsets[-1])
    return {
        "drawing": drawn(landscape_picture, found),
        "center": found.center,
        "rise": found.rise,
        "radius": radius,
    }


def sentence(genotype: Genotype, group: str, layout: Layout) -> str:
    """The edges of a group as text, for readers who cannot see the drawing; of all groups, if the drawing shows them."""
    if group not in genotype.groups:
        return "; ".join(
            f"{layout.title(each)}: {sentence(genotype, each, layout)}" for each in genotype.groups
        )
    edges = enumerate(genotype.groups[group])
    if layout.rows:
        return ", ".join(f"{layout.rows[number]}: {op}" for number, (_, _, op) in edges)
    return ", ".join(
        f"{src} to {dst} by {op}" if src != dst else f"{dst}: {op}" for _, (src, dst, op) in edges
    )


def retrained(metric: Metric) -> dict[str, Any]:
    """The curves and numbers of the retraining."""
    history = read_rows(RETRAIN / "history.csv")
    metrics = RetrainMetrics.read(RETRAIN / "metrics.json", metric)
    panels: Sequence[pictures.Panel] = pictures.learning_panels(metric)
    return {
        "metrics": metrics,
        "epochs": len(history),
        "panels": [drawn(pictures.small, history, panel, metrics.best_epoch) for panel in panels],
    }


def drawn(draw: Any, *rest: Any) -> Markup:
    return Markup(pictures.svg(draw, *rest))


def repeat(params: Params, registry: RegistryRecord) -> dict[str, Any]:
    """What a reader needs to repeat the run: commit, settings, seeds and versions."""
    settings = params.of_results()
    text = io.StringIO()
    write_settings(settings, text)
    return {
        "commit": registry.origin.git_commit.removesuffix("-dirty"),
        "dirty": registry.origin.git_commit.endswith("-dirty"),
        "params": text.getvalue(),
        "seeds": {
            f"{name}.seed": section["seed"]
            for name, section in settings.items()
            if isinstance(section, dict) and "seed" in section
        },
        "versions": versions(tasks.packages(params.task)),
    }


def first_upper(sentence: str) -> str:
    return sentence[:1].upper() + sentence[1:]
