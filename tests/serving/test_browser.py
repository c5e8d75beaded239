"""The page in a real browser: a picture is dropped or chosen, and the page shows its answer."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.serving.browser import CHROMIUM, Page, browser
from tests.serving.conftest import Server, running

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)

# If this names a folder, the tests write pictures of the page to it (docs/pictures/).
PICTURES = os.environ.get("MSDARTS_PICTURES")
SIZES = {"desktop": (1100, 800, False), "phone": (375, 740, True)}


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


def picture(tab: Page, name: str) -> None:
    if PICTURES:
        time.sleep(0.3)  # until fonts and the picture are drawn
        tab.picture(Path(PICTURES) / f"{name}.png")


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
    tab.requested.clear()
    tab.drop("#drop", sky) if way == "drop" else tab.choose("#file", sky)
    rows = bars(tab)
    assert next(row.split()[0] for row in rows) == "blue"
    assert len(rows) == 3
    assert tab.value("document.querySelector('#message').innerText") == "It looks like: blue"
    assert tab.wait("document.querySelector('#picture').naturalWidth") == 300
    facts = tab.value("document.querySelector('#facts').innerText")
    assert "ms in the server" in facts
    assert "tiny, version" in facts
    assert [url for url in tab.requested if "/v1/" in url] == [f"{server.url}/v1/predict"]
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
    if way == "drop":
        picture(tab, f"page-{size}")


def test_a_file_that_is_no_image_shows_the_servers_sentence(
    server: Server, tab: Page, tmp_path: Path, sky: Path
) -> None:
    text = tmp_path / "letter.png"
    text.write_text("hello")
    tab.resize(1100, 800)
    tab.open(f"{server.url}/")
    tab.choose("#file", text)
    tab.wait("document.querySelector('#message').innerText === 'Image 1 is not a PNG, JPEG or WebP image.'")
    assert tab.value("document.querySelector('#picture').hidden")
    tab.choose("#file", sky)  # the next picture is answered
    assert bars(tab)[0].startswith("blue")


def test_the_page_can_be_used_with_the_keyboard(server: Server, tab: Page) -> None:
    tab.resize(1100, 800)
    tab.open(f"{server.url}/")
    reached = []
    for _ in range(3):
        tab.press("Tab", 9)
        reached.append(tab.value("document.activeElement.id || document.activeElement.innerText"))
    assert reached == ["file", "API", "Metrics"]
    tab.value("document.querySelector('#file').focus()")
    outline = tab.value("getComputedStyle(document.querySelector('#drop')).outlineStyle")
    assert outline == "solid"  # the focus is visible


def test_the_page_asks_for_the_key_of_a_server_that_has_one(
    tab: Page, tmp_path: Path, model_file: Path, sky: Path
) -> None:
    with running(tmp_path, "--model", str(model_file), MSDARTS_API_KEY="sesame") as server:
        tab.resize(375, 740, phone=True)
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
    tab.resize(375, 740, phone=True)
    tab.open(f"{server.url}/docs")
    assert tab.value("document.documentElement.scrollWidth") == 375
    assert "POST /v1/predict" in tab.value("document.body.innerText")
    assert all(url.startswith(server.url) for url in tab.requested)
    assert tab.errors == []
    tab.resize(1100, 800)
    picture(tab, "api")


def test_the_page_has_a_dark_mode(server: Server, tab: Page, sky: Path) -> None:
    tab.resize(1100, 800, dark=True)
    tab.open(f"{server.url}/")
    tab.choose("#file", sky)
    bars(tab)
    text, ground = (
        tab.value(f"getComputedStyle(document.body).{name}") for name in ("color", "backgroundColor")
    )
    assert text == "rgb(232, 234, 237)"
    assert ground == "rgb(21, 24, 28)"
    picture(tab, "page-dark")
