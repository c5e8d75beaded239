"""The page in a real browser: a picture is dropped or chosen, and the page shows its answer."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serving.browser import CHROMIUM, Page, browser
from tests.serving.conftest import Server, running
from tests.serving.tiny import write

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)

SIZES = {"desktop": (1280, 800, False), "phone": (390, 740, True)}


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(autouse=True)
def fresh(tab: Page) -> None:
    tab.requested.clear()
    tab.errors.clear()


@pytest.fixture(scope="module")
def sky(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A picture that is mostly blue, 300 x 200."""
    y, x = np.mgrid[0:200, 0:300]
    pixels = np.stack([60 + y / 3, 120 + y / 4, 255 - 0 * y], axis=-1)
    pixels[(x - 220) ** 2 + (y - 60) ** 2 < 900] = (250, 210, 70)
    pixels[y > 170 + 8 * np.sin(x / 25)] = (40, 120, 50)
    path = tmp_path_factory.mktemp("picture") / "sky.png"
    Image.fromarray(pixels.astype(np.uint8)).save(path)
    return path


def said(tab: Page) -> tuple[str, str, str]:
    """What is above the headline, the headline, and what is below it."""
    lead, message, note = tab.value(
        "['lead', 'message', 'note'].map(id => document.getElementById(id).innerText)"
    )
    return lead, message, note.strip()


def bars(tab: Page) -> list[str]:
    tab.wait("document.querySelector('#answer').getAttribute('aria-busy') === 'false'")
    tab.wait("document.querySelectorAll('#bars li').length > 0")
    return tab.value("[...document.querySelectorAll('#bars li')].map(item => item.innerText)")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("way", ["drop", "choose"])
def test_a_picture_is_answered_on_the_page(server: Server, tab: Page, sky: Path, size: str, way: str) -> None:
    width, height, phone = SIZES[size]
    tab.resize(width, height, phone=phone)
    tab.open(f"{server.url}/")
    tab.wait("document.querySelectorAll('.cell').length === 2")
    tab.wait("document.querySelectorAll('#pictures button').length === 3")
    tab.requested.clear()
    tab.drop("#drop", sky) if way == "drop" else tab.choose("#file", sky)
    rows = bars(tab)
    assert next(row.split()[0] for row in rows) == "blue"
    assert len(rows) == 3
    assert said(tab) == ("It looks like", "blue", "")
    assert tab.wait("document.querySelector('#picture').naturalWidth") == 300
    assert tab.wait("document.querySelector('#view').naturalWidth") == 8
    assert tab.value("document.querySelector('#view-words').innerText").endswith(
        "8\u00a0×\u00a08 pixels in colour"
    )
    assert " ms by tiny, version" in tab.value("document.querySelector('#facts').innerText")
    assert [url for url in tab.requested if "/v1/" in url] == [f"{server.url}/v1/predict?view=true"]
    # Nothing is wider than the window, and text and the drop area are large enough to read and touch.
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert (
        tab.value(
            "Math.min(...[...document.querySelectorAll('.cell text')]"
            ".map(text => text.getBoundingClientRect().height))"
        )
        > 11
    )
    assert tab.value("document.querySelector('#drop').getBoundingClientRect().height") > 100
    assert all(url.startswith((f"{server.url}/", f"blob:{server.url}/")) for url in tab.requested), (
        tab.requested
    )
    assert tab.errors == []
    assert phone == tab.value("getComputedStyle(document.querySelector('#take')).display !== 'none'")
    assert tab.value("document.querySelector('#camera').getAttribute('capture')") == "environment"


def test_a_picture_to_try_is_answered_and_its_right_answer_told(server: Server, tab: Page) -> None:
    tab.resize(1280, 800)
    tab.open(f"{server.url}/")
    tab.wait("document.querySelectorAll('#pictures button').length === 3")
    tab.value("document.querySelectorAll('#pictures button')[1].click()")
    assert bars(tab)[0].startswith("green")
    assert said(tab) == ("It looks like", "green", "The right answer is green.")
    assert tab.errors == []


def test_the_page_is_not_sure_of_close_answers_and_warns_of_unusual_pictures(
    server: Server, tab: Page, tmp_path: Path
) -> None:
    grey, pale = tmp_path / "grey.png", tmp_path / "pale.png"
    Image.new("RGB", (9, 9), (100, 100, 101)).save(grey)
    Image.new("RGB", (9, 9), (205, 205, 220)).save(pale)
    tab.resize(390, 740, phone=True)
    tab.open(f"{server.url}/")
    tab.choose("#file", grey)
    bars(tab)
    assert said(tab)[:2] == ("", "Not sure") and said(tab)[2].startswith("It may be blue or ")
    assert tab.value("document.querySelector('#swap').hidden")
    tab.choose("#file", pale)
    tab.wait("document.querySelector('#note').innerText.includes('wrong way round')")
    assert said(tab)[:2] == ("", "Not sure") and said(tab)[2].endswith("The best guess is blue.")
    tab.value("document.querySelector('#swap').click()")  # 205, 205, 220 -> 50, 50, 35
    tab.wait("document.querySelector('#note').innerText.startsWith('It may be red or green')")
    assert tab.errors == []


