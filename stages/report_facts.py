"""The report's figures in words: its headline, how the version compares with the champion, and times at export.

How long the network takes is one number on the whole page. Other measurements of the same thing, made under another load
or on another number of threads, would differ from it without meaning anything, so the page shows them as ratios.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stages.contracts import Words
from stages.evaluation import Metric
from stages.found_latency import FoundLatency
from stages.intervals import in_words
from stages.page import percent, size
from stages.records import ExportRecord, SearchSummary
from stages.registry.record import RegistryRecord

_FIRST = ("model", "version", "promoted", "reason", "aliases", "champion_before")
_SAME = 0.005  # times that differ by a smaller share count as equal
_MANY = 2.5  # from this ratio on, a time is so many times as long


@dataclass(frozen=True)
class Latency:
    """The one latency of the page, and how it was measured."""

    ms: float
    meaning: str
    registered: bool  # measured by register under the same conditions as the champion's

    @property
    def text(self) -> str:
        """As the headline, every table and the model card show it."""
        return f"{self.ms:.2f} ms" if self.registered and self.ms >= 0.01 else f"{self.ms:.3g} ms"


def headline_latency(
    exported: ExportRecord, registry: RegistryRecord, found: FoundLatency | None, metric: Metric
) -> Latency | None:
    """Under a budget, what the budget is about; otherwise what register measured; otherwise what export measured."""
    if found is not None and found.budget_ms is not None:
        gate_ms = registry.measures.get("budgeted_latency_ms")
        how = found.how if gate_ms is None else "measured when it was registered"
        meaning = f"of at most {found.budget_ms:g} ms, {how} ({found.conditions}; {found.processor or 'unknown device'})"
        return Latency(found.found.ms if gate_ms is None else gate_ms, meaning, registered=False)
    if registry.latency_ms is not None:
        meaning = f"per {metric.case}: one per call, on all cores (median, when it was registered)"
        return Latency(registry.latency_ms, meaning, registered=True)
    if (ms := exported.latency_ms.get("onnxruntime_batch_1")) is None:
        return None
    threads = f"{exported.threads} thread{'s' if exported.threads != 1 else ''}"
    return Latency(
        ms, f"per {metric.case}: one per call, on {threads} (median, when it was exported)", registered=False
    )


def score_text(value: float | None, metric: Metric) -> str:
    """A score as tiles and tables show it."""
    if metric.outcomes == "right or wrong":
        return percent(value)
    return "none" if value is None else metric.text(value)


def gap_text(value: float, metric: Metric) -> str:
    """A difference of scores as tiles and tables show it."""
    return percent(value) if metric.outcomes == "right or wrong" else f"{value:.3g}"


def interval(score: float, cases: int, metric: Metric) -> str:
    """The 95% interval of a share of right answers, in words; empty for other scores."""
    return in_words(score, cases) if metric.own == metric and metric.outcomes == "right or wrong" else ""


def tiles(
    exported: ExportRecord,
    summary: SearchSummary,
    cases: int,
    metric: Metric,
    latency: Latency | None,
    words: Words,
) -> list[tuple[str, str]]:
    """The tiles at the top of the page: value and meaning."""
    if within := interval(exported.test_score, cases, metric.own):
        meaning = f"of {cases:,} test {metric.case}s right (95% interval: {within})"
    else:
        meaning = f"test {metric.words}"
    found = [(score_text(exported.test_score, metric), meaning), (f"{exported.params:,}", words.weights)]
    if metric.balanced and exported.test_balanced_score is not None:
        found.insert(1, (score_text(exported.test_balanced_score, metric), metric.balanced.words))
    if exported.macs is not None:
        found.append((f"{exported.macs / 1e6:.4g} M", f"multiply-adds per {metric.case}"))
    if latency is not None:
        found.append((latency.text, latency.meaning))
    return [*found, (gap_text(summary.discretization_gap, metric), "discretization gap")]


def gap_sentence(summary: SearchSummary, metric: Metric, words: Words) -> str:
    """What the discretization gap is, and between which two numbers."""
    before, after = (
        score_text(score, metric) for score in (summary.supernet_score, summary.discretized_score)
    )
    said = words.gap.format(name=metric.words, before=before, after=after)
    return f"The discretization gap is {said}"


def pace(ours: float, theirs: float) -> str:
    """How a time compares with another: 28% slower, 22% faster, takes 4.2 times as long."""
    ratio = ours / theirs
    if abs(ratio - 1) < _SAME:
        return "as fast"
    if ratio >= _MANY:
        return f"takes {ratio:.{0 if ratio >= 10 else 1}f} times as long"
    return f"{ratio - 1:.0%} slower" if ratio > 1 else f"{1 - ratio:.0%} faster"


def versus(
    registry: RegistryRecord, cases: int, metric: Metric, latency: Latency | None
) -> list[tuple[str, str, str]]:
    """At most six facts: what is compared, this version, and the champion of that time (empty without one)."""
    content = registry.model_dump()
    theirs: Mapping[str, Any] = content.get("compared") or {}

    def scored(form: Metric, source: Mapping[str, Any]) -> str:
        if (value := source.get(form.test_name)) is None:
            return ""
        within = interval(value, cases, form)
        return score_text(value, metric) + (f" ({within})" if within else "")

    rows = [(f"test {form.words}", scored(form, content), scored(form, theirs)) for form in metric.forms]
    if registry.compared is not None:
        better = (
            "that only it answers rightly"
            if metric.outcomes == "right or wrong"
            else "that it answers better"
        )
        counts = [
            next(str(theirs[name]) for name in names if name in theirs)
            for names in (
                ("only_challenger_right", "challenger_better"),
                ("only_champion_right", "champion_better"),
            )
        ]
        noise = "more than noise" if registry.compared.exceeds_noise else "may be noise"
        p_value = f"{noise} (p = {registry.compared.p_value:.2g})"
        rows += [(f"{metric.case}s {better}", counts[0], counts[1]), ("difference", p_value, "")]
    rows.append(("time", *_times(registry, latency)))
    ours_mb, theirs_mb = (
        "" if count is None else size(count)
        for count in (content.get("size_bytes"), theirs.get("size_bytes"))
    )
    rows.append(("size", ours_mb, theirs_mb))
    return [row for row in rows if any(row[1:])]


def _times(registry: RegistryRecord, latency: Latency | None) -> tuple[str, str]:
    """This version's time, also against the champion's, and the champion's where it is comparable with the headline's."""
    shown = latency is not None and latency.registered
    ours = latency.text if latency is not None and shown else ""
    theirs = registry.compared.latency_ms if registry.compared else None
    if theirs is None or registry.latency_ms is None:
        return ours, ""
    words = pace(registry.latency_ms, theirs)
    return (f"{ours}: {words}" if ours else words), (
        Latency(theirs, "", registered=True).text if shown else ""
    )


def times(exported: ExportRecord, metric: Metric) -> list[dict[str, Any]]:
    """One row per batch size: how int8 and torch compare with the exported file, all measured by turns at export."""
    prefix = "onnxruntime_batch_"
    rows = []
    for name, taken in exported.latency_ms.items():
        if name.startswith(prefix):
            size = name.removeprefix(prefix)
            torch_ms = exported.latency_ms.get(f"torch_batch_{size}")
            int8_ms = exported.int8.latency_ms.get(f"batch_{size}") if exported.int8 else None
            rows.append(
                {
                    "what": f"time for {size} {metric.case}{'s' if size != '1' else ''}",
                    "torch": "" if torch_ms is None else pace(torch_ms, taken),
                    "int8": "" if int8_ms is None else pace(int8_ms, taken),
                }
            )
    return rows


def facts(content: Mapping[str, Any], metric: Metric, prefix: str = "") -> dict[str, Any]:
    """All fields of registry.json, flat, with words for names and the verdict first."""
    first = (*_FIRST, *(form.test_name for form in metric.forms))
    found: dict[str, Any] = {}
    for name in sorted(content, key=lambda name: first.index(name) if name in first else len(first)):
        value = content[name]
        words = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            found |= facts(value, metric, f"{words}: ")
        else:
            found[words] = (", ".join(map(str, value)) or None) if isinstance(value, list) else value
    return found
