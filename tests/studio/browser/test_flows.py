"""Whole flows in Chromium with `plaudit studio` as a user starts it, and a power cut in the middle of each."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from plaudit.corpus.sources import synthetic_source
from tests.studio.browser.driver import (
    agree,
    answer,
    api,
    command,
    hear_both,
    open_test,
    overflows,
    pages,
    serious_faults,
    system,
    write_clips,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("power_cuts", [False, True])
def test_first_vote_from_the_first_start(tmp_path: Path, power_cuts: bool) -> None:
    """A new user: start, upload, test, vote. Power cuts: while clips are prepared, and before the vote is sent."""
    began = time.monotonic()
    with command(tmp_path / "studio") as (studio, link), pages() as browser:
        page = browser.open(link)
        page.get_by_role("link", name="Tests").click()
        page.get_by_role("link", name="New test").click()
        page.get_by_label("Name", exact=True).first.fill("High against low")
        for number, (name, frequency) in enumerate((("low", 220.0), ("high", 440.0))):
            fields = system(page, number)
            fields.get_by_label("Name").fill(name)
            fields.get_by_label("Clips from").select_option("folder")
            fields.locator("input[type=file]").set_input_files(write_clips(tmp_path / name, frequency, 4.0))
            fields.get_by_text("Uploaded.", exact=True).wait_for()
        page.get_by_role("button", name="Next").click()
        page.get_by_role("button", name="Next").click()
        page.get_by_role("button", name="Create test").click()
        if power_cuts:
            page.get_by_role("heading", name="High against low").wait_for()
            studio.kill()
            studio.start()
        open_test(page)
        page.get_by_role("button", name="Create a link").click()
        listener = browser.open(page.locator(".link-text").inner_text(), width=390, height=844)
        agree(listener)
        if power_cuts:
            hear_both(listener)
            studio.kill()
            listener.keyboard.press("b")
            listener.keyboard.press("Enter")
            listener.get_by_text("The connection is lost.").wait_for()
            studio.start()
            listener.get_by_text("Question 2 of").wait_for()
        else:
            answer(listener, "b")
            assert time.monotonic() - began < 120
        assert api(page, "GET", "/tests")["items"][0]["votes"] == 1


def test_three_listeners_and_a_power_cut(tmp_path: Path) -> None:
    with command(tmp_path / "studio") as (studio, link), pages() as browser:
        page = browser.open(link)
        page.get_by_role("heading", name="Create").wait_for()
        systems = []
        for name, frequency in (("low", 220.0), ("high", 440.0)):
            page.goto(f"{studio.address}/runs")
            page.locator("input[type=file]").set_input_files(write_clips(tmp_path / name, frequency))
            page.get_by_text("Uploaded.", exact=True).wait_for()
            folder = page.get_by_label("Folder", exact=True).input_value()
            systems.append({"name": name, "source": {"folder": folder}})
        made = api(page, "POST", "/tests", {
            "name": "High against low", "systems": systems, "pairs_per_listener": 3, "repeats": 0, "obvious": 0,
            "practice": 0, "minimum_listening": 0.5, "strength": True, "comment": True,
        })  # fmt: skip
        test = made["test"]["id"]
        page.goto(f"{studio.address}/tests/{test}")
        open_test(page)
        page.get_by_role("button", name="Create a link").click()
        invitation = page.locator(".link-text").inner_text()

        listeners = [browser.open(invitation, width=390, height=844) for _ in range(3)]
        for listener in listeners:
            agree(listener)
        for round_number in range(3):
            for listener in listeners:
                listener.locator("button.side").first.wait_for()
                hear_both(listener)
                listener.keyboard.press("a")
                listener.get_by_label("Clearly").check()
                listener.get_by_label("Comment").fill(f"round {round_number}")
                if round_number == 1 and listener is listeners[0]:
                    studio.kill()
                    listener.get_by_role("button", name="Save and continue").click()
                    listener.get_by_text("The connection is lost.").wait_for()
                    studio.start()
                else:
                    listener.get_by_role("button", name="Save and continue").click()
                if round_number < 2:
                    listener.get_by_text(f"{round_number + 2} of 3").wait_for()
        codes = {listener.locator("#code").inner_text() for listener in listeners}
        assert len(codes) == 3

        page.reload()
        page.get_by_text("9 votes by 3 listeners").wait_for()
        info = api(page, "GET", f"/tests/{test}")
        assert (info["votes"], info["completed"]) == (9, 3)
        assert serious_faults(page) == [] and overflows(page) == 0
        page.get_by_role("button", name="Close the test").click()
        page.get_by_role("button", name="Open again").wait_for()
        late = browser.open(invitation)
        late.get_by_text("closed").first.wait_for()


def test_generation_goes_on_after_a_power_cut(tmp_path: Path) -> None:
    with command(tmp_path / "studio") as (studio, link), pages() as browser:
        page = browser.open(link)
        page.get_by_label("Prompt", exact=True).fill("slow sad piano in a minor key")
        page.get_by_label("Candidates").fill("2")
        page.get_by_label("Seed", exact=True).fill("7")
        page.get_by_text("More settings").click()
        page.get_by_label("Solver steps").fill("4")
        page.get_by_role("button", name="Generate").click()
        page.locator(".badge.running").wait_for()
        studio.kill()
        studio.start()
        page.locator(".badge.done").wait_for(timeout=300_000)
        page.locator("article.clip").nth(1).wait_for()
        assert {clip["seed"] for clip in api(page, "GET", "/clips")["items"]} == {"7", "8"}

        first, second = page.locator("article.clip").first, page.locator("article.clip").nth(1)
        first.get_by_role("button", name="Compare as A").click()
        second.get_by_role("button", name="Compare as B").click()
        bar = page.get_by_role("region", name="Comparison of two clips")
        bar.locator("button.side-a").click()
        bar.locator("button.side-a[aria-pressed=true]").wait_for()
        page.wait_for_timeout(600)
        page.keyboard.press("b")
        bar.locator("button.side-b[aria-pressed=true]").wait_for()
        position = bar.get_by_role("slider")
        assert float(position.input_value()) > 0.3  # the second goes on where the first was
        assert serious_faults(page) == []
        bar.get_by_role("button", name="Close").click()

        first.get_by_role("button", name="Keep").click()
        first.get_by_role("button", name="Kept").wait_for()
        second.get_by_role("button", name="Discard").click()
        page.goto(f"{studio.address}/history")
        page.locator("article.clip.kept").wait_for()
        assert page.locator("article.clip").count() == 1
        page.get_by_role("button", name="Use these settings").click()
        assert page.get_by_label("Seed", exact=True).input_value() in ("7", "8")


def test_blocked_sound_is_said(tmp_path: Path) -> None:
    """A browser that lets no sound start, whatever was pressed."""
    with command(tmp_path / "studio") as (studio, link), pages() as browser:
        page = browser.open(link)
        page.get_by_role("heading", name="Create").wait_for()
        page.goto(f"{studio.address}/runs")
        page.locator("input[type=file]").set_input_files(write_clips(tmp_path / "low", 220.0))
        page.get_by_text("Uploaded.", exact=True).wait_for()
        folder = page.get_by_label("Folder", exact=True).input_value()
        systems = [{"name": name, "source": {"folder": folder}} for name in ("one", "other")]
        made = api(page, "POST", "/tests", {"name": "Blocked", "systems": systems, "practice": 0})
        page.goto(f"{studio.address}/tests/{made['test']['id']}")
        open_test(page)
        page.get_by_role("button", name="Create a link").click()
        listener = browser.open(page.locator(".link-text").inner_text())
        agree(listener)
        listener.locator("button.side").first.wait_for()
        untouched = listener.context  # a new tab, in which nobody clicks or presses a key
        untouched.add_init_script("""setInterval(() => {
          if (window.pressed) return;
          const button = document.querySelector("button.side");
          if (button) { window.pressed = true; button.click(); }
        }, 50)""")
        listener = browser.open(listener.url, untouched)
        listener.wait_for_timeout(8_000)  # whatever asks the page for something counts as a gesture
        listener.get_by_text("Your browser is blocking sound on this page.").wait_for()
        listener.locator("button.side").first.click()  # and now it may
        listener.locator("button.side[aria-pressed=true]").wait_for()
        assert listener.get_by_text("Your browser is blocking sound").count() == 0


def test_votes_to_reward_to_tuned_model(tmp_path: Path) -> None:
    """Simulated listeners vote on two models; a reward learns from them, a model is tuned with it, a test is ready."""
    prompts = synthetic_source(5.0).held_out(8).prompts
    with command(tmp_path / "studio") as (studio, link), pages() as browser:
        page = browser.open(link)
        page.get_by_role("heading", name="Create").wait_for()
        systems = [
            {"name": f"{n} steps", "source": {"model": "synthetic-distilled", "sampling": {"steps": n}, "seconds": 3}}
            for n in (1, 2)
        ]
        made = api(page, "POST", "/tests", {
            "name": "Two models", "systems": systems, "prompts": prompts, "pairs_per_listener": 8, "repeats": 0,
            "obvious": 0, "practice": 0,
        })  # fmt: skip
        test = made["test"]["id"]
        page.goto(f"{studio.address}/tests/{test}")
        open_test(page, timeout=300_000)
        job = api(page, "POST", "/simulations", {"test": test, "listeners": 20})
        page.wait_for_function(
            "async (id) => (await (await fetch(`/api/v1/jobs/${id}`)).json()).status === 'done'", arg=job["id"],
            timeout=300_000, polling=1000,
        )  # fmt: skip
        page.get_by_role("link", name="Tune a model with these votes").click()
        page.get_by_role("button", name="Train", exact=True).click()
        page.locator(".job").first.wait_for()
        studio.kill()
        studio.start()
        page.get_by_text("Accuracy on held-out votes").wait_for(timeout=600_000)
        page.get_by_label("Size").select_option("smoke")
        page.get_by_label("Reward", exact=True).select_option(label="reward")
        page.get_by_role("button", name="Tune", exact=True).click()
        page.locator(".job", has_text="synthetic-base with reward").locator(".badge.running").wait_for()
        studio.kill()
        studio.start()
        page.get_by_role("button", name="Create the test").click(timeout=900_000)
        page.get_by_text("before, after").wait_for()
        assert serious_faults(page) == []
