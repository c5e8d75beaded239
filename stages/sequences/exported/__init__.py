"""Runs an exported file on the test cases, with ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from stages.evaluation import Evaluation
from stages.plumbing.files import EXPORT
from stages.sequences.data import SequenceCard, read_card
from stages.sequences.params import TEXT
from stages.sequences.testing import series, text

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

MODEL = "model.onnx"
_EXAMPLES = 2  # cases kept with a registered model as an input example


def evaluate(exported: Path) -> Evaluation:
    card, session = read_card(), session_of(exported)
    size = float(exported.stat().st_size)
    if card.kind == TEXT:
        test = text.read_test_text(card)
        return text.evaluation_of(text.bits_of(text_answer(session), test), test, size_bytes=size)
    windows = series.read_test_windows(card)
    forecasts = series.in_batches(series_answer(session), windows)
    return series.evaluation_of(forecasts, windows, size_bytes=size)


def answers(exported: Path, cases: int) -> NDArray[np.float32]:
    """Forecasts (cases, horizon, targets), or logits (cases, chunk, tokens) of chunks by themselves."""
    card, session = read_card(), session_of(exported)
    if card.kind == TEXT:
        test = text.read_test_text(card)
        return text_answer(session)(test.chunks(np.arange(min(cases, len(test))))[0], None)[0]
    return series.in_batches(series_answer(session), series.read_test_windows(card), most=cases)


def one_call(exported: Path) -> Callable[[], object]:
    session = session_of(exported)
    feed = inputs_of(read_card(), 1, session)
    return lambda: session.run(None, feed)


def example() -> Mapping[str, NDArray[Any]]:
    return inputs_of(read_card(), _EXAMPLES, session_of(EXPORT / MODEL))


def measures(evaluation: Evaluation) -> Mapping[str, float]:
    if (smape := evaluation.details.get(f"smape.{series.FOUND}")) is None:
        return {}
    naive = float(evaluation.details[f"mase.{series.NAIVE}"].mean())
    return {"smape": float(smape.mean()), "mase_of_seasonal_naive": naive}


def version_tags() -> Mapping[str, str]:
    import json

    card = read_card()
    if card.kind == TEXT:
        return {"unit": card.unit, "vocabulary": str(len(card.vocabulary))}
    return {
        "targets": json.dumps(list(card.targets)),
        "covariates": json.dumps(list(card.covariates)),
        "lookback": str(card.lookback),
        "horizon": str(card.horizon),
    }


def session_of(path: Path, threads: int = 0) -> InferenceSession:
    """The file in ONNX Runtime on the CPU. With ``threads`` 0, ONNX Runtime chooses."""
    import onnxruntime  # here, because the import is slow and not every caller runs a file

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4  # errors are raised anyway, and shown in one line
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def inputs_of(card: SequenceCard, count: int, session: InferenceSession) -> dict[str, NDArray[Any]]:
    """The inputs of the first test cases; if there are fewer, they are repeated."""
    if card.kind == TEXT:
        test = text.read_test_text(card)
        tokens = test.chunks(np.arange(count) % len(test))[0]
        return {"tokens": np.ascontiguousarray(tokens), "state": beginning(session, count)}
    windows = series.read_test_windows(card).inputs(0, count)
    return {"series": np.resize(windows, (count, *windows.shape[1:]))}


def beginning(session: InferenceSession, count: int) -> NDArray[np.float32]:
    """The state (B, H) with which a text begins."""
    (state,) = (entry for entry in session.get_inputs() if entry.name == "state")
    return np.zeros((count, state.shape[1]), np.float32)


def series_answer(session: InferenceSession) -> series.Answer:
    return lambda windows: np.asarray(session.run(["forecast"], {"series": windows})[0])


def text_answer(session: InferenceSession) -> text.Answer:
    def answer(
        tokens: NDArray[np.int64], state: NDArray[np.float32] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        before = beginning(session, len(tokens)) if state is None else state
        feed = {"tokens": np.ascontiguousarray(tokens), "state": np.ascontiguousarray(before)}
        logits, after = session.run(["logits", "new_state"], feed)
        return np.asarray(logits), np.asarray(after)

    return answer
