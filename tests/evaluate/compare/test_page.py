"""The page of a comparison: as files, and in a browser."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from plaudit.audio import write_wav
from plaudit.errors import EvaluationError
from plaudit.evaluate.comparison import ComparisonTable, compare, pair, track_series
from plaudit.evaluate.pages import comparison
from plaudit.evaluate.pages.comparison import write_comparison
from plaudit.evaluate.systems import read_systems
from tests.browser import chromium
from tests.evaluate.compare.tables import clips, write_table
from tests.evaluate.report_example import CAPTIONS, RATE, clip


def systems(folder: Path, count: int = 6) -> ComparisonTable:
    """Three systems with audio, and prompts that a page must not take for markup."""
    for place, name in enumerate(("base", "tuned <b>", "late")):
        rows = clips(place, count=count, lift=0.5 * place)
        own = folder / f"system-{place}"
        for number, row in enumerate(rows):
            row |= {"file": f"{number}.wav", "prompt": CAPTIONS[number] if number < len(CAPTIONS) else row["prompt"]}
            row["clap"] -= 0.2 * place
            write_wav(own / str(row["file"]), clip(10 * place + number, 0.3), RATE)
            row["system"] = name
        write_table(own / "clips.csv", rows)
    return compare(pair(read_systems([folder / f"system-{place}" / "clips.csv" for place in range(3)])))


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> ComparisonTable:
    return systems(tmp_path_factory.mktemp("systems"))


@pytest.fixture(scope="module")
def index(table: ComparisonTable, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("comparison") / "comparison"
    return write_comparison(table, folder, series=track_series(table.pairing))


def test_small_clips_are_inside_the_page(index: Path) -> None:
    files = [".written.json", "comparison.csv", "comparison.json", "index.html"]
    assert sorted(path.name for path in index.parent.iterdir()) == files
    text = index.read_text()
    references = re.findall(r'(?:src|href|srcset)="([^#"]*)"', text)
    assert len(references) > 18 and all(reference.startswith("data:") for reference in references)
    assert "<script" not in text and "tuned <b>" not in text and "tuned &lt;b&gt;" in text
    found = json.loads((index.parent / "comparison.json").read_text())
    assert len(found["comparisons"]) == 6 and found["summary"] in text.replace("&lt;", "<").replace("&gt;", ">")


def test_the_worst_and_the_best_come_first(table: ComparisonTable, tmp_path: Path) -> None:
    text = write_comparison(table, tmp_path / "page", sort="clap", players=4).read_text()
    differences = re.findall(r"<small>CLAP score ([^<]*)</small></h3>", text)
    shown = [float(number.replace("\N{MINUS SIGN}", "-")) for number in differences]
    gaps = sorted((table.pairing.values("clap", "late") - table.pairing.values("clap", "base"))[:, 0])
    assert shown == pytest.approx([gaps[0], gaps[1], gaps[-1], gaps[-2]], abs=6e-4)
    distances = write_comparison(table, tmp_path / "all", players=100).read_text()
    assert distances.count("<article") == 6  # every prompt once
    with pytest.raises(EvaluationError, match="--sort nothing: no such metric"):
        write_comparison(table, tmp_path / "page", sort="nothing")


def test_large_clips_lie_beside_the_page(
    table: ComparisonTable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(comparison, "INLINE", 1000)
    index = write_comparison(table, tmp_path / "page", players=2)
    references = re.findall(r'<audio [^>]*src="([^"]*)"', index.read_text())
    assert references == [f"audio/{number:04d}.wav" for number in range(1, 7)]
    assert all((index.parent / reference).is_file() for reference in references)


def test_a_missing_clip_leaves_the_page_before(tmp_path: Path) -> None:
    made = systems(tmp_path)
    before = write_comparison(made, tmp_path / "page").read_bytes()
    (tmp_path / "system-1" / "2.wav").unlink()
    with pytest.raises(EvaluationError, match=r"2\.wav is gone, so it cannot be played; .* --players 0"):
        write_comparison(made, tmp_path / "page")
    assert (tmp_path / "page" / "index.html").read_bytes() == before
    assert "<audio" not in write_comparison(made, tmp_path / "page", players=0).read_text()


def test_tables_without_files_have_nothing_to_play(tmp_path: Path) -> None:
    paths = [write_table(tmp_path / f"{n}.csv", clips(n)) for n in range(2)]
    text = write_comparison(compare(pair(read_systems(paths))), tmp_path / "page").read_text()
    assert "<audio" not in text


def test_in_a_browser_everything_loads_and_fits(index: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        for width, dark in ((1280, False), (1280, True), (390, False)):
            seen = browser.open(index, width, dark=dark)
            seen.assert_sound()
            assert seen.audio == 18
        colours = [browser.evaluate("getComputedStyle(document.body).backgroundColor")]
        browser.open(index, dark=True)
        colours.append(browser.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours[0] != colours[1]


def test_the_browser_reports_page_errors(tmp_path: Path) -> None:
    """The helper itself: a page with one of each fault."""
    (tmp_path / "bad.html").write_text(
        '<!doctype html><link rel="icon" href="data:,"><script>nothing.here</script><img src="gone.png">'
        '<audio src="gone.wav"></audio><img src="http://127.0.0.1:9/x.png"><div style="width: 500px">wide</div>'
    )
    write_wav(tmp_path / "sound.wav", np.zeros(1600, dtype=np.float32), 16000)
    (tmp_path / "good.html").write_text(
        '<!doctype html><link rel="icon" href="data:,"><audio src="sound.wav"></audio><svg width="9" height="9"></svg>'
    )
    with chromium(tmp_path / "profile") as browser:
        seen = browser.open(tmp_path / "bad.html", 390)
        assert seen.errors and seen.requests == ["http://127.0.0.1:9/x.png"]
        assert len(seen.broken) == 3 and any("DIV" in line for line in seen.wide)
        browser.open(tmp_path / "good.html", 390).assert_sound()
