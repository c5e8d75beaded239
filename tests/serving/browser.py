"""Drives a real Chromium over its DevTools protocol, as far as the tests need it."""

from __future__ import annotations

import base64
import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from websockets.sync.client import connect
from websockets.sync.connection import Connection

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)

# Contrast as WCAG 2.2 defines it. Behind a text are the backgrounds of the elements around it, and bars beside it.
FAINT = """(() => {
  const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
  const parsed = (colour) => {  // any CSS colour -> red, green, blue, opacity
    canvas.clearRect(0, 0, 1, 1);
    canvas.fillStyle = colour;
    canvas.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = canvas.getImageData(0, 0, 1, 1).data;
    return [r, g, b, a / 255];
  };
  const over = (top, below) => [0, 1, 2].map((n) => top[n] * top[3] + below[n] * (1 - top[3]));
  const luminance = (colour) => {
    const [r, g, b] = colour.map((level) => level / 255)
      .map((level) => (level <= 0.04045 ? level / 12.92 : ((level + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (element) => {
    if (!element) return parsed(getComputedStyle(document.body).backgroundColor).slice(0, 3);
    const colour = parsed(getComputedStyle(element).backgroundColor);
    return colour[3] === 1 ? colour.slice(0, 3) : over(colour, behind(element.parentElement));
  };
  const filling = (shape) => {  // of a shape in a drawing
    const style = getComputedStyle(shape);
    const [r, g, b, a] = style.fill === "none" ? [0, 0, 0, 0] : parsed(style.fill);
    return [r, g, b, a * style.fillOpacity * style.opacity];
  };
  const holds = (shape, text) => {  // drawn before the text, and around its middle
    if (!(shape.compareDocumentPosition(text) & Node.DOCUMENT_POSITION_FOLLOWING)) return false;
    const [outer, inner] = [shape, text].map((element) => element.getBoundingClientRect());
    const [x, y] = [inner.x + inner.width / 2, inner.y + inner.height / 2];
    return outer.left < x && x < outer.right && outer.top < y && y < outer.bottom && outer.height > inner.height / 2;
  };
  const found = [];
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const text = texts.currentNode, element = text.parentElement;
    if (!text.data.trim() || element.closest("title, script, style") || !element.checkVisibility({ opacityProperty: true })) continue;
    const svg = element.closest("svg"), style = getComputedStyle(element);
    const grounds = [behind(svg ? svg.parentElement : element)];
    if (svg) grounds[0] = [...svg.querySelectorAll("rect, path")].filter((shape) => holds(shape, element))
      .reduce((below, shape) => over(filling(shape), below), grounds[0]);
    const bar = element.parentElement.querySelector(":scope > .bar");
    if (bar) grounds.push(parsed(getComputedStyle(bar).backgroundColor).slice(0, 3));
    for (const ground of grounds) {
      const colour = over(parsed(svg ? style.fill : style.color), ground);
      const [high, low] = [luminance(colour), luminance(ground)].sort((a, b) => b - a);
      const contrast = (high + 0.05) / (low + 0.05);
      if (contrast < 4.5) found.push(`${text.data.trim().slice(0, 30)}: ${contrast.toFixed(2)}`);
    }
  }
  return found;
})()"""


class Page:
    """One tab. ``requested`` lists the addresses it requested, ``errors`` what its scripts complained about."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._ids = itertools.count(1)
        self.requested: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """Runs a DevTools command and returns its result."""
        number = next(self._ids)
        self._connection.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._connection.recv(timeout=30))
            if message.get("id") == number:
                assert "error" not in message, (method, message)
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        params = message["params"]
        match message["method"]:
            case "Network.requestWillBeSent":
                self.requested.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                self.errors.append(str(params["exceptionDetails"]))
            case "Log.entryAdded" if params["entry"]["level"] == "error":
                self.errors.append(params["entry"]["text"])

    def resize(
        self, width: int, height: int, *, phone: bool = False, dark: bool = False, scale: int | None = None
    ) -> None:
        """Sets the size of the window in CSS pixels. A phone also has touch, and a scale of 2 unless another is given."""
        scale = scale or (2 if phone else 1)
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=phone,
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        theme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[theme])

    def open(self, url: str) -> None:
        """Loads an address."""
        self.call("Page.navigate", url=url)
        self.wait("document.readyState === 'complete'")

    def value(self, script: str) -> Any:
        """Evaluates a JavaScript expression on the page."""
        result = self.call("Runtime.evaluate", expression=script, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def wait(self, script: str, seconds: float = 20) -> Any:
        """Waits until an expression is true and returns its value."""
        end = time.monotonic() + seconds
        while not (value := self.value(f"(() => {{ try {{ return {script} }} catch {{ return null }} }})()")):
            assert time.monotonic() < end, f"never true on the page: {script}; errors: {self.errors}"
            time.sleep(0.02)
        return value

    def choose(self, selector: str, file: Path) -> None:
        """Chooses a file in a file input, as the file dialog would."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(file)])

    def drop(self, selector: str, file: Path) -> None:
        """Drags a file from outside the browser onto an element."""
        x, y = self.value(
            f"(() => {{ const box = document.querySelector({selector!r}).getBoundingClientRect();"
            " return [box.x + box.width / 2, box.y + box.height / 2] })()"
        )
        data = {"items": [], "files": [str(file)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.call("Input.dispatchDragEvent", type=kind, x=x, y=y, data=data)

    def press(self, key: str, code: int) -> None:
        """Presses and releases a key."""
        for kind in ("keyDown", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "keyDown" else {}
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **text
            )

    def type(self, text: str) -> None:
        """Types text into the focused element."""
        self.call("Input.insertText", text=text)

    def faint(self) -> list[str]:
        """The texts whose contrast with what is behind them is below 4.5, which WCAG 2 asks for (level AA)."""
        return self.value(FAINT)

    def shot(self) -> bytes:
        """A PNG picture of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        shot = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return base64.b64decode(shot["data"])


@contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """Starts Chromium with one empty tab. ``folder`` holds its profile."""
    assert CHROMIUM, "no Chromium"
    with (folder / "chromium.log").open("w+") as output:
        process = subprocess.Popen(
            [
                CHROMIUM,
                "--headless=new",
                "--no-sandbox",  # containers and CI run as root
                "--disable-gpu",
                "--hide-scrollbars",
                "--disable-dev-shm-usage",
                "--disable-background-networking",
                "--disable-component-update",
                "--no-first-run",
                "--remote-debugging-port=0",
                f"--user-data-dir={folder / 'profile'}",
                "about:blank",
            ],
            stdout=output,
            stderr=output,
        )
        try:
            port_file = folder / "profile" / "DevToolsActivePort"
            end = time.monotonic() + 40
            while not (port_file.exists() and re.match(r"\d+\n/", port_file.read_text())):
                assert process.poll() is None, "Chromium ended while it started"
                assert time.monotonic() < end, "Chromium did not start"
                time.sleep(0.05)
            port, address = port_file.read_text().split()
            with connect(f"ws://127.0.0.1:{port}{address}", max_size=2**26) as control:
                yield Page(_tab(control, port))
        finally:
            process.terminate()
            process.wait(20)


def _tab(control: Connection, port: str) -> Connection:
    control.send(json.dumps({"id": 1, "method": "Target.createTarget", "params": {"url": "about:blank"}}))
    while "id" not in (message := json.loads(control.recv(timeout=30))):
        pass
    return connect(f"ws://127.0.0.1:{port}/devtools/page/{message['result']['targetId']}", max_size=2**26)
