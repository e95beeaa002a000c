"""Pages in headless Chromium, driven over its DevTools protocol; skips where no Chromium is installed."""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-dev-shm-usage",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--hide-scrollbars", "--remote-debugging-port=0", "--remote-allow-origins=*",
    "--autoplay-policy=no-user-gesture-required",
)  # fmt: skip
PATIENCE = 60.0
"""Timeout in seconds for any request to the browser; machines that run tests may be busy."""

ELEMENTS = """
(async () => {
  const broken = [], told = (e) => (e.currentSrc || e.src || e.outerHTML).slice(0, 90);
  for (const image of document.images) {
    image.loading = "eager";
    try { await image.decode(); } catch (error) { broken.push("image " + told(image)); continue; }
    if (!image.naturalWidth) broken.push("image " + told(image));
  }
  for (const drawn of document.querySelectorAll("svg")) {
    const box = drawn.getBoundingClientRect();
    if (!box.width || !box.height) broken.push("svg without size");
  }
  const sounds = [...document.querySelectorAll("audio")];
  await Promise.all(sounds.map((audio) => new Promise((done) => {
    const check = () => {
      if (!(audio.readyState >= 1 && isFinite(audio.duration) && audio.duration > 0)) {
        broken.push("audio " + told(audio));
      }
      done();
    };
    audio.addEventListener("loadedmetadata", check, { once: true });
    audio.addEventListener("error", check, { once: true });
    audio.preload = "metadata";
    audio.load();
  })));
  return { broken, images: document.images.length, audio: sounds.length };
})()
"""

OVERFLOW = """
(() => {
  const width = document.documentElement.clientWidth, wide = [];
  const scrolls = (e) => { for (; e; e = e.parentElement) {
    if (["auto", "scroll", "hidden"].includes(getComputedStyle(e).overflowX)) return true; } return false; };
  for (const element of document.body.querySelectorAll("*")) {
    const box = element.getBoundingClientRect();
    if (box.width && (box.right > width + 1 || box.left < -1) && !scrolls(element.parentElement)) {
      wide.push(element.tagName + "." + element.className + " to " + Math.round(box.right));
    }
  }
  if (document.documentElement.scrollWidth > width) wide.push("page " + document.documentElement.scrollWidth);
  return wide;
})()
"""


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page.

    errors: of the console and of scripts; requests: addresses that are neither files nor data; broken: images, drawings
    and players that did not load; wide: elements beyond the right edge; images, audio: how many of each there are.
    """

    errors: list[str]
    requests: list[str]
    broken: list[str]
    wide: list[str]
    images: int
    audio: int

    def assert_sound(self) -> None:
        """Fail with what is wrong."""
        assert (self.errors, self.requests, self.broken, self.wide) == ([], [], [], [])


class Browser:
    """One page of a running Chromium."""

    def __init__(self, socket: Any) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self._events: list[dict[str, Any]] = []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Ask for something and wait for the answer; what happens meanwhile is kept."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]
            self._events.append(message)

    def evaluate(self, script: str) -> Any:
        """The value of a script, awaited."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def open(self, page: Path, width: int = 1280, height: int = 900, dark: bool = False) -> Seen:
        """Load a page afresh at a width in CSS pixels and look at all that it holds."""
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.call("Emulation.setEmulatedMedia", features=scheme)
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        self._events.clear()
        self.call("Page.navigate", url=page.resolve().as_uri())
        while not any(event["method"] == "Page.loadEventFired" for event in self._events):
            self._events.append(json.loads(self._socket.recv()))
        elements, wide = self.evaluate(ELEMENTS), self.evaluate(OVERFLOW)
        return Seen(self._errors(), self._requests(), elements["broken"], wide, elements["images"], elements["audio"])

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(found["data"]))

    def _errors(self) -> list[str]:
        found = []
        for event in self._events:
            told = event["params"]
            if event["method"] == "Runtime.exceptionThrown":
                found.append(told["exceptionDetails"]["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and told["type"] in ("error", "warning", "assert"):
                found.append(str(told["args"]))
            elif event["method"] == "Log.entryAdded" and told["entry"]["level"] in ("error", "warning"):
                found.append(f"{told['entry']['text']} {told['entry'].get('url', '')[:90]}")
        return found

    def _requests(self) -> list[str]:
        sent = [e["params"]["request"]["url"] for e in self._events if e["method"] == "Network.requestWillBeSent"]
        return [url for url in sent if not url.startswith(("file:", "data:", "blob:"))]


@contextlib.contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A browser with a fresh profile in the folder `profile`; skips the test where there is none to start."""
    program = next((found for name in NAMES if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no Chromium is installed ({', '.join(NAMES)})")
    websocket = pytest.importorskip("websocket", reason="websocket-client is not installed; it is in the dev extra")
    command = [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        with contextlib.closing(websocket.create_connection(_address(profile, process), timeout=PATIENCE)) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()


def _address(profile: Path, process: subprocess.Popen[bytes]) -> str:
    """Where the first page of a starting browser listens."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if process.poll() is not None:
            pytest.skip(f"Chromium does not start here (exit code {process.returncode})")
        with contextlib.suppress(OSError, IndexError, ValueError):
            port = int((profile / "DevToolsActivePort").read_text().splitlines()[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json/list", timeout=5) as answer:
                pages = [target for target in json.load(answer) if target["type"] == "page"]
            return str(pages[0]["webSocketDebuggerUrl"])
        time.sleep(0.1)
    pytest.fail(f"Chromium did not answer within {PATIENCE:.0f} s")
