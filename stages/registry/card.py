"""The model card: what a version is, how it was tested, what it costs and where it ends, for a reader without the code.

Its structure is the template card.md.j2. This module computes the sections that are the same for every task; a task
writes the rest as a ``TaskCard``.

The card links to pictures by their paths in artifacts/, which are also their paths beside the registered model. The
description of the version in MLflow is the same text without pictures, as far as the registry has room for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2

from stages.comparison import NOT_COMPARED, TITLE, ComparisonRecord, sentences
from stages.evaluation import Metric
from stages.found_latency import HEADS, FoundLatency, read_found, rows
from stages.found_latency import TITLE as LATENCY_TITLE
from stages.found_latency import sentences as latency_sentences
from stages.latencies import read_record
from stages.page import size
from stages.plumbing.files import CARD, GENOTYPE, LATENCY, SEARCH, read_json
from stages.records import DataCard, ExportRecord, SearchSummary
from stages.registry.gate import Judgement
from stages.registry.markdown import plain, table
from stages.registry.record import RegistryRecord
from stages.registry.runtimes import first_runtime

_LAST = 3  # sections of a card after that about the comparison
_ROOM = 5000  # characters of a version's description in an SQL registry
_TEMPLATES = Path(__file__).parent


@dataclass(frozen=True)
class TaskCard:
    """The parts of a card that only the task can write, as Markdown."""

    headline: str  # what it does, and how well, in one sentence
    description: str  # what it is, and how it was found and trained
    contract: Sequence[str]  # inputs and outputs of the exported file
    licence: str  # of the data; without a full stop
    results: Mapping[str, str]  # title -> section about the test results
    limits: Sequence[str]  # what it cannot do, and what was not tested
    groups: Sequence[str]  # of the genotype, such as normal and reduce
    weights: str = "parameters"  # what is trained
    throughput: Callable[[ExportRecord], str] | None = None  # the speed of many cases at once
    notices: Sequence[
        str
    ] = ()  # plain text, not Markdown: what the score may hide, a sentence each, no full stop


def document(
    record: RegistryRecord,
    judgement: Judgement,
    task: TaskCard,
    exported: ExportRecord,
    data: DataCard,
    compared: ComparisonRecord | None = None,
    used: str | None = None,
) -> str:
    """The whole card. ``record`` is what registry.json will hold, ``compared`` what a comparison found, if any.

    ``used`` is a notice about test cases on which many networks were judged.
    """
    evidence = judgement.evidence
    summary = SearchSummary.read(SEARCH / "summary.json", evidence.metric)
    found = read_found(evidence.metric)
    noticed = (*task.notices, summary.notice, found.notice if found else None, used)
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES),
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # Markdown, not HTML; names from outside are escaped by markdown.plain
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["size"] = size
    cases, others = exported.test_cases, exported.disagreements
    return environment.get_template("card.md.j2").render(
        record=record,
        task=task,
        notices=[plain(notice) for notice in noticed if notice],
        latency_title=LATENCY_TITLE,
        latency=latency(found, judgement) if found else None,
        worth_title=TITLE,
        worth=worth(compared, evidence.metric),
        metric=evidence.metric,
        file=evidence.file,
        champion=evidence.champion,
        trouble=evidence.champion.trouble if evidence.champion else None,
        compared=record.compared,
        comparison=_comparison(record, judgement),
        exported=exported,
        runtime=first_runtime(exported.opset) if exported.opset else None,
        agreement=f"all {cases}" if not others else f"{cases - others} of {cases}",
        data=data,
        data_notices=[line[:1].upper() + line[1:] for line in map(plain, data.notices())],
        counts=", ".join(f"{count:,} {split}" for split, count in data.counts.items()),
        origin=_origin(record, evidence.metric.case),
        gap=summary.discretization_gap,
        pictures=sorted(GENOTYPE.glob("*.png")),
        genotype=json.dumps(read_json(GENOTYPE / "genotype.json")),
    )


def latency(found: FoundLatency, judgement: Judgement) -> dict[str, object]:
    """The section about how long the network takes, where the settings asked for it."""
    budget, known = judgement.evidence.budget, read_record(judgement.evidence.metric)
    picture = LATENCY / "predicted.png"
    lines = latency_sentences(found, known, budget.taken_ms if budget else None)
    return {
        "lines": [plain(line) for line in lines],
        "table": table(HEADS, rows(known)),
        "picture": picture.relative_to(CARD.parent) if picture.is_file() else None,
    }


def worth(compared: ComparisonRecord | None, metric: Metric) -> str:
    """The section about a comparison."""
    said = [NOT_COMPARED] if compared is None else sentences(compared, metric)
    return "\n".join(f"- {plain(sentence)}" for sentence in said)


def with_comparison(document: str, compared: ComparisonRecord, metric: Metric) -> str:
    """A card with what a comparison has found since the card was written."""
    section = f"## {TITLE}\n\n{worth(compared, metric)}\n\n"
    parts = re.split(r"^(?=## )", document, flags=re.MULTILINE)
    places = [place for place, part in enumerate(parts) if part.startswith(f"## {TITLE}\n")]
    if places:
        parts[places[0]] = section
    else:  # a card from before there were comparisons
        parts.insert(max(1, len(parts) - _LAST), section)
    return "".join(parts)


def sections(document: str) -> dict[str, str]:
    """Title -> text of a card, in reading order; the first section has no title."""
    first, *others = re.split(r"^## ", document, flags=re.MULTILINE)
    parts = (other.partition("\n") for other in others)
    return {"": first.strip(), **{title: text.strip() for title, _, text in parts}}


def description(document: str) -> str:
    """The card without pictures, shortened by whole sections to what a registry takes."""
    end = f"\n\n*Pictures and the other sections: `{CARD.name}` among the version's artifacts.*\n"
    kept = ""
    for title, text in sections(document).items():
        lines = [line for line in text.splitlines() if not line.startswith("![")]
        body = "\n".join(lines).strip()
        section = f"\n\n## {title}\n\n{body}" if title else body
        if len(kept) + len(section) + len(end) <= _ROOM:
            kept += section
    return kept + end


def pictures(document: str) -> list[Path]:
    """The files of the pictures that a card links to, where they exist."""
    links = re.findall(r"^!\[[^\]]*\]\(([^)]+)\)$", document, flags=re.MULTILINE)
    return [path for link in links if (path := CARD.parent / link).is_file()]


def _comparison(record: RegistryRecord, judgement: Judgement) -> str:
    """This version and the champion, side by side."""
    evidence, found, theirs = judgement.evidence, judgement.compared, record.compared
    champion = evidence.champion
    if found is None or theirs is None or champion is None or champion.evaluation is None:
        return ""
    metric = evidence.metric
    best = "that only it got right" if metric.outcomes == "right or wrong" else "that it answers better"
    scores = [
        (form.words, form.text(form.score(evidence.challenger)), form.text(form.score(champion.evaluation)))
        for form in metric.forms
    ]
    rows = [
        *((f"test {words}", ours, other) for words, ours, other in scores),
        (f"{metric.case}s {best}", str(found.challenger_better), str(found.champion_better)),
    ]
    if record.latency_ms is not None and theirs.latency_ms is not None:
        rows.append(
            (f"milliseconds per {metric.case}", f"{record.latency_ms:.2f}", f"{theirs.latency_ms:.2f}")
        )
    if record.size_bytes is not None and theirs.size_bytes is not None:
        rows.append(("size", size(record.size_bytes), size(theirs.size_bytes)))
    return table(("", "this version", f"version {champion.version}"), rows)


def _origin(record: RegistryRecord, case: str) -> str:
    origin = record.origin
    rows = [
        ("git commit", origin.git_commit),
        ("data", origin.data_sha256),
        (f"test {case}s and their right answers", record.test_sha256),
        ("`dvc.lock`", origin.dvc_lock_sha256),
        ("file (SHA-256)", origin.model_sha256),
        ("Prefect flow run", origin.prefect_flow_run),
        *((f"run of {stage}", run_id) for stage, run_id in origin.runs.items()),
    ]
    return table(("", ""), [(name, f"`{value}`") for name, value in rows if value])