def test_show_all_keeps_the_focus(tab: Page, tmp_path: Path, sky: Path) -> None:
    model = write(tmp_path / "many.onnx", class_names=[f"kind {number}" for number in range(9)])
    with running(tmp_path, "--model", str(model)) as other:
        tab.resize(1280, 800)
        tab.open(f"{other.url}/")
        tab.choose("#file", sky)
        assert len(bars(tab)) == 5
        assert tab.value("document.querySelector('#pictures').hidden")  # a file without known.json
        tab.value("document.querySelector('#more').focus()")
        for shown, name in ((9, "Show the best 5"), (5, "Show all 9")):
            tab.press("Enter", 13)
            tab.wait(f"document.querySelectorAll('#bars li').length === {shown}")
            assert tab.value("document.activeElement.id + document.activeElement.innerText") == f"more{name}"


# Words of the interface for programs, which say nothing to a visitor.
JARGON = r"\b(API|JSON|HTTP|request|endpoint|client|multipart|probabilit\w+|float32|uint8|metrics|tensor)\b"


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everything_can_be_read(
    server: Server, tab: Page, tmp_path: Path, sky: Path, width: int, dark: bool
) -> None:
    tab.resize(width, 800, phone=width < 500, dark=dark)
    tab.open(f"{server.url}/")
    tab.wait("document.querySelectorAll('.cell').length === 2")
    pale, text = tmp_path / "pale.png", tmp_path / "letter.png"
    Image.new("RGB", (9, 9), (205, 205, 220)).save(pale)
    text.write_text("hello")
    for file, message in (
        (sky, "blue"),
        (pale, "Not sure"),
        (text, "The picture is not a PNG, JPEG, WebP, GIF, TIFF, BMP or PPM image."),
    ):
        tab.choose("#file", file)
        tab.wait(f"document.querySelector('#message').innerText === {message!r}")
        assert tab.faint() == []
        words = tab.value("document.body.innerText")
        assert re.findall(JARGON, words, re.I) == []
    tab.open(f"{server.url}/docs")
    assert tab.faint() == []


def test_a_file_that_is_no_image_shows_the_servers_sentence(
    server: Server, tab: Page, tmp_path: Path, sky: Path
) -> None:
    text = tmp_path / "letter.png"
    text.write_text("hello")
    tab.resize(1280, 800)
    tab.open(f"{server.url}/")
    tab.choose("#file", text)
    tab.wait(
        "document.querySelector('#message').innerText === 'The picture is not a PNG, JPEG, WebP, GIF, TIFF, BMP or PPM image.'"
    )
    assert tab.value("document.querySelector('#shown').hidden")
    tab.choose("#file", sky)  # the next picture is answered
    assert bars(tab)[0].startswith("blue")


def test_the_page_can_be_used_with_the_keyboard(server: Server, tab: Page) -> None:
    tab.resize(1280, 800)
    tab.open(f"{server.url}/")
    tab.wait("document.querySelectorAll('#pictures button').length === 3")
    reached = []
    for _ in range(5):
        tab.press("Tab", 9)
        reached.append(
            tab.value(
                "document.activeElement.id || document.activeElement.innerText"
                " || document.activeElement.firstChild.alt"
            )
        )
    assert reached == ["file", *(f"Picture {n} to try" for n in (1, 2, 3)), "For programmers"]
    tab.value("document.querySelector('#file').focus()")
    outline = tab.value("getComputedStyle(document.querySelector('#drop')).outlineStyle")
    assert outline == "solid"  # the focus is visible


def test_the_page_asks_for_the_key_of_a_server_that_has_one(
    tab: Page, tmp_path: Path, model_file: Path, sky: Path
) -> None:
    with running(tmp_path, "--model", str(model_file), MSDARTS_API_KEY="sesame") as server:
        tab.resize(390, 740, phone=True)
        tab.open(f"{server.url}/")
        tab.wait("!document.querySelector('#key-form').hidden && document.activeElement.id === 'key'")
        tab.type("sesame")
        tab.press("Enter", 13)
        tab.wait(
            "document.querySelectorAll('.cell').length === 2 && document.querySelector('#key-form').hidden"
        )
        tab.choose("#file", sky)
        assert bars(tab)[0].startswith("blue")


def test_the_reference_fits_a_phone(server: Server, tab: Page) -> None:
    tab.resize(390, 740, phone=True)
    tab.open(f"{server.url}/docs")
    assert tab.value("document.documentElement.scrollWidth") == 390
    assert "POST /v1/predict" in tab.value("document.body.innerText")
    assert all(url.startswith(server.url) for url in tab.requested)
    assert tab.errors == []


def test_the_page_has_a_dark_mode(server: Server, tab: Page, sky: Path) -> None:
    tab.resize(1280, 800, dark=True)
    tab.open(f"{server.url}/")
    tab.choose("#file", sky)
    bars(tab)
    text, ground = (
        tab.value(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
    )
    assert text == "rgb(232, 234, 237)"
    assert ground == "rgb(21, 24, 28)"
