"""Writes the user's series or text as arrays that the later stages read. Checks all that the user has given.

A new kind of table needs a reader in sources.py. What a table's rows must be like is said in times.py and series.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from stages.plumbing.files import sha256_of
from stages.sequences.data import SCALES, SPLITS, TIMES, VALUES, SequenceCard
from stages.sequences.params import TEXT, DataParams, Params
from stages.sequences.prepare.series import series_of
from stages.sequences.prepare.sources import read_table, the_file
from stages.sequences.prepare.splits import check_resolution, check_windows, split, windows
from stages.sequences.prepare.text import prepare_text


def prepare(params: Params, folder: Path) -> SequenceCard:
    data = params.data
    if data.name == TEXT:
        return prepare_text(data, the_file(data), folder)
    return _prepare_series(data, folder)


def _prepare_series(data: DataParams, folder: Path) -> SequenceCard:
    table = read_table(data)
    series = series_of(table, data)
    parts = split(series, data, table.where)
    check_resolution(parts, data, table.where)
    counts: dict[str, int] = {}
    for part in SPLITS:
        origins, numbers = windows(parts, data, part)
        counts[part] = len(origins)
        np.save(folder / f"{part}_origins.npy", origins)
        np.save(folder / f"{part}_series.npy", numbers)
    check_windows(counts, parts, data, table.where)
    np.save(folder / VALUES, parts.values_NV.astype(np.float32))
    np.save(folder / TIMES, parts.seconds_N)
    np.save(folder / SCALES, parts.scales_SK)
    training_NV = parts.values_NV[parts.training_rows()]
    changes_V = (
        np.ptp(training_NV, axis=0) > 0
    )  # the deviation of equal numbers may be a rounding error instead of 0
    return SequenceCard(
        name=data.name,
        counts=counts,
        sha256=sha256_of(*sorted(folder.iterdir())),
        kind="series",
        time=data.time,
        time_format=data.time_format,
        targets=data.targets,
        covariates=data.covariates,
        lookback=data.lookback,
        horizon=data.horizon,
        season=parts.season,
        mean=training_NV.mean(axis=0).tolist(),
        std=np.where(changes_V, training_NV.std(axis=0), 1.0).tolist(),
        step=series.calendar.step,
        zone=data.zone,
        series=list(parts.names) if data.series is not None else [],
        rows=parts.rows,
        filled=series.filled,
        filled_rows=series.filled_rows,
        left_out=parts.left_out,
        remarks=list(parts.remarks),
    )
