"""Exports the found network as an ONNX file and compares it with torch on all test cases, at several batch sizes.

Series: ``series`` float32 (batch, lookback, variables) to ``forecast`` float32 (batch, horizon, targets), both in the
user's units. Texts: ``tokens`` int64 (batch, time) and ``state`` float32 (batch, hidden), zeros at the beginning of a text, to
``logits`` float32 (batch, time, vocabulary) and ``new_state``. The number of steps is free for texts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from models.sequences import retrain
from models.training.costs import count_macs, count_parameters
from stages.contracts import ExportResult
from stages.errors import UserError
from stages.plumbing.files import KNOWN, RETRAIN, file_sha256
from stages.records import ExportRecord
from stages.sequences.data import SequenceCard, read_card
from stages.sequences.export.known import write_known
from stages.sequences.export.onnx_file import write_onnx
from stages.sequences.exported import MODEL, evaluate, inputs_of, series_answer, session_of, text_answer
from stages.sequences.params import TEXT, Params
from stages.sequences.testing import series, text
from stages.sequences.testing import with_torch as ours
from stages.timing import latencies

_PARITY_BATCHES = (1, 7, 64)  # because an export can be right at one batch size and wrong at another
_SAME = 1e-3  # in units of the scale, or of logits: a larger difference is no rounding


def export(params: Params, folder: Path) -> ExportResult:
    card, path = read_card(), folder / MODEL
    made = ours.load_networks(params.retrain, RETRAIN / "weights.safetensors")
    network = made[retrain.FOUND]
    write_onnx(network, card, params.export.opset, path)
    difference = (text_difference if card.kind == TEXT else series_difference)(network, card, path)
    if not difference <= _SAME:
        raise UserError(
            f"ONNX Runtime and torch differ by {difference:.2g} of the scale of the errors; nothing was exported; try another"
            " export.opset"
        )
    if card.kind != TEXT:
        write_known(folder / KNOWN.name, path, card)
    found = evaluate(path)
    beside = ours.evaluated(made, card)
    taken = measured(network, card, path, params.export.latency_repeats)
    counts = {"params": count_parameters(network), "macs": macs(network, card)}
    evaluation = replace(
        found,
        costs={**found.costs, **counts, "latency_ms": taken["onnxruntime"]["batch_1"]},
        details={
            **beside.details,
            **found.details,
            f"parameters.{series.FOUND}": np.array([counts["params"]]),
        },
    )
    record = ExportRecord(
        file=MODEL,
        test_cases=len(evaluation.per_case),
        test_score=evaluation.score,
        largest_difference=difference,
        latency_ms={
            f"{name}_{size}": milliseconds
            for name, times in taken.items()
            for size, milliseconds in times.items()
        },
        threads=torch.get_num_threads(),
        size_bytes=path.stat().st_size,
        params=counts["params"],
        macs=counts["macs"],
        opset=params.export.opset,
        model_sha256=file_sha256(path),
    )
    return ExportResult(record, evaluation, [line(record, card)])


def series_difference(network: nn.Module, card: SequenceCard, path: Path) -> float:
    """The largest difference of a forecast from torch's, in units of the target's scale, as errors are in MASE."""
    test = series.read_test_windows(card)
    expected = series.in_batches(ours.series_answer(network, card), test)
    answer, largest = series_answer(session_of(path, torch.get_num_threads())), 0.0
    for size, most in [(size, 2 * max(_PARITY_BATCHES)) for size in _PARITY_BATCHES] + [(256, len(test))]:
        found = series.in_batches(answer, test, size, most)
        some = replace(test, scales_NK=test.scales_NK[: len(found)])
        largest = max(largest, float(series.scaled(found, expected[: len(found)], some).max()))
    return largest if np.isfinite(expected).all() else float("nan")


def text_difference(network: nn.Module, card: SequenceCard, path: Path) -> float:
    """The largest difference of a logit or a number in the state from torch's, over chunks that continue each other.

    Every test chunk is read, in batches of several sizes and in pieces of several lengths.
    """
    test = text.read_test_text(card)
    expected, found = ours.text_answer(network), text_answer(session_of(path, torch.get_num_threads()))
    largest, start, turn = 0.0, 0, 0
    while start < len(test):
        size = _PARITY_BATCHES[turn % len(_PARITY_BATCHES)]
        cases = np.arange(start, min(start + size, len(test)))
        tokens = test.chunks(cases)[0]
        pieces = (
            (tokens,) if turn % 2 else (tokens[:, : tokens.shape[1] // 2], tokens[:, tokens.shape[1] // 2 :])
        )
        state = None
        for piece in pieces:
            logits, after = expected(piece, state)
            for one, other in zip((logits, after), found(piece, state), strict=True):
                largest = max(largest, float(np.abs(one - other).max()))
            state = after
        start, turn = start + size, turn + 1
    return largest


def measured(
    network: nn.Module, card: SequenceCard, path: Path, repeats: int
) -> Mapping[str, Mapping[str, float]]:
    """How long torch and ONNX Runtime take for one and several cases, in milliseconds."""
    session = session_of(path, torch.get_num_threads())
    module = network if card.kind == TEXT else ours.deployed(network, card)

    @torch.inference_mode()
    def in_torch(feed: Mapping[str, Any]) -> object:
        return module(*(torch.from_numpy(array) for array in feed.values()))

    answers = {"torch": in_torch, "onnxruntime": lambda feed: session.run(None, feed)}
    return latencies(answers, partial(inputs_of, card, session=session), repeats)


def macs(network: nn.Module, card: SequenceCard) -> int:
    """Multiply-accumulates for one window, or for one chunk of text."""
    if card.kind == TEXT:
        return count_macs(network, torch.zeros(1, card.chunk, dtype=torch.int64))
    return count_macs(network, torch.zeros(1, card.lookback, len(card.variables)))


def line(record: ExportRecord, card: SequenceCard) -> str:
    """What the stage prints about the file."""
    what = "a logit" if card.kind == TEXT else "the scale of the errors"
    size = f"{record.largest_difference:.1e}" + ("" if card.kind == TEXT else f" of {what}")
    cases = "chunks" if card.kind == TEXT else "windows"
    return f"{record.file}, {record.size_bytes / 1e6:.2f} MB, differs from torch by at most {size} on {record.test_cases} test {cases}"
