"""The report's section about the test: the networks side by side, and forecasts against the truth, or pieces of text."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from stages.evaluation import Evaluation
from stages.page import environment
from stages.pictures import svg
from stages.sequences.data import TIMES, SequenceCard, metric_of, read_array, read_card
from stages.sequences.params import TEXT
from stages.sequences.testing.comparing import NAMES, Row, compared, names, worse_than
from stages.sequences.testing.series import by_series_or_target, read_test_windows
from stages.sequences.testing.text import read_test_text
from stages.sequences.views import drawings

_MOST_TARGETS = 3  # that are drawn


def test_section(evaluation: Evaluation, count: int) -> Markup:
    """The section as HTML, with up to ``count`` windows or chunks, from the best to the worst."""
    card = read_card()
    metric = metric_of(card)
    chosen = from_best_to_worst(evaluation.per_case, count)
    heads, rows = comparison(compared(evaluation, card))
    content: dict[str, Any] = {
        "text": card.kind == TEXT,
        "heads": heads,
        "rows": rows,
        "notice": worse_than(evaluation, card),
        "label": metric.name.upper() if card.kind != TEXT else metric.words,
        "cases": len(evaluation.per_case),
        "case": metric.case,
        "season": card.step.in_words(card.season),
        "shown": len(chosen),
    }
    if card.kind == TEXT:
        content["chunks"] = chunks(evaluation, card, chosen)
    else:
        parts = by_series_or_target(evaluation, card) or {}
        content |= {
            "by": "series" if len(card.series) > 1 else "target",
            "parts": {name: "" if value is None else metric.text(value) for name, value in parts.items()},
            "horizons": horizons(evaluation, card),
            "windows": windows(evaluation, card, chosen),
        }
    return Markup(environment(__file__).get_template("test.html").render(content))


def from_best_to_worst(values_N: NDArray[np.float64], count: int) -> list[int]:
    """Cases whose values are evenly spread over the ranks: the best, the worst, and some between them."""
    order = np.argsort(values_N, kind="stable")
    places = np.linspace(0, len(order) - 1, min(count, len(order))).round().astype(int)
    return order[places].tolist()


def comparison(found: Sequence[Row]) -> tuple[list[str], list[list[str]]]:
    """The table of networks: heads and rows. What a network has not is left out for all."""
    label = "MASE" if found[0].metric == "mase" else "bits per character"
    columns = {
        label: [f"{row.score:.4g}" for row in found],
        "sMAPE": [f"{row.smape:.1f}%" if row.smape is not None else "" for row in found],
        "MAE": [f"{row.mae:.4g}" if row.mae is not None else "" for row in found],
        "weights": [f"{row.parameters:,}" for row in found],
        "difference (95% interval)": [difference(row) for row in found],
    }
    kept = {head: cells for head, cells in columns.items() if any(cells)}
    return ["network", *kept], [
        [row.name, *(cells[number] for cells in kept.values())] for number, row in enumerate(found)
    ]


def difference(row: Row) -> str:
    """The difference from the found network, with its 95% interval."""
    if row.difference is None or row.low is None or row.high is None:
        return ""
    return f"{row.difference:+.3g} ({row.low:+.3g} to {row.high:+.3g})"


def horizons(evaluation: Evaluation, card: SequenceCard) -> list[Markup]:
    """One chart of errors over the horizon per target."""
    return [
        Markup(
            svg(
                drawings.horizon,
                target,
                {
                    NAMES.get(name, name): evaluation.details[f"mae.{name}"][:, number]
                    for name in names(evaluation, card)
                },
                card.step.every(),
            )
        )
        for number, target in enumerate(card.targets)
    ]


def windows(evaluation: Evaluation, card: SequenceCard, chosen: Sequence[int]) -> list[dict[str, Any]]:
    """Test windows as drawings with what they are about."""
    test, times = read_test_windows(card), read_array(TIMES)
    naive, targets = test.seasonal_naive(), min(len(card.targets), _MOST_TARGETS)
    found = []
    for case in chosen:
        title = moment(int(times[test.origins[case] + card.lookback]), card.zone)
        if card.series:
            title = f"{card.series[int(test.series[case])]}, {title}"
        window = drawings.Window(
            title,
            test.inputs(case, case + 1)[0, :, :targets],
            evaluation.details["truth"][case, :, :targets],
            evaluation.details["forecasts"][case, :, :targets],
            naive[case, :, :targets],
            tuple(card.targets[:targets]),
        )
        score = f"{evaluation.per_case[case]:.3g}"
        found.append({"drawing": Markup(svg(drawings.forecast, window)), "title": title, "score": score})
    return found


def moment(seconds: int, zone: str | None) -> str:
    """A time for readers, on the clock of the zone, or in UTC."""
    local = datetime.fromtimestamp(seconds, ZoneInfo(zone) if zone else UTC)
    return f"{local:%Y-%m-%d}" if local.hour == local.minute == 0 else f"{local:%Y-%m-%d %H:%M}"


def chunks(evaluation: Evaluation, card: SequenceCard, chosen: Sequence[int]) -> list[dict[str, Any]]:
    """Test chunks: what is written there, and its bits per character."""
    test = read_test_text(card)
    return [
        {
            "words": "".join(
                str(card.vocabulary[token]) for token in test.chunks(np.array([case]))[1][0].tolist()
            ),
            "score": f"{evaluation.per_case[case]:.3g}",
        }
        for case in chosen
    ]
