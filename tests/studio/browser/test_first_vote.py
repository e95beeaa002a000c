"""From the first start to the first blind vote, in Chromium: the short way, on every run of the tests."""

from __future__ import annotations

from pathlib import Path

from tests.studio.browser.driver import (
    agree,
    answer,
    api,
    open_test,
    overflows,
    pages,
    serious_faults,
    served,
    system,
    write_clips,
)
from tests.studio.conftest import Opened


def test_first_blind_vote(studio: Opened, tmp_path: Path) -> None:
    with served(studio.app) as address, pages() as browser:
        page = browser.open(f"{address}/#token={studio.token}")
        page.get_by_role("heading", name="Create").wait_for()
        assert page.url == f"{address}/create"  # the token does not stay in the address

        page.get_by_role("link", name="Tests").click()
        page.get_by_role("link", name="New test").click()
        page.get_by_label("Name", exact=True).first.fill("High against low")
        for number, (name, frequency) in enumerate((("low", 220.0), ("high", 440.0))):
            fields = system(page, number)
            fields.get_by_label("Name").fill(name)
            fields.get_by_label("Clips from").select_option("folder")
            fields.locator("input[type=file]").set_input_files(write_clips(tmp_path / name, frequency))
            fields.get_by_text("Uploaded; decoding…").wait_for()
            studio.work()
            fields.get_by_text("Uploaded.", exact=True).wait_for()
        assert serious_faults(page) == []
        page.get_by_role("button", name="Next").click()
        page.get_by_label("Pairs for each listener").fill("3")
        page.get_by_label("Minimum listening").fill("0.5")
        page.get_by_role("button", name="Next").click()
        for label in ("Practice pairs", "Hidden repeats", "Attention checks"):
            page.get_by_label(label, exact=True).fill("0")
        page.get_by_role("button", name="Create test").click()
        page.get_by_text("Preparing the clips").wait_for()
        studio.work()
        open_test(page)
        page.get_by_role("button", name="Create a link").click()
        link = page.locator(".link-text").inner_text()
        assert serious_faults(page) == []

        listener = browser.open(link, width=390, height=844)
        agree(listener)
        choose = listener.get_by_role("button", name="A is better")
        assert choose.is_disabled()  # nothing was listened to
        listener.keyboard.press("a")
        assert choose.get_attribute("aria-pressed") == "false"
        answer(listener, "a")
        assert serious_faults(listener) == []
        assert overflows(listener) == 0
        (test,) = api(page, "GET", "/tests")["items"]
        assert test["votes"] == 1
        page.get_by_text("high against low").or_(page.get_by_text("low against high")).first.wait_for()

        # A listener's page goes on where it was, and knows nothing of the systems.
        listener.reload()
        listener.get_by_text("2 of 3").wait_for()
        assert not {"low", "high"} & set(listener.locator("main").inner_text().lower().split())
        assert [one for one in browser.complaints if "401" not in one] == []
