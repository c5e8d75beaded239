"""The page of a network that forecasts, in a real browser: history and forecast are drawn, and read by mouse and keyboard."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving import drift
from tests.serving.browser import CHROMIUM, Page, browser
from tests.serving.conftest import Server, running
from tests.serving.test_browser import JARGON, SIZES

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium on this machine (Debian: apt install chromium)"
)
EXAMPLE = {name: [row[number] for row in drift.VALUES] for number, name in enumerate(drift.NAMES)}
TRUTH = {"load": [3.25, 3.5, 3.75], "price": [6, 6, 6]}
# No text of the chart leaves it.
INSIDE = """(() => {
  const chart = document.querySelector("#chart").getBoundingClientRect();
  return [...document.querySelectorAll("#chart text")].every((text) => {
    const box = text.getBoundingClientRect();
    return box.left >= chart.left - 1 && box.right <= chart.right + 1;
  });
})()"""
GOES = "load goes from 3 to 4.5 in 3 hours; its lowest is 3.5, its highest 4.5."


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with browser(tmp_path_factory.mktemp("browser")) as page:
        yield page


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("drift")
    model = drift.write(folder / "drift.onnx")
    drift.write_known(model, example={"time": drift.TIMES, "columns": EXAMPLE}, truth=TRUTH)
    with running(folder, "--model", str(model)) as started:
        yield started


def opened(
    tab: Page, server: Server, width: int, height: int = 800, *, phone: bool = False, dark: bool = False
) -> None:
    tab.requested.clear()
    tab.errors.clear()
    tab.resize(width, height, phone=phone, dark=dark)
    tab.open(f"{server.url}/")
    said(tab, GOES)


def said(tab: Page, words: str) -> None:
    """Waits for what the page says about the forecast."""
    tab.wait(f"document.querySelector('#forecast-message').innerText === {words!r}")
    tab.wait("document.querySelector('#forecast').getAttribute('aria-busy') === 'false'")


def numbers(tab: Page) -> list[list[str]]:
    tab.value("document.querySelector('#numbers').open = true")
    return tab.value(
        "[...document.querySelectorAll('#numbers tr')].map(row => [...row.children].map(cell => cell.innerText))"
    )


@pytest.mark.parametrize("size", SIZES)
def test_the_example_is_forecast_drawn_and_compared_with_what_came(
    tab: Page, server: Server, size: str
) -> None:
    width, height, phone = SIZES[size]
    opened(tab, server, width, height, phone=phone)
    assert tab.value("document.title + document.querySelector('h1').innerText").endswith("What comes next?")
    assert (
        tab.value("document.querySelector('#model').innerText")
        == "This network forecasts load and price from their past and that of wind"
    )
    assert tab.value("document.querySelector('#go').innerText") == "Forecast the next 3 hours"
    assert numbers(tab) == [
        ["Time", "Forecast", "What came"],
        ["2026-03-02 02:00", "3.5", "3.25"],
        ["2026-03-02 03:00", "4", "3.5"],
        ["2026-03-02 04:00", "4.5", "3.75"],
    ]
    # Four points of the past, three ahead that begin at the last of them, and as many that really came.
    lines = tab.value(
        "[...document.querySelectorAll('#chart .line')].map(line => line.getAttribute('d').split(/[ML]/).length - 1)"
    )
    assert lines == [4, 1, 4, 1, 4, 1]  # each with its sample in the legend
    assert tab.value("document.querySelector('#which').hidden") is False
    tab.value(
        "document.querySelector('#target').value = 'price'; document.querySelector('#target').dispatchEvent(new Event('change'))"
    )
    said(tab, "price goes from 7 to 4 in 3 hours; its lowest is 4, its highest 6.")
    assert tab.value("document.documentElement.scrollWidth") <= width
    assert tab.value(INSIDE)
    assert [url for url in tab.requested if "predict" in url] == [f"{server.url}/v1/predict?view=true"]
    assert all(url.startswith(f"{server.url}/") for url in tab.requested) and tab.errors == []


def test_the_chart_is_read_with_the_arrow_keys_and_the_page_with_tab(tab: Page, server: Server) -> None:
    opened(tab, server, 1280)
    reached = []
    for _ in range(8):
        tab.press("Tab", 9)
        reached.append(tab.value("document.activeElement.id || document.activeElement.innerText"))
    assert reached == [
        "target",
        "cursor",
        "The forecast in numbers",
        "save",
        "rows",
        "go",
        "csv",
        "For programmers",
    ]
    tab.value("document.querySelector('#cursor').focus()")
    heard = []
    for key, code in (("ArrowRight", 39), ("End", 35), ("Home", 36)):
        tab.press(key, code)
        heard.append(tab.value("document.querySelector('#cursor').getAttribute('aria-valuetext')"))
    assert heard == [
        "2026-03-02 03:00: load 4 forecast, 3.5 came",
        "2026-03-02 04:00: load 4.5 forecast, 3.75 came",
        "2026-03-01 22:00: load 1.5",
    ]
    assert tab.value("document.querySelector('#reading').innerText") == heard[-1]
    tab.value("document.querySelector('#csv').focus()")
    assert tab.value("getComputedStyle(document.querySelector('.choose')).outlineStyle") == "solid"


def test_a_table_is_typed_chosen_or_dropped_and_its_mistakes_are_told(
    tab: Page, server: Server, tmp_path: Path
) -> None:
    opened(tab, server, 390, phone=True)
    assert tab.value("document.querySelector('#example').hidden")
    tab.value("document.querySelector('#rows').value = ''; document.querySelector('#rows').focus()")
    tab.type("load,price,wind\n1,2,3\n1,2,3\n1,2,3\n2,2,x")
    tab.value("document.querySelector('#go').focus()")
    tab.press("Enter", 13)
    said(tab, "Line 5, column wind must be a number, got 'x'.")
    assert tab.value("document.querySelector('#outcome').hidden")
    tab.value(
        "document.querySelector('#rows').value = document.querySelector('#rows').value.replace('x', '4')"
    )
    tab.value("document.querySelector('#go').click()")
    said(tab, "load goes from 2 to 3 in 3 hours; its lowest is 2.3333, its highest 3.")
    assert numbers(tab)[:2] == [["Step", "Forecast"], ["step 1", "2.3333"]]
    file = tmp_path / "long.csv"
    file.write_bytes(drift.table([{"time": "?", "load": 0, "price": 0, "wind": 0}] * 3000 + drift.rows()))
    tab.choose("#csv", file)
    said(tab, GOES)
    assert (
        tab.value("document.querySelector('#rows').value").count("\n") == 4
    )  # what the network does not read is left out
    assert [len(line) for line in numbers(tab)] == [3] * 4  # it is the example
    file.write_bytes(drift.table(drift.rows()).replace(b",3,7,", b",2,7,"))
    tab.value("scrollTo(0, 0)")
    tab.drop("h1", file)  # anywhere
    said(tab, "load goes from 2 to 2.5 in 3 hours; its lowest is 2.1667, its highest 2.5.")
    assert [len(line) for line in numbers(tab)] == [2] * 4  # nobody knows what came
    tab.value("document.querySelector('#example').click()")
    said(tab, GOES)
    assert [entry for entry in tab.errors if "422" not in entry] == []


def test_numbers_are_told_in_full_or_in_powers_of_ten(tab: Page, server: Server) -> None:
    opened(tab, server, 1280)
    told = tab.value("[1234567.8, 99999.6, 0.000123456, -0.00001, 3.4e38, 0].map(number)")
    assert told == ["1,234,568", "100,000", "0.00012346", "-1E-5", "3.4E38", "0"]
    # Such numbers have an axis, too.
    for values in ("1e37 1e37 1e37 3e37", "7 7 7 7", "-1e-9 0 0 1e-9", "1e6 2e6 3e6 4e6"):
        lines = ["load,price,wind", *(f"{value},0,0" for value in values.split())]
        tab.value(f"document.querySelector('#rows').value = {chr(10).join(lines)!r}; forecast()")
        tab.wait("document.querySelector('#forecast').getAttribute('aria-busy') === 'false'")
        assert tab.value("document.querySelector('#reading').innerText").startswith("step 1: load ")
        assert "NaN" not in tab.value("document.querySelector('#chart').innerHTML")
        assert tab.value(INSIDE)
    assert tab.errors == []


def test_the_forecast_is_saved_as_a_table(tab: Page, server: Server, tmp_path: Path) -> None:
    opened(tab, server, 1280)
    tab.call("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(tmp_path))
    tab.value("document.querySelector('#save').click()")
    saved, end = tmp_path / "forecast.csv", time.monotonic() + 20
    while not saved.exists() or not saved.read_text():
        assert time.monotonic() < end, tab.errors
        time.sleep(0.05)
    assert saved.read_text().splitlines()[:2] == ["time,load,price", "2026-03-02T02:00,3.5,6"]


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_everything_can_be_read(tab: Page, server: Server, width: int, dark: bool) -> None:
    opened(tab, server, width, phone=width < 500, dark=dark)
    numbers(tab)
    for words in (GOES, "The table lacks the column 'load'."):
        said(tab, words)
        assert tab.faint() == []
        assert re.findall(JARGON, tab.value("document.body.innerText"), re.I) == []
        tab.value("document.querySelector('#rows').value = 'x'; document.querySelector('#go').click()")


def test_a_network_without_example_explains_its_table(tab: Page, tmp_path: Path) -> None:
    quarters = {"unit": "months", "count": 3}
    model = drift.write(tmp_path / "one.onnx", targets=["sales"], covariates=[], step=quarters)
    with running(tmp_path, "--model", str(model)) as other:
        tab.open(f"{other.url}/")
        tab.wait("document.querySelector('#go').innerText === 'Forecast the next 9 months'")
        assert tab.value("document.querySelector('#rows-words').innerText") == (
            "A table with commas between its columns: a line of names (time and sales), then a line for every 3 months, the"
            " oldest first. The last 4 lines count. The column time may be missing."
        )
        assert tab.value(
            "document.querySelector('#example').hidden && document.querySelector('#outcome').hidden"
        )
        lines = ["sales,time", "1,2025-03-31", "2,2025-06-30", "1,2025-09-30", "4,2025-12-31"]
        tab.value(
            f"document.querySelector('#rows').value = {chr(10).join(lines)!r}; document.querySelector('#go').click()"
        )
        said(tab, "sales goes from 4 to 7 in 9 months; its lowest is 5, its highest 7.")
        assert tab.value("document.querySelector('#which').hidden")
        assert [line[0] for line in numbers(tab)] == ["Time", "2026-03-31", "2026-06-30", "2026-09-30"]
