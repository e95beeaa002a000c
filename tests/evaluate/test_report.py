import base64
import csv
import itertools
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from plaudit.audio import write_wav
from plaudit.errors import EvaluationError, RunError
from plaudit.evaluate.comparison import pair
from plaudit.evaluate.pages.charts import darkened, name_points, running_mean
from plaudit.evaluate.pages.html import DARK, LIGHT, replaced_page
from plaudit.evaluate.pages.report import (
    Recommendation,
    ReportData,
    Sample,
    StageResult,
    read_curves,
    recommend,
    summarize,
    write_report,
)
from plaudit.evaluate.pages.sweep import Sweep
from plaudit.evaluate.pages.text import change_rows, markdown_table, number, percent, reward_finding
from plaudit.evaluate.systems import read_systems
from plaudit.evaluate.values import Values
from tests.browser import chromium
from tests.evaluate.report_example import CAPTIONS, RATE, changed, clip, example, values


class Page(HTMLParser):
    """A parsed page: its references, elements, text and numeric cells."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.references: list[str] = []
        self.files: dict[str, str] = {}
        self.elements: list[str] = []
        self.attributes: list[str] = []
        self.cells: dict[tuple[str, str], str] = {}
        self.text = ""
        self._cell: tuple[str, str] | None = None
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.elements.append(tag)
        self.attributes += values
        self.references += [v for k, v in attrs if k in ("src", "href", "srcset", "poster", "action", "data") and v]
        if values.get("download"):
            self.files[values["download"] or ""] = values["href"] or ""
        if "data-metric" in values:
            self._cell = (values["data-stage"] or "", values["data-metric"] or "")
            self.cells[self._cell] = ""

    def handle_endtag(self, tag: str) -> None:
        if tag == "td":
            self._cell = None

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._cell:
            self.cells[self._cell] += data

    @property
    def beside(self) -> list[str]:
        """What the page does not hold itself."""
        return [reference for reference in self.references if not reference.startswith(("data:", "#"))]


def held(page: Page, name: str) -> str:
    """A file that the page holds for downloading."""
    address = page.files[name]
    return base64.b64decode(address.split("base64,", 1)[1]).decode()


def plain(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ReportData:
    return example(tmp_path_factory.mktemp("clips"), players=2)


@pytest.fixture(scope="module")
def report(data: ReportData, tmp_path_factory: pytest.TempPathFactory) -> Path:
    index = write_report(data, tmp_path_factory.mktemp("run") / "report")
    assert index.name == "index.html"
    return index.parent


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "index.html").read_text())


def test_files_referenced_by_the_page_exist(report: Path, page: Page) -> None:
    assert len(page.beside) > 20
    for reference in page.beside:
        assert not re.match(r"[a-z]+:|/", reference), f"{reference} is not relative"
        assert (report / reference).is_file(), f"{reference} is missing"
    text = (report / "index.html").read_text()
    assert not re.search(r"url\((?!#)|@import", text)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= set(ids)


def test_the_folder_has_no_other_files(report: Path, page: Page) -> None:
    files = {str(path.relative_to(report)) for path in report.rglob("*") if path.is_file()}
    assert files - {"index.html", ".written.json"} == set(page.beside)
    assert [path.name for path in report.parent.iterdir()] == ["report"]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_page_replaces_only_an_earlier_page(tmp_path: Path) -> None:
    folder = tmp_path / "report"

    def write(**files: str) -> None:
        with replaced_page(folder) as draft:
            for name, text in files.items():
                place = draft / name.replace("__", "/")
                place.parent.mkdir(exist_ok=True)
                place.write_text(text)

    write(index="1", audio__a="1", audio__b="1", table="1")
    (folder / "notes").write_text("mine")
    write(index="2", audio__b="2", chart="2", table__inner="2")
    kept = {"index": b"2", "audio/b": b"2", "chart": b"2", "table/inner": b"2", "notes": b"mine"}
    assert {name: data for name, data in contents(folder).items() if name != ".written.json"} == kept
    before = contents(folder)
    with pytest.raises(EvaluationError, match=r"notes was not written by plaudit; move it away"):
        write(index="3", notes="3")
    with pytest.raises(ZeroDivisionError), replaced_page(folder) as draft:
        (draft / "index").write_text(str(1 / 0))
    assert contents(folder) == before
    (folder / ".written.json").unlink()
    with pytest.raises(EvaluationError, match="no report of plaudit"):
        write(index="3")
    assert contents(folder).items() < before.items()
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_in_a_browser_everything_loads_and_fits(report: Path, page: Page, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        for width, dark in ((1280, False), (1280, True), (390, False)):
            seen = browser.open(report / "index.html", width, dark=dark)
            seen.assert_sound()
            assert (seen.audio, seen.images) == (page.elements.count("audio"), page.elements.count("img"))


def test_captions_are_escaped(page: Page) -> None:
    for caption in CAPTIONS[:2]:
        assert plain(caption) in plain(page.text)
    assert page.elements.count("script") == 1  # the page's own
    assert not [name for name in page.attributes if name.startswith("on")]
    assert "# <b>bold</b>" in page.text  # of the recipe


def test_the_table_on_the_page_states_the_results(report: Path, page: Page) -> None:
    results = json.loads((report / "report.json").read_text())
    for stage in results["stages"]:
        for metric in ("reward", "clap", "concepts", "frechet", "utility"):
            value = stage["means"][metric]
            expected = f"{number(value['mean'])}[{number(value['low'])}, {number(value['high'])}]"
            assert page.cells[stage["key"], metric] == expected
        for metric in ("wins_previous", "wins_baseline"):
            shown = page.cells[stage["key"], metric]
            assert shown.startswith(percent(stage[metric]["mean"]) if stage[metric] else "\N{EN DASH}")
    table = (report / "table.md").read_text()
    assert all(number(stage["means"]["reward"]["mean"]) in table for stage in results["stages"])


def test_results_are_those_of_the_clips(report: Path, data: ReportData) -> None:
    results = json.loads((report / "report.json").read_text())
    for row, stage in zip(results["stages"], data.stages, strict=True):
        assert row["means"]["reward"]["mean"] == pytest.approx(stage.values.clip("reward").mean())
        assert row["means"]["frechet"]["mean"] == stage.values.set("frechet").value
    gains = [c for c in results["stages"][1]["changes"] if c["metric"] == "reward"]
    assert gains[0]["difference"]["mean"] == pytest.approx(
        (data.stages[1].values.clip("reward") - data.stages[0].values.clip("reward")).mean()
    )
    assert results["tests"] == 16  # four stages after the first, four paired metrics
    assert gains[0]["p_holm"] >= gains[0]["p"]
    assert results["sweeps"][0]["reward_correlation"]["mean"] == pytest.approx(1.0)
    assert results["run"]["peak_memory"] == 3_120_000_000


def test_a_stage_is_compared_with_the_one_it_started_from(data: ReportData) -> None:
    stages = [
        replace(stage, previous="baseline") if stage.key == data.stages[3].key else stage for stage in data.stages
    ]
    results = summarize(replace(data, stages=stages))
    fourth, [before, _, _, now] = results.stages[3], [stage.values for stage in stages[:4]]
    change = next(change for change in fourth.changes if change.metric == "reward")
    assert change.difference.mean == pytest.approx(float(np.mean(now.clip("reward") - before.clip("reward"))))
    assert [row.previous for row in results.stages] == [None, "baseline", stages[1].key, "baseline", stages[3].key]
    assert f"{fourth.title}, from Baseline" in markdown_table(results)
    assert change_rows(results)[-1]["previous"] == stages[3].key


def test_the_long_table_has_every_value(report: Path, data: ReportData) -> None:
    table = Values.read(report)
    assert table.systems == [stage.key for stage in data.stages]
    for stage in data.stages:
        np.testing.assert_array_equal(table.select(system=stage.key).clip("reward"), stage.values.clip("reward"))
        assert table.select(system=stage.key).set("frechet") == stage.values.set("frechet")


def test_facts_of_the_run_the_corpus_and_the_reward_are_on_the_page(page: Page) -> None:
    text = plain(page.text)
    for fact in ("15 min", "3.1 GB", "2.12.0+cpu", "x86_64", "2 more were skipped", "out of time"):
        assert fact in text
    for fact in ("74.1 % [72.1 %, 76.0 %]", "1830 held-out votes", "3.1 points", "77.2 %", "0.021"):
        assert fact in text


def test_charts_have_page_colours_and_downloads(report: Path, page: Page) -> None:
    text = (report / "index.html").read_text()
    drawn = text[text.index("<main>") :]
    assert not [colour for colour in (*LIGHT.colours, *DARK.colours) if colour in re.sub(r'"data:[^"]*"', "", drawn)]
    charts = [name for name in page.files if name.endswith(".svg")]
    assert len(charts) == drawn.count('role="img"')
    for name in charts:
        svg = held(page, name)
        assert svg.startswith("<?xml") and LIGHT.card in svg and 'href="http' not in svg
        dark = darkened(svg)
        assert LIGHT.card not in dark and DARK.card in dark
    assert {f"changes-{key}.svg" for key in ("reward", "clap", "concepts", "frechet", "utility")} <= set(charts)


def test_tables_download_as_csv(report: Path, page: Page, data: ReportData) -> None:
    results = json.loads((report / "report.json").read_text())
    tables = {name: list(csv.DictReader(held(page, name).splitlines())) for name in page.files if name.endswith("csv")}
    assert set(tables) == {f"{n}.csv" for n in ("stages", "changes", "sweeps", "reliability", "corpus", "run")}
    values = {(row["stage"], row["metric"]): float(row["value"]) for row in tables["stages.csv"] if row["value"]}
    changed = {(row["stage"], row["metric"]): row for row in tables["changes.csv"]}
    for stage in results["stages"]:
        assert values[stage["key"], "reward"] == stage["means"]["reward"]["mean"]
        assert values[stage["key"], "kernel"] == stage["sets"][0]["value"]
        for change in stage["changes"]:
            row = changed[stage["key"], change["metric"]]
            assert float(row["low"]) == change["difference"]["low"]
            assert row["hedges_g"] == ("" if change["effect"] is None else str(change["effect"]["g"]))
    with (report / "clips.csv").open(newline="") as file:
        clips = {(row["system"], row["id"]): row for row in csv.DictReader(file)}
    assert float(clips["sft", "0003"]["reward"]) == data.stages[1].values.clip("reward")[3]
    assert clips["sft", "0005"]["concepts"] == ""  # a prompt that names none
    points = {(row["model"], row["score"]) for row in tables["sweeps.csv"] if row["metric"] == "reward"}
    assert len(points) == sum(len(sweep.scores) for sweep in data.sweeps)


def test_the_comparison_of_systems_reads_the_clips_and_finds_their_files(data: ReportData, tmp_path: Path) -> None:
    stages = [replace(stage, clips=tmp_path / "run" / f"clips-{stage.key}") for stage in data.stages[:2]]
    for stage in stages:
        write_wav(tmp_path / "run" / f"clips-{stage.key}" / "0003.wav", clip(3, 0.2), RATE)
    index = write_report(ReportData(run=data.run, stages=stages), tmp_path / "run" / "report")
    (tmp_path / "run").rename(tmp_path / "moved")
    pairing = pair(read_systems([tmp_path / "moved" / "report" / "clips.csv"]))
    assert pairing.systems == ["baseline", "sft"] and len(pairing.prompts) == 24
    file = pairing.prompts[3].clips["sft"][0].file
    assert file is not None and file.resolve() == tmp_path.resolve() / "moved" / "clips-sft" / "0003.wav"
    assert 'href="clips.csv"' in (tmp_path / "moved" / "report" / index.name).read_text()


def recommended(data: ReportData, stages: list[StageResult]) -> Recommendation:
    found = recommend(with_stages := replace(data, stages=stages), summarize(with_stages))
    assert found is not None
    return found


def test_the_stage_of_the_highest_truth_is_recommended_with_commands(page: Page, data: ReportData) -> None:
    text = plain(page.text)
    means = {stage.key: stage.values.clip("utility").mean() for stage in data.stages}
    best = max(means, key=means.__getitem__)
    use = recommended(data, data.stages)
    assert use.key == best and use.title in text and use.reason in text
    command = f"plaudit generate 'slow sad piano in a minor key' --model '/my runs/demo/{best}' -o clips"
    assert command == use.command and command in text
    assert "plaudit compare '/my runs/demo' OTHER-RUN" in text and f"backbone.start_from=/my runs/demo/{best}'" in text
    assert page.text.count("recommended") == len(data.samples)  # one player of each prompt
    assert "true utility" in use.reason and "Baseline" in use.reason


def test_an_insignificant_lead_is_stated_and_the_baseline_has_no_conditioning_score(data: ReportData) -> None:
    rng = np.random.default_rng(1)
    utilities = {"baseline": 0.0, "sft": 0.0, "expert": -9.0, "cross": -9.0, "crpo": 9.0}
    stages = []
    for stage in data.stages:
        utility = utilities[stage.key] + rng.normal(0.0, 1.0, 24)
        utility += {"baseline": 0.05, "sft": 0.0}.get(stage.key, 0.0) - utility.mean() + utilities[stage.key]
        stages.append(replace(stage, values=changed(stage.values, utility=utility)))
    stages[-1] = replace(stages[-1], model=None)  # post-processed clips
    use = recommended(data, stages)
    assert use.key == "baseline" and "--set sampling.score=null" in use.command
    assert "SFT is +0.050" in use.reason and "not significant" in use.reason


def test_without_true_utility_a_stage_where_a_metric_regressed_is_passed_over(data: ReportData) -> None:
    rng = np.random.default_rng(2)

    def stage(place: int, reward: float, clap: float) -> StageResult:
        level = np.linspace(-1, 1, 24)
        columns = {"reward": reward + level + rng.normal(0, 0.1, 24), "clap": clap + rng.normal(0, 0.02, 24)}
        of_stage = data.stages[place]
        return replace(of_stage, values=changed(of_stage.values, utility=None, concepts=None, **columns))

    stages = [stage(0, 0.0, 0.3), stage(1, 0.5, 0.3), stage(2, 2.0, 0.1)]
    use = recommended(data, stages)
    assert use.key == "sft" and "Expert iteration" in use.reason and "CLAP score" in use.reason
    assert recommended(data, [stages[0], stages[2]]).key == "baseline"
    assert recommended(data, [replace(stages[0], model=None), stages[2]]).key == "expert"  # nothing else is left


def test_listening_and_use_come_first_and_everything_can_be_reached(report: Path, page: Page, tmp_path: Path) -> None:
    text = (report / "index.html").read_text()
    order = re.findall(r'<h2 id="([a-z]+)"', text)
    assert order[:3] == ["use", "listen", "stages"]
    assert [reference for reference in page.references if reference.startswith("#")] == [f"#{key}" for key in order]
    assert "genre house" in plain(page.text) and "true utility" in plain(page.text)
    fractions = [float(fraction) for fraction in re.findall(r'style="--fraction: ([0-9.]+)"', text)]
    assert fractions == [0.11, 0.09, 0.1, 0.08, 0.1]
    with chromium(tmp_path / "profile") as browser:
        browser.open(report / "index.html", 1280, 800)
        bottom = browser.evaluate("document.querySelector('audio').getBoundingClientRect().bottom")
        bars = "[...document.querySelectorAll('.track span')].map(e => e.offsetWidth / e.parentElement.offsetWidth)"
        widths = browser.evaluate(bars)
        assert 0 < bottom < 800
        assert widths == pytest.approx(fractions, abs=0.01)


def test_more_prompts_than_a_screen_holds_are_folded_away(data: ReportData, tmp_path: Path) -> None:
    many = replace(data, samples=[*data.samples, *data.samples, data.samples[0]])
    html = write_report(many, tmp_path / "report").read_text()
    assert html.count("<article") == 5
    assert html.index('<details class="more">') > [m.start() for m in re.finditer("<article", html)][2]


def test_a_reward_at_chance_is_called_one(data: ReportData) -> None:
    assert data.reward is not None
    weak = replace(data, reward=replace(data.reward, accuracy_low=0.49))
    assert "chance" in reward_finding(summarize(weak))
    assert "chance" not in reward_finding(summarize(data))


def test_effects_and_concepts_are_over_the_clips_that_have_them(report: Path, data: ReportData) -> None:
    results = json.loads((report / "report.json").read_text())
    changes = {change["metric"]: change for change in results["stages"][1]["changes"]}
    now, before = (data.stages[place].values.clip("concepts") for place in (1, 0))
    gaps = (now - before)[~np.isnan(now)]
    assert changes["concepts"]["prompts"] == len(gaps) == 20 and changes["reward"]["prompts"] == 24
    assert changes["concepts"]["difference"]["mean"] == pytest.approx(gaps.mean())
    assert changes["concepts"]["effect"]["d"] == pytest.approx(gaps.mean() / gaps.std(ddof=1))
    assert changes["frechet"]["effect"] is None and changes["frechet"]["p"] is None


def test_in_a_browser_everything_loads_fits_and_prints(report: Path, tmp_path: Path) -> None:
    with chromium(tmp_path / "profile") as browser:
        for width, dark in ((1280, False), (1280, True), (390, False)):
            seen = browser.open(report / "index.html", width, dark=dark)
            seen.assert_sound()
            assert seen.audio == 10 and seen.images == 10
        drawn = "getComputedStyle(document.querySelector('.chart svg path')).fill"
        browser.open(report / "index.html", dark=True)
        assert browser.evaluate(drawn) == _rgb(DARK.card)
        browser.call("Emulation.setEmulatedMedia", media="print", features=[])
        assert browser.evaluate(drawn) == _rgb(LIGHT.card)  # on paper, whatever the screen is
        assert browser.evaluate("getComputedStyle(document.querySelector('audio')).display") == "none"


def _rgb(colour: str) -> str:
    return "rgb({}, {}, {})".format(*(int(colour[i : i + 2], 16) for i in (1, 3, 5)))


def test_the_same_data_make_the_same_report(report: Path, data: ReportData, tmp_path: Path) -> None:
    again = write_report(data, tmp_path / "report").parent
    for path in report.rglob("*.*"):
        assert (again / path.relative_to(report)).read_bytes() == path.read_bytes(), path.name


def test_divergence_from_the_reward_is_stated_and_drawn(report: Path, page: Page) -> None:
    results, text = json.loads((report / "report.json").read_text()), plain(page.text)
    assert results["regression_finding"] in text and results["regression_finding"] in (report / "table.md").read_text()
    assert not any(stage["regressions_under_reward"] for stage in results["stages"])
    divergence = results["best_of_n"]["divergences"]["clap"]
    assert results["best_of_n"]["counts"] == [1, 2, 4, 8, 16, 32, 64]
    assert divergence["end"] == 6 and 0 < divergence["place"] < 6
    assert f"Reward and CLAP score diverge from best of {2 ** divergence['place']}" in text
    ring = "<!-- divergence -->"
    assert ring in held(page, "best-of-n-clap.svg") and ring not in held(page, "reward-clap.svg")


def test_a_stage_where_a_metric_regresses_under_reward_is_flagged(data: ReportData, tmp_path: Path) -> None:
    first = data.stages[0]
    noise = 0.01 * np.random.default_rng(0).normal(size=len(first.values.clips))
    columns = {"reward": first.values.clip("reward") + 1 + noise, "clap": first.values.clip("clap") - 0.1 + noise}
    gamed = changed(first.values, **columns)
    stages = [first, replace(data.stages[1], values=gamed)]
    index = write_report(ReportData(run=data.run, stages=stages), tmp_path / "report")
    results = json.loads((index.parent / "report.json").read_text())
    assert results["stages"][1]["regressions_under_reward"] == ["clap"]
    assert "SFT raised reward while CLAP score got worse" in results["regression_finding"]
    page = plain(Page(index.read_text()).text)
    assert results["regression_finding"] in page and "regressed: CLAP score" in page
    assert "SFT (regressed: CLAP score)" in (index.parent / "table.md").read_text()


def test_a_run_without_utility_votes_sweep_or_clips_has_a_report(data: ReportData, tmp_path: Path) -> None:
    stage = replace(data.stages[0], title="only <i>one</i> $x$", values=values(np.random.default_rng(0), 5, 0.0, False))
    index = write_report(ReportData(run=data.run, stages=[stage]), tmp_path / "report")
    page = Page(index.read_text())
    assert "only <i>one</i> $x$" in plain(page.text)
    assert {metric for _, metric in page.cells} == {"reward", "clap", "frechet", "wins_previous", "wins_baseline"}
    assert "audio" not in page.elements and not [name for name in page.files if name.startswith(("sweep", "curve"))]
    assert "utility" not in json.loads((tmp_path / "report" / "report.json").read_text())["stages"][0]["means"]


def test_a_sweep_that_cannot_be_evaluated_is_explained(data: ReportData, tmp_path: Path) -> None:
    silent = Sweep("CRPO", [0.0], [data.stages[0].values], {1.5: "clip 3 is silent"})
    index = write_report(ReportData(run=data.run, stages=data.stages[:1], sweeps=[silent]), tmp_path / "report")
    assert "score 1.5: clip 3 is silent" in plain(Page(index.read_text()).text)


def test_without_true_utility_wins_are_by_reward(data: ReportData, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    stages = [replace(stage, values=values(rng, 8, lift, False)) for lift, stage in enumerate(data.stages[:2])]
    index = write_report(ReportData(run=data.run, stages=stages), tmp_path / "report")
    assert json.loads((index.parent / "report.json").read_text())["wins_by"] == "reward"
    assert "not independent evidence" in plain(Page(index.read_text()).text)


def test_a_silent_clip_is_played_but_not_drawn(data: ReportData, tmp_path: Path) -> None:
    silent = tmp_path / "silent.wav"
    write_wav(silent, np.zeros(RATE, dtype=np.float32), RATE)
    data = ReportData(run=data.run, stages=data.stages[:1], samples=[Sample(1, {"baseline": silent})])
    page = Page(write_report(data, tmp_path / "report").read_text())
    assert "This clip is silent or cannot be read." in page.text
    assert "audio/01-baseline.wav" in page.references


def test_a_report_that_fails_leaves_the_one_before(data: ReportData, tmp_path: Path) -> None:
    before = write_report(ReportData(run=data.run, stages=data.stages[:1]), tmp_path / "report").read_bytes()
    gone = ReportData(run=data.run, stages=data.stages, samples=[Sample(0, {"sft": tmp_path / "gone.wav"})])
    with pytest.raises(RunError, match=r"gone\.wav is gone.*generate the clips of SFT again"):
        write_report(gone, tmp_path / "report")
    assert (tmp_path / "report" / "index.html").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["report"]


def test_stages_of_other_prompts_do_not_compare(data: ReportData, tmp_path: Path) -> None:
    other = replace(data.stages[1], values=values(np.random.default_rng(0), 9, 0.0))
    with pytest.raises(RunError, match="SFT was evaluated on other prompts"):
        write_report(ReportData(run=data.run, stages=[data.stages[0], other]), tmp_path / "report")
    with pytest.raises(RunError, match="at least one"):
        write_report(ReportData(run=data.run, stages=[]), tmp_path / "report")


def test_curves_survive_kills_and_continuations(tmp_path: Path) -> None:
    metrics = tmp_path / "metrics.jsonl"
    rows = [{"step": 1, "loss": 3.0}, {"step": 2, "loss": 9.0}, {"step": 2, "loss": 2.0, "accuracy": 0.5}]
    metrics.write_text("\n".join(map(json.dumps, rows)) + '\n{"step": 3, "lo')
    loss, accuracy = read_curves(metrics, "SFT", ("loss", "accuracy", "absent"))
    assert (loss.steps, loss.values) == ([1, 2], [3.0, 2.0])
    assert (accuracy.quantity, accuracy.steps, accuracy.values) == ("accuracy", [2], [0.5])
    metrics.write_text('not a row\n{"step": 1, "loss": 1.0}\n')
    with pytest.raises(RunError, match="line 1 is not a row"):
        read_curves(metrics, "SFT")


def test_a_running_mean_of_known_data() -> None:
    np.testing.assert_allclose(running_mean(np.array([1.0, 3.0, 5.0, 7.0]), 2), [1.0, 2.0, 4.0, 6.0])


def test_names_of_points_that_lie_close_keep_apart() -> None:
    figure = Figure(figsize=(4.9, 3.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    points = [(0.0, 0.0), (0.05, 0.02), (0.1, 0.0), (0.5, 1.0), (0.52, 1.0)]
    axes.plot(*zip(*points, strict=True), "o")
    axes.margins(0.12)
    name_points(axes, points, ["SFT", "Expert iteration", "CRPO", "divergence", "Cross-load"], ["#000000"] * 5)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 5
    assert not [(a, b) for a, b in itertools.combinations(boxes, 2) if a.overlaps(b)]
    whole = axes.get_window_extent()
    assert all(whole.x0 - 10 <= box.x0 and box.x1 <= whole.x1 + 10 for box in boxes)


def test_both_concept_coverages_are_said_not_to_compare(report: Path) -> None:
    assert "do not compare" in (report / "index.html").read_text()
