"""Takes the pictures of the server's page and of the report in docs/pictures/: two widths, light and dark.

    python -m tests.serving.pictures docs/pictures

The server is one of the registry at MLFLOW_TRACKING_URI, or of mlflow.db here; the report is artifacts/report.html. For a
network that forecasts (``--name sequences``), the pictures are those of its page alone, series-*.png.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from io import BytesIO
from pathlib import Path

import httpx
from PIL import Image

from tests.serving.browser import Page, browser
from tests.serving.conftest import Server, running

_THEMES = {"light": False, "dark": True}
_COLOURS = 128  # of a picture; text and lines need no more
_TALL = {1280: 2600, 390: 1500}  # most pixels of a picture; a taller page continues in a column beside
_COLUMNS = {1280: 1, 390: 4}  # what does not fit into these is left out


def main() -> None:
    """Reads the command line, and takes all pictures."""
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--name", default="msdarts", help="registered model (msdarts)")
    parser.add_argument("--report", type=Path, default=Path("artifacts/report.html"))
    options = parser.parse_args()
    with (
        tempfile.TemporaryDirectory() as work,
        running(Path(work), "--watch-seconds", "1", "--name", options.name) as server,
        browser(Path(work)) as tab,
    ):
        if httpx.get(f"{server.url}/v1/model").json()["kind"] == "series":
            _keep_series(tab, server, options.folder)
            return
        for theme, dark in _THEMES.items():
            for width in _TALL:
                _resize(tab, width, dark)
                tab.open(f"{server.url}/")
                _ask(tab)
                _keep(tab, options.folder / f"page-{width}-{theme}.png", width)
                tab.open(options.report.resolve().as_uri())
                _keep(tab, options.folder / f"report-{width}-{theme}.png", width)
        _resize(tab, 390, dark=False)
        tab.open(options.report.resolve().as_uri())
        top = tab.value("document.querySelector('#test').offsetTop") - 24
        _keep(tab, options.folder / "report-results.png", 390, top=top)
        _resize(tab, 1280, dark=False)
        tab.open(f"{server.url}/")
        _ask(tab, swapped=True)
        _keep(tab, options.folder / "page-unsure.png", 1280, tall=560)
        tab.open(f"{server.url}/docs")
        _keep(tab, options.folder / "api.png", 1280, tall=900)


def _keep_series(tab: Page, server: Server, folder: Path) -> None:
    """The page with the forecast of its example."""
    for theme, dark in _THEMES.items():
        for width in _TALL:
            _resize(tab, width, dark)
            tab.open(f"{server.url}/")
            tab.wait("document.querySelectorAll('#chart svg').length")
            _keep(tab, folder / f"series-{width}-{theme}.png", width)


def _resize(tab: Page, width: int, dark: bool) -> None:
    tab.resize(width, 800, phone=width < 500, dark=dark, scale=1)


def _ask(tab: Page, *, swapped: bool = False) -> None:
    """Clicks on the last picture to try; with ``swapped``, asks for it with light and dark swapped."""
    tab.wait(
        "document.querySelectorAll('#pictures button img').length && !document.querySelector('#report').hidden"
    )
    tab.value("[...document.querySelectorAll('#pictures button')].at(8).click()")
    tab.wait("document.querySelectorAll('#bars li').length")
    if swapped:
        tab.wait("document.querySelector('#picture').naturalWidth")
        tab.value("swapped(document.querySelector('#picture')).then(file => classify(file))")
        tab.wait("document.querySelector('#message').className === 'unsure'")


def _keep(tab: Page, path: Path, width: int, *, tall: int | None = None, top: int = 0) -> None:
    """Writes the page from the pixel ``top`` on as columns, as far as they reach."""
    time.sleep(0.5)  # until fonts and pictures are drawn
    whole = Image.open(BytesIO(tab.shot())).convert("RGB")
    whole = whole.crop((0, top, whole.width, whole.height))
    tall = min(whole.height, tall or _TALL[width])
    columns = min(_COLUMNS[width], -(-whole.height // tall))
    gap = 24 if columns > 1 else 0
    shown = Image.new("RGB", (columns * (whole.width + gap) - gap, tall), whole.getpixel((0, 0)))
    for column in range(columns):
        part = whole.crop((0, column * tall, whole.width, min(whole.height, (column + 1) * tall)))
        shown.paste(part, (column * (whole.width + gap), 0))
    shown.quantize(_COLOURS).save(path, optimize=True)
    print(f"{path}: {shown.width} x {shown.height}, {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
