"""Measures of a classifier, compared with counting by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from stages.errors import UserError
from stages.evaluation import Evaluation
from stages.images.exported import evaluate, example, one_call
from stages.images.testing.classification import calibration, confusion, never_recognized
from stages.plumbing.files import DATA
from tests.stages.networks import EXPORT, linear, right

repeatable = settings(derandomize=True, deadline=None, database=None)


def evaluation(probabilities: NDArray[np.float32], labels: NDArray[np.int64]) -> Evaluation:
    predicted = probabilities.argmax(axis=1)
    hits = (predicted == labels).astype(float)
    details = {"predicted": predicted, "confidence": probabilities.max(axis=1), "labels": labels}
    return Evaluation(float(hits.mean()), hits, "", {}, details)


@repeatable
@given(st.integers(1, 300), st.integers(0, 2**32 - 1), st.sampled_from([0.5, 2.0, 10.0]))
def test_calibration_is_the_error_of_guo_et_al(images: int, seed: int, sharpness: float) -> None:
    draws = np.random.default_rng(seed)
    logits = draws.normal(size=(images, 4)) * sharpness
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
    labels = draws.integers(0, 4, images)
    found = calibration(evaluation(probabilities, labels))
    expected, counts = 0.0, []
    for place in range(15):  # bin by bin and image by image
        inside = [
            (float(row.max()), row.argmax() == label)
            for row, label in zip(probabilities, labels, strict=True)
            if place / 15 < row.max() <= (place + 1) / 15
        ]
        if inside:
            gap = sum(sure for sure, _ in inside) - sum(bool(hit) for _, hit in inside)
            expected += abs(gap) / images
            counts.append(len(inside))
    assert found.error == pytest.approx(expected, abs=1e-9)
    assert [count for _, _, count in found.bins] == counts


@pytest.mark.parametrize(("actual", "error"), [(1, 0), (0, 1)])
def test_certainty_is_calibrated_when_it_is_always_right(actual: int, error: float) -> None:
    sure = np.eye(3, dtype=np.float32)[np.ones(20, dtype=int)]
    assert calibration(evaluation(sure, np.full(20, actual))).error == error


@repeatable
@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_confusion_counts_actual_by_predicted(pairs: list[tuple[int, int]]) -> None:
    labels, predicted = np.array(pairs).T
    found = confusion(evaluation(np.eye(5, dtype=np.float32)[predicted], labels), classes=5)
    assert found.shape == (5, 5)  # even if a class has neither images nor answers
    for actual in range(5):
        for answer in range(5):
            assert found[actual, answer] == pairs.count((actual, answer))


def test_classes_that_are_never_recognized_are_named_with_their_images() -> None:
    sure = np.eye(4, dtype=np.float32)[[0, 0, 0, 0, 1]]
    found = evaluation(sure, np.array([0, 0, 1, 1, 2]))
    assert never_recognized(found, ["a", "b", "c", "without images"]) == (
        "2 of 4 classes are never recognized: b (2 test images), c (1 test image)"
    )
    assert never_recognized(evaluation(sure, np.array([0, 0, 1, 0, 1])), list("abcd")) is None
    one = evaluation(sure[:4], np.array([0, 0, 1, 0]))
    assert never_recognized(one, ["a", "b"]) == "1 of 2 classes is never recognized: b (1 test image)"


def test_the_notice_is_one_line_of_bounded_length() -> None:
    classes = [f"a very\nlong {'name ' * 200}{number}" for number in range(1000)]
    notice = never_recognized(
        evaluation(np.eye(1000, dtype=np.float32)[:1].repeat(1000, 0), np.arange(1000)), classes
    )
    assert notice is not None and len(notice) < 400 and "\n" not in notice
    assert notice.startswith("999 of 1000 classes are never recognized: a very long name name")
    assert notice.endswith("(1 test image) and 994 more")


def test_a_file_is_evaluated_on_all_test_images(finished_copy: Path) -> None:
    import onnx

    onnx.save(linear(40), EXPORT / "model.onnx")
    found, expected = evaluate(EXPORT / "model.onnx"), right()
    assert len(expected) > 256, "the test needs several batches"
    np.testing.assert_array_equal(found.per_case, expected)
    assert found.score == expected.mean()
    assert found.costs == {"size_bytes": (EXPORT / "model.onnx").stat().st_size}
    np.testing.assert_array_equal(found.details["labels"], np.load(DATA / "test_labels.npy"))
    assert {name: array.dtype for name, array in found.details.items()} == {
        "predicted": np.int64,
        "confidence": np.float32,
        "labels": np.int64,
    }
    np.testing.assert_array_equal(example()["image"], np.load(DATA / "test_images.npy")[:2])
    answer = np.asarray(one_call(EXPORT / "model.onnx")())
    assert answer.argmax() == found.details["predicted"][0]
    assert answer.shape == (1, 10)


def test_the_cases_are_images_labels_and_the_names_of_classes(finished_copy: Path) -> None:
    file = EXPORT / "model.onnx"
    before = evaluate(file).cases_sha256
    assert evaluate(file).cases_sha256 == before
    about, labels = DATA / "data.json", DATA / "test_labels.npy"
    original = about.read_text()
    about.write_text(original.replace('"9"', '"nine"'))
    renamed = evaluate(file).cases_sha256
    about.write_text(original)
    np.save(labels, np.load(labels)[::-1])
    relabelled = evaluate(file).cases_sha256
    assert len({before, renamed, relabelled}) == 3


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_damaged_test_images_are_one_line(finished_copy: Path, damage: str) -> None:
    path = DATA / "test_images.npy"
    content = path.read_bytes()
    path.unlink()
    if damage == "cut":
        path.write_bytes(content[:60])
    with pytest.raises(UserError, match="`dvc repro") as error:
        evaluate(EXPORT / "model.onnx")
    assert "\n" not in str(error.value)
