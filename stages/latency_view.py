"""The report's section about latency: the found network, the predictor beside simpler ones, and the search's course."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from markupsafe import Markup

from models.search.latency.encoding import Encoding
from models.training.events import Row
from stages import pictures, tasks
from stages.evaluation import Metric
from stages.found_latency import HEADS, TITLE, read_found, rows, sentences
from stages.latencies import LatencyRecord, read_predictor, read_record, read_table
from stages.measuring import picture
from stages.plumbing.files import LATENCY
from stages.registry.record import RegistryRecord

if TYPE_CHECKING:
    from models.search.spaces import SearchSpace
    from stages.params import Params


def section(
    params: Params,
    metric: Metric,
    registry: RegistryRecord,
    space: SearchSpace,
    history: Sequence[Row],
    chosen: int,
) -> dict[str, Any] | None:
    """What the section shows; None where the settings have not asked for latency."""
    found = read_found(metric)
    if found is None:
        return None
    table = read_record(metric)
    panels = pictures.latency_panels(history)
    return {
        "title": TITLE,
        "notice": found.notice,
        "sentences": sentences(found, table, registry.measures.get("budgeted_latency_ms")),
        "heads": HEADS,
        "rows": rows(table),
        "drawing": predicted_against_measured(params.task, space, table),
        "panels": [Markup(pictures.svg(pictures.small, history, panel, chosen)) for panel in panels],
    }


def predicted_against_measured(task: str, space: SearchSpace, table: LatencyRecord) -> Markup:
    """The picture of the predictor on the held-out architectures of the table."""
    predictor, encoding = read_predictor(space), Encoding(space)
    held_out = [
        row for row in read_table(LATENCY / "measurements.csv", tasks.architectures(task)) if row.held_out
    ]
    predicted = predictor(torch.stack([encoding.encode(row.genotype) for row in held_out])).tolist()
    return Markup(pictures.svg(picture.draw, predicted, [row.ms for row in held_out], table))
