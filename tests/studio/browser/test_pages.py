"""Every page, filled, in a light and a dark browser, on a desk and on a phone: no fault that axe-core calls serious."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from plaudit.studio.simulation import simulate
from tests.studio.browser.driver import PROMPTS, agree, overflows, pages, serious_faults, served, write_tone
from tests.studio.conftest import Opened, done
from tests.studio.listening.conftest import Participant
from tests.studio.steps import invitation_of, opened_test
from tests.studio.test_runs import make_run

pytestmark = pytest.mark.slow

FOLDERS = {"low": 220.0, "high": 440.0}
WINDOWS = {"desk": (1280, 900), "phone": (390, 844)}


class Filled:
    """A studio with something on every page. tests, links: ids and addresses of invitations, by kind."""

    def __init__(self, studio: Opened, owner: Any) -> None:
        layout = studio.studio.settings.layout
        for name, frequency in FOLDERS.items():
            for number, prompt in enumerate(PROMPTS):
                write_tone(layout.uploads / name / f"{number}.wav", frequency, 1.5)
                (layout.uploads / name / f"{number}.json").write_text(f'{{"prompt": "{prompt}", "seed": 0}}')
        make_run(Path(studio.studio.settings.runs_folder), "finished")
        self.tests = {"voted": opened_test(studio, owner, reward="synthetic")}
        simulate(studio.client(), invitation_of(owner, self.tests["voted"]), listeners=8, votes=44)
        self.links: dict[str, str] = {}
        wanted: dict[str, dict[str, Any]] = {
            "pairs": {"strength": True, "comment": True},
            "headphones": {"screening": "antiphase"},
            "ratings": {"kind": "rating", "reference": "low"},
            "impossible": {"prompts": ["of which there is no clip"]},
        }
        for kind, changes in wanted.items():
            systems = [{"name": name, "source": {"folder": f"uploads/{name}"}} for name in FOLDERS]
            request = {"name": f"of {kind}", "systems": systems, "pairs_per_listener": 3, "obvious": 0, **changes}
            self.tests[kind] = done(owner.post("tests", json=request), 202)["test"]["id"]
        for body in ({"count": 2, "seed": 1}, {"count": 1, "model": "synthetic-distilled"}):
            done(owner.post("generations", json={"prompts": ["calm pads"], "steps": 2, "seconds": 3, **body}), 202)
        waiting = done(owner.post("generations", json={"prompts": ["never generated"]}), 202)["id"]
        done(owner.post(f"jobs/{waiting}/cancel"))
        done(owner.post("scores", json={"folder": "uploads/low"}), 202)
        done(owner.post("comparisons", json={"a": "uploads/low", "b": "uploads/high"}), 202)
        done(owner.post(f"tests/{self.tests['voted']}/reports"), 202)
        done(owner.post("rewards", json={"name": "ours", "tests": [self.tests["voted"]]}), 202)
        studio.work()
        done(owner.post("tunings", json={"name": "toward us", "reward": "ours", "size": "smoke"}), 202)
        studio.work()
        for kind in ("pairs", "headphones", "ratings"):
            done(owner.patch(f"tests/{self.tests[kind]}", json={"status": "open"}))
            invitation = done(owner.post(f"tests/{self.tests[kind]}/invitations", json={}), 201)
            self.links[kind] = invitation["url"]
            if kind == "ratings":
                rate(Participant(studio.client(), invitation["token"]))
        done(owner.post("generations", json={"prompts": ["waits in the queue"]}), 202)


def rate(listener: Participant) -> None:
    """Rate every page of a test, as a listener who opens its invitation."""
    opened = done(listener.client.post(f"listen/{listener.id}"))
    client = listener.client
    client.headers["authorization"] = f"Bearer {opened['token']}"
    done(client.post("listen/consent"))
    while (item := done(client.get("listen/next")))["kind"] == "page":
        values = {clip["id"]: 90 + number for number, clip in enumerate(item["clips"])}
        answer = {"assignment": item["assignment"], "values": values, "listened": dict.fromkeys(values, 3.0)}
        done(client.post("listen/ratings", json=answer))


def faults(page: Page, name: str) -> list[str]:
    """What is wrong with a page, once it has settled."""
    page.locator("h1").first.wait_for()
    page.wait_for_function("() => !document.body.innerText.includes('Loading ')")
    page.wait_for_timeout(300)  # colours change in steps
    found = [f"{name}: {fault}" for fault in serious_faults(page)]
    if wide := overflows(page):
        found.append(f"{name}: {wide} pixels wider than the window")
    return found


def test_every_page(studio: Opened, owner: Any) -> None:
    filled = Filled(studio, owner)
    sections = ("create", "history", "tests", "rewards", "tune", "runs", "settings", "nowhere")
    addresses = {
        **{name: f"/{name}" for name in sections},
        "a run": "/runs/finished", "tune with a test": f"/tune?test={filled.tests['voted']}",
        **{f"the test of {kind}": f"/tests/{test}" for kind, test in filled.tests.items()},
    }  # fmt: skip
    found: list[str] = []
    with served(studio.app) as address, pages() as browser:
        for window, (width, height) in WINDOWS.items():
            for scheme in ("light", "dark"):
                look: dict[str, Any] = {
                    "width": width,
                    "height": height,
                    "color_scheme": scheme,
                    "reduced_motion": "reduce",
                }
                where = f"{window}, {scheme}"
                page = browser.open(address, **look)
                page.get_by_label("Token").wait_for()
                found += faults(page, f"log in, {where}")
                page.get_by_label("Token").fill(studio.token)
                page.get_by_role("button", name="Open the studio").click()
                page.get_by_role("heading", name="Create").wait_for()
                for name, path in addresses.items():
                    page.goto(address + path)
                    found += faults(page, f"{name}, {where}")
                page.goto(f"{address}/tests/{filled.tests['voted']}")
                page.get_by_text("Time and attention of each listener").click()
                found += faults(page, f"listeners of a test, {where}")
                page.goto(f"{address}/create")
                for side in ("A", "B"):
                    place = 0 if side == "A" else 1
                    page.get_by_role("button", name=f"Compare as {side}").nth(place).click()
                page.get_by_role("region", name="Comparison of two clips").wait_for()
                found += faults(page, f"comparison of clips, {where}")
                for kind in ("preference", "rating"):
                    page.goto(f"{address}/tests/new")
                    page.get_by_label("Name", exact=True).first.fill("a test")
                    page.get_by_label("Pairs" if kind == "preference" else "Ratings").check()
                    page.get_by_role("button", name="Add a system").click()
                    for number in range(3):
                        page.get_by_label("Model", exact=True).nth(number).select_option(index=number + 1)
                    page.get_by_label("Prompts").fill("calm pads")
                    for step in range(3):
                        found += faults(page, f"step {step + 1} of a test of {kind}, {where}")
                        if step < 2:
                            page.get_by_role("button", name="Next").click()
                for kind, link in filled.links.items():
                    listener = browser.open(address + link, **look)
                    listener.get_by_role("button", name="Start").wait_for()
                    found += faults(listener, f"consent to {kind}, {where}")
                    agree(listener)
                    listener.locator("#question, button.play-all").first.wait_for()
                    listener.get_by_text("Keys", exact=True).click()
                    found += faults(listener, f"listener of {kind}, {where}")
                    listener.context.close()
                gone = browser.open(f"{address}/listen/no-such-link", **look)
                found += faults(gone, f"a link that does not work, {where}")
                gone.context.close()
                page.context.close()
    assert found == []
