"""known.json: the server says what is not sure and what is unlike the training images, and without it says neither."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import threading
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.known import NOTHING, Known, _mean_and_spread, read_known, remarks_on, views
from tests.serving.conftest import BLUE, RED, Server, encode, files
from tests.serving.tiny import write, write_known

KNOWN = Known(sure_from=0.8, brightness=(20, 90), contrast=(50, 110))
NORMAL = "This picture is %s than those that the network has learned from."


def drawing(ground: int, line: int) -> np.ndarray:
    """A cross on a plain ground, (1, 8, 8, 1)."""
    pixels = np.full((1, 8, 8, 1), ground, np.uint8)
    pixels[:, 3, :] = pixels[:, :, 3] = line
    return pixels


@pytest.mark.parametrize(
    ("image", "best", "sure", "warning"),
    [
        (drawing(0, 255), 0.9, True, None),
        (drawing(0, 255), 0.8, True, None),
        (drawing(0, 255), 0.79, False, None),
        (
            drawing(255, 0),
            0.99,
            False,
            f"{NORMAL % 'brighter'} Its light and dark may be the wrong way round.",
        ),
        (drawing(255, 255), 0.99, False, NORMAL % "paler and brighter"),
        (drawing(0, 0), 0.99, False, NORMAL % "darker and paler"),
    ],
)
def test_an_answer_is_sure_if_it_is_probable_and_the_image_like_those_learned_from(
    image: np.ndarray, best: float, sure: bool, warning: str | None
) -> None:
    probabilities = np.array([[1 - best, best]], np.float32)
    exact = np.float32(best).item()  # the threshold as float32 holds it
    known = KNOWN if best != 0.8 else KNOWN.model_copy(update={"sure_from": exact})
    assert known.remarks(image, probabilities) == [{"sure": sure, "warning": warning}]


def test_a_network_that_is_never_sure_says_so_and_without_known_json_nothing_is_said() -> None:
    image, probabilities = drawing(0, 255), np.array([[0.0, 1.0]], np.float32)
    never = KNOWN.model_copy(update={"sure_from": None})
    assert never.remarks(image, probabilities) == [{"sure": False, "warning": None}]
    assert NOTHING.remarks(image, probabilities) == [{"sure": None, "warning": None}]


@pytest.mark.parametrize(("side", "here"), [(8, True), (640, False)])
def test_large_images_are_looked_at_beside_the_event_loop(side: int, here: bool) -> None:
    threads: list[int] = []

    class Watched(Known):
        def remarks(self, images: Any, probabilities: Any) -> list[dict[str, Any]]:
            threads.append(threading.get_ident())
            return super().remarks(images, probabilities)

    images, probabilities = np.zeros((1, side, side, 1), np.uint8), np.array([[0.0, 1.0]], np.float32)
    known = Watched(**dict(KNOWN))
    assert asyncio.run(remarks_on(known, images, probabilities)) == KNOWN.remarks(images, probabilities)
    assert (threads == [threading.get_ident()]) is here


@pytest.mark.parametrize("shape", [(1, 64), (3, 3072), (2, 150_528)])
def test_mean_and_spread_are_those_of_numpy(shape: tuple[int, int]) -> None:
    levels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    means, spreads = _mean_and_spread(levels)
    np.testing.assert_array_equal(means, levels.mean(axis=1))
    np.testing.assert_array_equal(spreads, levels.std(axis=1))


def test_answers_say_it_beside_what_they_said_before(server: Server) -> None:
    contents = (encode(BLUE), encode((100, 100, 100)), encode((225, 225, 220)))
    answer = httpx.post(f"{server.url}/v1/predict", files=files(*contents)).json()
    assert list(answer) == ["model_name", "model_version", "class_names", "predictions", "milliseconds"]
    assert [list(found) for found in answer["predictions"]] == [
        ["class_name", "probabilities", "sure", "warning"]
    ] * 3
    assert [found["sure"] for found in answer["predictions"]] == [True, False, False]
    warnings = [found["warning"] for found in answer["predictions"]]
    assert warnings[:2] == [None, None] and warnings[2].startswith(NORMAL % "brighter")


def test_the_view_is_what_the_network_computed_with(server: Server) -> None:
    def answer(**query: str) -> dict[str, Any]:
        picture = files(encode(RED, (80, 20)))
        return httpx.post(f"{server.url}/v1/predict", params=query, files=picture).json()["predictions"][0]

    assert "view" not in answer() and "view" not in answer(view="false")
    view = Image.open(BytesIO(base64.b64decode(answer(view="true")["view"])))
    np.testing.assert_array_equal(np.asarray(view), np.full((8, 8, 3), RED))
    (grey,) = views(drawing(3, 200))
    assert Image.open(BytesIO(base64.b64decode(grey))).mode == "L"


def test_pictures_to_try_are_answered_with_their_class(server: Server) -> None:
    known = httpx.get(f"{server.url}/v1/known").json()
    assert known["sure_from"] == 0.6 and known["brightness"] == [40, 200]
    assert [picture["class_name"] for picture in known["pictures"]] == ["red", "green", "blue"]


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda content: content[:-5], "known.json is not used: "),
        (lambda content: b"[]", "known.json is not used: "),
        (lambda content: content.replace(b"image/png", b"text/html"), "known.json is not used: "),
        (lambda content: content.replace(b'"content": "', b'"content": "*'), "known.json is not used: "),
        (lambda content: content + b" " * 1_000_000, "over 1,000,000 bytes"),
        (
            lambda content: json.dumps({**json.loads(content), "model_sha256": "0"}).encode(),
            "another network",
        ),
    ],
    ids=["truncated", "no object", "another type", "no base64", "huge", "of another file"],
)
def test_a_damaged_file_is_not_used_and_the_log_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[bytes], bytes], reason: str
) -> None:
    model = write(tmp_path / "tiny.onnx")
    path = write_known(model, {"red": encode(RED)}, sure_from=0.5, brightness=(0, 255), contrast=(0, 100))
    assert read_known(path, model.read_bytes()).sure_from == 0.5
    path.write_bytes(damage(path.read_bytes()))
    with caplog.at_level(logging.WARNING):
        assert read_known(path, model.read_bytes()) == NOTHING
    assert reason in caplog.text and "\n" not in caplog.records[-1].getMessage()
    caplog.clear()
    path.unlink()
    assert read_known(path) == NOTHING and not caplog.records
