"""The report in a browser: all of it loads without a network and fits a telephone."""

from pathlib import Path

from plaudit.evaluate.report.page import write_report
from tests.browser import chromium
from tests.evaluate.report_example import example


def test_in_a_browser_everything_loads_and_fits(tmp_path: Path) -> None:
    (tmp_path / "clips").mkdir()
    index = write_report(example(tmp_path / "clips", players=2), tmp_path / "report")
    with chromium(tmp_path / "profile") as browser:
        for width, dark in ((1280, False), (1280, True), (390, False), (390, True)):
            seen = browser.open(index, width, dark=dark)
            seen.assert_sound()
            assert seen.audio == 10 and seen.images > 20
