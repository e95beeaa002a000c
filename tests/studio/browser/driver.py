"""The studio behind a real port, and pages in Chromium."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import uvicorn
from fastapi import FastAPI
from playwright.sync_api import Browser, BrowserContext, Locator, Page, Playwright, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
AUTOPLAY = "--autoplay-policy=document-user-activation-required"
"""What browsers do for people: sound starts only after they have clicked or pressed a key."""

PATIENCE_MS = 60_000
"""For anything a page waits for; machines that run tests may be busy."""

AXE = (Path(__file__).parent / "axe.min.js").read_text()
PROMPTS = ("calm pads", "fast drums", "sad piano")


def chromium(driver: Playwright) -> Browser:
    """Chromium without a window; skips where none is installed."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("Chromium is not installed")
    return driver.chromium.launch(executable_path=path, args=["--no-sandbox", AUTOPLAY, "--mute-audio"])


class Pages:
    """Pages of one browser, with whatever their consoles complain about."""

    def __init__(self, browser: Browser) -> None:
        self.browser = browser
        self.complaints: list[str] = []

    def context(self, width: int = 1280, height: int = 900, **options: Any) -> BrowserContext:
        """A person's browser: cookies of its own."""
        return self.browser.new_context(viewport={"width": width, "height": height}, **options)

    def open(self, address: str, context: BrowserContext | None = None, **options: Any) -> Page:
        """A page at an address."""
        page = (context or self.context(**options)).new_page()
        page.set_default_timeout(PATIENCE_MS)
        page.on("console", lambda m: self.complaints.append(m.text) if m.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.goto(address)
        return page


@contextmanager
def pages() -> Iterator[Pages]:
    """Pages of a new browser."""
    with sync_playwright() as driver:
        browser = chromium(driver)
        try:
            yield Pages(browser)
        finally:
            browser.close()


@contextmanager
def served(app: FastAPI) -> Iterator[str]:
    """An application behind a free port of this machine: its address."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(20)
        listening.close()


class Command:
    """`plaudit studio` as a user starts it. It can be killed and started again in the same folder, at the same port."""

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self.options = options
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> str:
        """Start it; the link to log in with."""
        arguments = [str(self.folder), "--port", str(self.port), "--no-browser", "--device", "cpu", *self.options]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "plaudit", "studio", *arguments],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self.process.stdout is not None
        printed = ""
        for line in self.process.stdout:
            printed += line
            if match := re.search(r"http://\S+#token=\S+", line):
                break
        else:
            raise AssertionError(f"the studio did not start: {printed}")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                break
            except OSError:
                time.sleep(0.05)
        return match.group(0)

    def kill(self) -> None:
        """SIGKILL to the server and its worker, as by a power cut."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@contextmanager
def command(folder: Path, *options: str) -> Iterator[tuple[Command, str]]:
    """A running `plaudit studio` and its link."""
    studio = Command(folder, *options)
    try:
        yield studio, studio.start()
    finally:
        studio.kill()


def write_tone(path: Path, frequency: float, seconds: float) -> None:
    """A tone that swells and fades."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rate = 32_000
    time_axis = np.arange(round(seconds * rate)) / rate
    tone = 0.2 * np.sin(2 * np.pi * frequency * time_axis) * np.hanning(len(time_axis))
    soundfile.write(path, tone.astype(np.float32), rate)


def write_clips(folder: Path, frequency: float, seconds: float = 1.5) -> list[Path]:
    """A tone for each prompt, and the table of their prompts."""
    lines = ["file,prompt"]
    for number, prompt in enumerate(PROMPTS):
        write_tone(folder / f"{number}.wav", frequency + 40 * number, seconds)
        lines.append(f"{number}.wav,{prompt}")
    (folder / "prompts.csv").write_text("\n".join(lines) + "\n")
    return sorted(folder.iterdir())


REQUEST = """async ([method, path, body]) => {
  const headers = {"Content-Type": "application/json"};
  if (method !== "GET") headers["X-CSRF-Token"] = (await (await fetch("/api/v1/session")).json()).csrf;
  const options = {method, headers, body: body === null ? undefined : JSON.stringify(body)};
  const response = await fetch("/api/v1" + path, options);
  return [response.status, await response.text()];
}"""


def api(page: Page, method: str, path: str, body: Mapping[str, Any] | None = None) -> Any:
    """What the API answers a page of somebody who is logged in."""
    status, text = page.evaluate(REQUEST, [method, path, body])
    assert status < 300, f"{method} {path}: {status} {text}"
    return json.loads(text) if text else None


def serious_faults(page: Page) -> list[str]:
    """What axe-core finds that is serious or critical, with the first element of each."""
    page.evaluate(AXE)
    found = page.evaluate("async () => (await axe.run(document)).violations")
    return [
        f"{fault['id']}: {fault['help']}: {fault['nodes'][0]['html'][:200]}"
        for fault in found
        if fault["impact"] in ("serious", "critical")
    ]


def overflows(page: Page) -> int:
    """Pixels by which a page is wider than its window."""
    return int(page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth"))


def system(page: Page, number: int) -> Locator:
    """The fields of a system in the form of a new test, from 0."""
    return page.locator("fieldset.card").nth(number)


def open_test(page: Page, timeout: float | None = None) -> None:
    """Open the test of a page that is ready, and wait until the page shows that: opening moves what is below it, and a
    click on what is still moving may miss."""
    page.get_by_role("button", name="Open the test").click(timeout=timeout)
    page.get_by_role("button", name="Close the test").wait_for()


def agree(page: Page) -> None:
    """Consent and start, as a listener."""
    page.get_by_role("checkbox").check()
    page.get_by_role("button", name="Start").click()


def focus_by_tab(page: Page, name: str) -> None:
    """Press Tab until the control of that name has the focus."""
    wanted = page.get_by_label(name, exact=True).or_(page.get_by_role("button", name=name, exact=True)).first
    wanted.wait_for()
    for _ in range(40):
        page.keyboard.press("Tab")
        if wanted.evaluate("element => element === document.activeElement"):
            return
    raise AssertionError(f"Tab does not reach {name!r}")


def agree_by_keys(page: Page) -> None:
    """Consent and start, by keyboard alone."""
    focus_by_tab(page, "I have read this and agree to take part.")
    page.keyboard.press("Space")
    page.keyboard.press("Enter")


def hear_both(page: Page) -> None:
    """Play both sides of a pair, by keys, until it may be answered. Clips that end in between are played again."""
    for side in (1, 2):
        button = page.locator("button.side").nth(side - 1)
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not button.locator(".enough").count():
            assert time.monotonic() < deadline, "the page does not count what was listened to"
            if button.get_attribute("aria-pressed") == "false":
                page.keyboard.press(str(side))
            page.wait_for_timeout(100)


def answer(page: Page, key: str) -> None:
    """Listen to both sides of a pair and answer it, by keys alone."""
    page.locator("button.side").first.wait_for()
    before = page.get_by_role("progressbar").get_attribute("aria-label")
    hear_both(page)
    page.keyboard.press(key)
    page.keyboard.press("Enter")
    page.wait_for_function(
        "(before) => document.querySelector('progress')?.getAttribute('aria-label') !== before", arg=before
    )
