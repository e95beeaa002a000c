"""What a listener meets in Chromium: pages of ratings and the headphone check by keyboard alone, and a second tab."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from playwright.sync_api import Page
from sqlalchemy import select

from plaudit.studio.database import Listener
from plaudit.studio.listening.screening import NEEDED, TRIALS, trial_seed, trials
from plaudit.studio.settings import StudioSettings
from tests.studio.browser.driver import (
    PROMPTS,
    Pages,
    agree,
    agree_by_keys,
    answer,
    focus_by_tab,
    hear_both,
    pages,
    serious_faults,
    served,
    write_tone,
)
from tests.studio.conftest import Opened, done

SYSTEMS = {"low": 220.0, "high": 440.0, "middle": 330.0}


class Place:
    """A studio behind a port, with folders of clips, and a browser."""

    def __init__(self, studio: Opened, address: str, browser: Pages) -> None:
        self.studio = studio
        self.address = address
        self.browser = browser
        self.owner = studio.client(studio.token)

    def opened(self, systems: tuple[str, ...] = ("low", "high"), **changes: Any) -> tuple[str, str]:
        """A test that is open: its id and the address of an invitation."""
        request = {
            "name": "a test", "systems": [{"name": n, "source": {"folder": f"uploads/{n}"}} for n in systems],
            "pairs_per_listener": 3, "repeats": 0, "obvious": 0, "practice": 0, "minimum_listening": 0.5, **changes,
        }  # fmt: skip
        test = done(self.owner.post("tests", json=request), 202)["test"]["id"]
        self.studio.work()
        done(self.owner.patch(f"tests/{test}", json={"status": "open"}))
        return test, self.address + done(self.owner.post(f"tests/{test}/invitations", json={}), 201)["url"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """One of each for all tests here."""
    studio = Opened(StudioSettings(folder=tmp_path_factory.mktemp("listener") / "studio", device="cpu"))
    for name, frequency in SYSTEMS.items():
        folder = studio.studio.settings.layout.uploads / name
        for number, prompt in enumerate(PROMPTS):
            write_tone(folder / f"{number}.wav", frequency + 40 * number, 1.5)
            (folder / f"{number}.json").write_text(json.dumps({"prompt": prompt, "seed": 0}))
    with served(studio.app) as address, pages() as browser:
        yield Place(studio, address, browser)
    studio.close()


def test_ratings_by_keyboard_alone(place: Place) -> None:
    test, link = place.opened(
        tuple(SYSTEMS), kind="rating", prompts=[PROMPTS[0]], pairs_per_listener=1, reference="middle"
    )
    page = place.browser.open(link)
    agree_by_keys(page)
    page.get_by_text("Listen to at least 1 s of every clip (4 to go).").wait_for()
    page.keyboard.press("r")
    page.locator("button.reference[aria-pressed=true]").wait_for()
    for number in range(1, 5):
        page.keyboard.press(str(number))
        page.locator(f".stimuli li:nth-child({number}) .enough").wait_for()
    page.keyboard.press("Enter")  # nothing is rated: nothing is sent
    page.get_by_text("Rate every clip (4 to go).").wait_for()
    for number in range(1, 5):
        focus_by_tab(page, f"Rating of clip {number}")
        page.keyboard.press("End" if number == 1 else "ArrowRight")
    assert page.locator("output").all_inner_texts() == ["100", "51", "51", "51"]
    assert page.get_by_label("Rating of clip 1").get_attribute("aria-valuetext") == "100, Excellent"
    assert serious_faults(page) == []
    page.keyboard.press("Enter")
    page.get_by_text("Your completion code").wait_for()
    info = done(place.owner.get(f"tests/{test}"))
    assert (info["votes"], info["completed"]) == (1, 1)


@pytest.mark.slow
def test_a_listener_who_opens_the_link_twice(place: Place) -> None:
    """Both tabs are one listener's: what one has answered, the other passes over."""
    test, link = place.opened()
    context = place.browser.context()
    first = place.browser.open(link, context)
    second = place.browser.open(link, context)
    agree(first)
    agree(second)
    answer(first, "a")
    first.get_by_text("Question 2 of 3").wait_for()
    second.get_by_text("Question 1 of 3").wait_for()
    hear_both(second)
    second.keyboard.press("b")
    second.keyboard.press("Enter")
    second.get_by_text("Question 2 of 3").wait_for()
    answer(second, "b")
    answer(second, "b")
    second.get_by_text("Your completion code").wait_for()
    first.reload()
    first.get_by_text("Your completion code").wait_for()
    info = done(place.owner.get(f"tests/{test}"))
    assert (info["listeners"], info["votes"], info["completed"]) == (1, 3, 1)
    answers = [line.split(",") for line in place.owner.get(f"tests/{test}/export?format=csv").text.splitlines()]
    assert len(answers) == 4


@pytest.mark.slow  # the sounds take a minute
def test_the_headphone_check_by_keyboard_alone(place: Place) -> None:
    """Wrong answers first, then right ones, which the pairs follow."""
    test, link = place.opened(screening="huggins")
    page = place.browser.open(link)
    agree_by_keys(page)
    answer_trials(page, place, test, attempt=0, wrong=TRIALS - NEEDED["huggins"] + 1)
    page.get_by_role("heading", name="No headphones were detected").wait_for()
    focus_by_tab(page, "Try again")
    page.keyboard.press("Enter")
    answer_trials(page, place, test, attempt=1, wrong=0)
    page.locator("button.side").first.wait_for()
    page.get_by_text("Question 1 of 3").wait_for()


def answer_trials(page: Page, place: Place, test: str, attempt: int, wrong: int) -> None:
    """Listen to all trials and answer them, the first of them wrongly, by keys."""
    page.locator("button.play-all").wait_for()
    with place.studio.studio.database.reading() as session:
        listener = session.scalar(select(Listener).where(Listener.test_id == test))
        assert listener is not None
        targets = [trial.target for trial in trials("huggins", trial_seed(listener.screening, attempt))]
    for number, target in enumerate(targets):
        page.get_by_text(f"Headphone check {number + 1} of {TRIALS}").wait_for()
        page.keyboard.press("1")  # too early: nothing was heard
        assert page.locator(".sounds [aria-pressed=true]").count() == 0
        page.keyboard.press("Space")
        page.locator(".sounds button:enabled").first.wait_for()
        page.keyboard.press(str((target + (number < wrong)) % 3 + 1))
        page.keyboard.press("Enter")
