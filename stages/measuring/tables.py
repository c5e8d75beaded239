"""Reads the user's table of latencies (latency.measurements): the result of a kit, or a table from elsewhere.

Columns: ``ms``, and ``genotype`` (the content of genotype.json) or, for spaces with such a notation, ``arch_str``. A kit
adds what it has measured with, which must agree with params.yaml.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from models.errors import InvalidInput
from models.search.spaces import SearchSpace
from stages.errors import UserError
from stages.latencies import UNIT, Measurement
from stages.plumbing.files import read_table

if TYPE_CHECKING:
    from models.search.genotype import Genotype
    from stages.contracts import Architectures

SETTING = "latency.measurements"
FEWEST, FEWEST_WITH_PREDICTORS = 50, 20  # architectures that a table must have
_CONTRADICTION = 2.0  # from this ratio on, two measurements of an architecture contradict each other
_THOUSAND = (
    30.0  # a ratio to the probe from which on a table has another unit: between 1 and 1,000, as a ratio
)
_DEVICE = ("device", "processor", "governor", "threads", "runtime")


@dataclass(frozen=True)
class Table:
    """A user's table."""

    rows: Sequence[Measurement]
    device: Mapping[str, str]  # what it says about the device
    unit_stated: bool
    noise: float | None  # mean relative difference of two measurements of an architecture; None: none has two


def read(path: Path, space: SearchSpace, about: Mapping[str, Any], architectures: Architectures) -> Table:
    """The table, one row per architecture. Raises UserError when it cannot be used.

    ``about`` has what the table must agree with, as far as it says so: space, size, precision, batch_size, unit.
    """
    lines = read_table(path, SETTING)
    columns = list(lines[0]) if lines else []
    key = next((name for name in ("genotype", "arch_str") if name in columns), None)
    if key is None or "ms" not in columns:
        raise UserError(
            f"{SETTING} is {path}, which needs a column ms and a column genotype or arch_str; it has"
            f" {', '.join(columns) or 'no row'}; give the column with your device's milliseconds the name ms"
        )
    check_statements(path, lines, about)
    found: dict[str, tuple[Genotype, list[tuple[int, float]]]] = {}
    for number, line in enumerate(lines, start=2):
        where = f"{SETTING} is {path}, where line {number}"
        genotype = _genotype(line[key], key, space, architectures, where)
        name = json.dumps(architectures.genotype_json(genotype))
        found.setdefault(name, (genotype, []))[1].append((number, _milliseconds(line["ms"], where)))
    for _, times in found.values():
        _check_duplicates(path, times)
    rows = [
        Measurement(genotype, sum(ms for _, ms in times) / len(times)) for genotype, times in found.values()
    ]
    twice = [(times[0][1], times[1][1]) for _, times in found.values() if len(times) > 1]
    noise = sum(abs(second - first) / first for first, second in twice) / len(twice) if twice else None
    device = {name: lines[0][name] for name in _DEVICE if lines[0].get(name)}
    return Table(rows, device, "unit" in columns, noise)


def check_statements(path: Path, lines: Sequence[Mapping[str, str]], about: Mapping[str, Any]) -> None:
    """Raises UserError when a table says that it is about another space, size, precision, batch size or unit."""
    for name, wanted in about.items():
        for number, line in enumerate(lines, start=2):
            said = line.get(name)
            if said in (None, "", _text(wanted)):
                continue
            raise UserError(
                f"{SETTING} is {path}, where line {number} is about {name} {said}, not {_text(wanted)}; measure again"
                " with the settings of params.yaml, or change them"
            )


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _genotype(
    text: str | None, key: str, space: SearchSpace, architectures: Architectures, where: str
) -> Genotype:
    try:
        content = json.loads(text or "") if key == "genotype" else {"space": space.family, key: text}
        if not isinstance(content, dict):
            raise InvalidInput(f"expected a JSON object, not {text}")
        genotype = architectures.genotype_of(content)
    except (InvalidInput, ValueError) as error:
        raise UserError(
            f"{where} has no architecture in column {key} ({error}); correct or remove it"
        ) from None
    offered = {
        group: {(edge.src, edge.dst): edge.ops for edge in edges} for group, edges in space.groups.items()
    }
    if genotype.space != space.family or not all(
        op in offered[group].get((src, dst), ())
        for group, edges in genotype.groups.items()
        for src, dst, op in edges
    ):
        raise UserError(
            f"{where} has an architecture that the space {space.name} does not contain; give a table of that space, or"
            " set search.space to the table's"
        )
    return genotype


def _milliseconds(text: str | None, where: str) -> float:
    try:
        ms = float(text or "")
    except ValueError:
        ms = math.nan
    if not (math.isfinite(ms) and ms > 0):
        raise UserError(f"{where} has {text!r} in column ms; it should be a number of milliseconds above 0")
    return ms


def _check_duplicates(path: Path, times: Sequence[tuple[int, float]]) -> None:
    (first, low), (last, high) = (
        min(times, key=lambda entry: entry[1]),
        max(times, key=lambda entry: entry[1]),
    )
    if high >= _CONTRADICTION * low:
        raise UserError(
            f"{SETTING} is {path}, where lines {first} and {last} are about the same architecture and contradict each"
            f" other ({low:g} and {high:g} ms); remove the wrong one"
        )


def check_size(path: Path, table: Table, predictors: int) -> None:
    """Raises UserError when there are too few architectures to fit a predictor to."""
    fewest = FEWEST_WITH_PREDICTORS if predictors else FEWEST
    if len(table.rows) < fewest:
        others = (
            "" if predictors else f" ({FEWEST_WITH_PREDICTORS} do with latency.predictors of other devices)"
        )
        raise UserError(
            f"{SETTING} is {path}, which has {len(table.rows)} architectures; it should have {fewest} or more{others}"
        )


def check_unit(path: Path, table: Table, processor: str, probe: Callable[[Genotype], float]) -> None:
    """Raises UserError when the numbers are not milliseconds, as far as this machine can tell.

    ``probe`` measures an architecture here. A table of another device is believed when it states its unit. Otherwise its
    median must not be far below what the same architectures take here, because the mistake seen most is seconds.
    """
    here = table.device.get("processor") == processor
    if table.unit_stated and not here:
        return
    few = table.rows[:: max(len(table.rows) // 5, 1)][:5]
    said, found = median(row.ms for row in few), median(probe(row.genotype) for row in few)
    if said * _THOUSAND < found or (here and said > _THOUSAND * found):
        unit = "seconds" if said < found else "microseconds"
        remedy = (
            "correct column ms"
            if here
            else f"correct column ms, or add a column unit with {UNIT} if it is right"
        )
        raise UserError(
            f"{SETTING} is {path}, where {len(few)} architectures take {said:.3g} ms in the middle, but {found:.3g} ms on"
            f" this machine; the column ms seems to be in {unit}; {remedy}"
        )
