"""The report of a test: a folder with a page, all numbers, all answers and the clips, which opens from disk."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from plaudit.evaluate.pages.charts import Chart, ForestRow, chart, forest, forest_size
from plaudit.evaluate.pages.html import rendered, replaced_page
from plaudit.evaluate.pages.text import EMPTY, duration, number, percent, span
from plaudit.statistics import Interval
from plaudit.studio.database import Clip, Prompt, Stimulus, System, Test, by_id
from plaudit.studio.jobs import JobContext, job
from plaudit.studio.listening.administration import assembled, info, report_archive
from plaudit.studio.listening.exports import rating_table, vote_lines, vote_table
from plaudit.studio.listening.results import compute
from plaudit.studio.listening.schemas import (
    ComparisonState,
    PreferenceResults,
    RatingResults,
    Span,
    TestInfo,
    TestResults,
    TestSettings,
)
from plaudit.writing import write_atomically

VERDICTS = {"first": "first is better", "second": "second is better", "equivalent": "equivalent", "open": "undecided"}


@dataclass(frozen=True)
class Player:
    """A clip on the page."""

    system: str
    colour: int
    audio: str


@dataclass(frozen=True)
class PromptPlayers:
    """The clips of a prompt."""

    prompt: str
    players: list[Player]


@job("test-report")
def write_test_report(context: JobContext, request: dict[str, Any]) -> dict[str, Any]:
    """Write the report of a test, and its zip."""
    layout = context.settings.layout
    with context.database.reading() as session:
        test = by_id(session, Test, request["test"])
        results = assembled(session, test, compute(session, test))
        shown = info(session, test, layout.root)
        excluded = {**results.exclusions, **results.screened_out}
        rating = test.kind == "rating"
        answers = (rating_table if rating else vote_table)(session, test, excluded)
        votes = "" if rating else vote_lines(session, test, excluded)
        clips = _clips(session, test.id)
    folder = layout.tests / test.id / "report"
    with replaced_page(folder) as draft:
        (draft / "audio").mkdir()
        for clip, _, _ in clips:
            if (layout.root / clip.path).is_file():
                shutil.copyfile(layout.root / clip.path, draft / "audio" / f"{clip.id}.wav")
        write_atomically(draft / "results.json", results.model_dump_json(indent=1))
        write_atomically(draft / "answers.csv", answers)
        if votes:
            write_atomically(draft / "votes.jsonl", votes)
        prompts = _players(clips, [system.name for system in shown.systems], draft)
        write_atomically(draft / "index.html", page_of(shown, results, prompts))
    archive = report_archive(context.settings, test.id)
    packed = shutil.make_archive(str(archive.with_suffix(".partial")), "zip", folder.parent, folder.name)
    Path(packed).replace(archive)
    return {"test": test.id, "download": f"/api/v1/tests/{test.id}/export?format=report"}


def _clips(session: Session, test_id: str) -> list[tuple[Clip, str, str]]:
    """The clips of a test with their systems' names and prompts."""
    query = (
        select(Clip, System.name, Prompt.text)
        .join(Stimulus, Stimulus.clip_id == Clip.id)
        .join(System, System.id == Stimulus.system_id)
        .join(Prompt, Prompt.id == Stimulus.prompt_id)
        .where(Stimulus.test_id == test_id)
        .order_by(Stimulus.sequence)
    )
    return [(clip, system, prompt) for clip, system, prompt in session.execute(query)]


def _players(clips: Sequence[tuple[Clip, str, str]], systems: Sequence[str], folder: Path) -> list[PromptPlayers]:
    prompts: dict[str, list[Player]] = {}
    for clip, system, prompt in clips:
        address = f"audio/{clip.id}.wav"
        if system in systems and (folder / address).is_file():
            prompts.setdefault(prompt, []).append(Player(system, systems.index(system), address))
    return [PromptPlayers(prompt, players) for prompt, players in prompts.items()]


# The page


def page_of(test: TestInfo, results: TestResults, prompts: Sequence[PromptPlayers]) -> str:
    """The page of a test."""
    preference, rating = results.preference, results.rating
    findings = preference_findings(preference) if preference else rating_findings(rating)
    return rendered(
        "listening.html",
        test=test,
        results=results,
        settings=test.settings,
        preference=preference,
        rating=rating,
        findings=findings,
        comparisons=_comparisons(preference) if preference else [],
        charts=_charts(results, test.settings),
        reliability=reliability(results),
        method=method(test, results),
        rules=rules_sentence(test, results),
        listeners=_listeners(results),
        prompts=prompts,
        percent_range=percents,
        finite_span=finite_span,
    )


def preference_findings(results: PreferenceResults) -> list[str]:
    """The state of each comparison in words."""
    return [_finding(state) for state in results.decisions]


def _finding(state: ComparisonState) -> str:
    rate = f"{percent(state.rate.mean)} {percents(state.rate)}"
    counts = f"{state.votes} votes of {state.listeners} listeners"
    if state.verdict in ("first", "second"):
        better, worse = (state.first, state.second) if state.verdict == "first" else (state.second, state.first)
        return f"{better} is preferred to {worse}: {state.first} wins {rate} of {counts}."
    if state.verdict == "equivalent":
        return f"{state.first} and {state.second} are equivalent: {state.first} wins {rate} of {counts}."
    needed = "no sensible number of votes would decide"
    if state.needed is not None:
        needed = f"about {state.needed} more decide it"
    if not state.votes:
        return f"{state.first} against {state.second}: no votes yet."
    return f"{state.first} against {state.second} is undecided: {state.first} wins {rate} of {counts}; {needed}."


def rating_findings(results: RatingResults | None) -> list[str]:
    """The differences whose interval excludes zero, in words."""
    assert results is not None  # a test is of one of the two kinds
    lines = []
    for row in results.differences:
        low, high = row.difference.low, row.difference.high
        if low is None or high is None or low <= 0 <= high:
            continue
        better, worse = (row.second, row.first) if low > 0 else (row.first, row.second)
        lines.append(f"{better} is rated above {worse}, by {number(abs(row.difference.mean), 1)} points.")
    return lines or ["No difference of two systems has an interval that excludes zero."]


def _comparisons(results: PreferenceResults) -> list[dict[str, Any]]:
    """Win rates with the decisions about them, as the table shows them."""
    rates = {(row.first, row.second): (row, False) for row in results.win_rates}
    rates |= {(row.second, row.first): (row, True) for row in results.win_rates}
    rows = []
    for state in results.decisions:
        row, turned = rates.get((state.first, state.second), (None, False))
        wins, losses = (0, 0) if row is None else (row.losses, row.wins) if turned else (row.wins, row.losses)
        rate = None if row is None else row.rate
        if rate is not None and turned:
            rate = Span(mean=1 - rate.mean, low=_turned(rate.high), high=_turned(rate.low))
        rows.append(
            {
                "first": state.first,
                "second": state.second,
                "rate": rate,
                "wins": wins,
                "losses": losses,
                "ties": 0 if row is None else row.ties,
                "both_bad": 0 if row is None else row.both_bad,
                "decision": state.rate,
                "verdict": VERDICTS[state.verdict],
                "needed": state.needed,
            }
        )
    return rows


def _turned(value: float | None) -> float | None:
    return None if value is None else 1 - value


def _charts(results: TestResults, settings: TestSettings) -> list[Chart]:
    charts = []
    if results.preference is not None:
        states = [state for state in results.preference.decisions if state.votes]
        if states:
            rows = [
                ForestRow(f"{s.first}\nover {s.second}", _gap(s.rate), 1 + i % 5, s.verdict in ("first", "second"))
                for i, s in enumerate(states)
            ]
            title = "Win rate minus one half, valid at every look"
            draw, alt = forest(rows, settings.margin), f"{title}; the numbers are in the table."
            charts.append(chart(draw, "win-rates", title, alt, forest_size(len(rows))))
        strengths = [(row.system, _interval(row.strength)) for row in results.preference.board.strengths]
        known = [(name, interval) for name, interval in strengths if interval is not None]
        if known:
            rows = [ForestRow(name, interval, 1 + i % 5) for i, (name, interval) in enumerate(known)]
            alt = "Bradley-Terry strengths with 95 % intervals; the numbers are in the table."
            size = forest_size(len(rows))
            charts.append(chart(forest(rows), "strengths", "Bradley-Terry strength", alt, size))
    if results.rating is not None:
        differences = [(row, _interval(row.difference)) for row in results.rating.differences]
        rows = [
            ForestRow(f"{row.second}\n\N{MINUS SIGN} {row.first}", interval, 1 + i % 5, interval.excludes_zero)
            for i, (row, interval) in enumerate(differences)
            if interval is not None
        ]
        if rows:
            alt = "Differences of mean ratings with 95 % intervals; the numbers are in the table."
            size = forest_size(len(rows))
            charts.append(chart(forest(rows), "differences", "Difference of mean ratings", alt, size))
    return charts


def _gap(rate: Span) -> Interval:
    low, high = (0.0 if rate.low is None else rate.low), (1.0 if rate.high is None else rate.high)
    return Interval(rate.mean - 0.5, low - 0.5, high - 0.5)


def _interval(value: Span) -> Interval | None:
    return None if value.low is None or value.high is None else Interval(value.mean, value.low, value.high)


def percents(value: Span) -> str:
    """The ends of an interval of a fraction; an unknown end is a question mark."""
    low, high = (percent(end) if end is not None else "?" for end in (value.low, value.high))
    return f"[{low}, {high}]"


def reliability(results: TestResults) -> list[str]:
    """Agreement, consistency and the reward, in words."""
    rating = results.rating
    if rating is not None:
        return [f"Krippendorff's alpha of the ratings is {_number(rating.alpha)}."]
    figures = results.preference
    assert figures is not None
    lines = [f"Krippendorff's alpha is {_number(figures.agreement.alpha)}, over {figures.agreement.pairs} pairs."]
    if figures.agreement.agreeing is not None:
        agreeing = figures.agreement.agreeing
        lines.append(f"Two listeners agree about a pair {percent(agreeing.mean)} {percents(agreeing)} of the time.")
    if figures.repeats is not None:
        same = f"{percent(figures.repeats.mean)} {percents(figures.repeats)}"
        lines.append(f"Hidden repeats were answered the same {same} of the time.")
    if figures.intransitivity.triads:
        rate = figures.intransitivity.rate or 0.0
        triads = f"{figures.intransitivity.triads} triads"
        lines.append(f"Of {triads} {percent(rate)} are circular; by chance 25 % would be.")
    if figures.reward is not None and figures.reward.accuracy is not None:
        accuracy = f"{percent(figures.reward.accuracy.mean)} {percents(figures.reward.accuracy)}"
        lines.append(f"The reward prefers the clip that listeners do in {accuracy} of {figures.reward.votes} votes.")
    for row in figures.without_exclusion:
        if row.rate is not None:
            kept = f"{percent(row.rate.mean)} {percents(row.rate)}"
            lines.append(f"With the listeners who are left out, {row.first} would win {kept} against {row.second}.")
    return lines


def method(test: TestInfo, results: TestResults) -> list[str]:
    """How the test was carried out, as a paper would say it."""
    settings = test.settings
    what = "pages" if test.kind == "rating" else "pairs"
    chosen = "those that fewest others had been given, in random order"
    if settings.pairing == "active":
        chosen = (
            "each chosen when its turn came: of the two systems whose comparison was expected to tell most about the "
            "ranking after the votes so far, or, one time in twenty, of any two"
        )
    lines = [
        f"Each listener was given up to {settings.pairs_per_listener} of {test.pairs} {what}, {chosen}. "
        "All clips of a prompt were cut to one length, and brought to "
        f"{settings.loudness:g} LUFS (BS.1770-4) by a gain."
    ]
    if test.kind == "rating":
        reference = f"the hidden reference ({settings.reference}), " if settings.reference else ""
        lines.append(f"A page had the clips of all systems, {reference}and an anchor low-passed at 3.5 kHz, shuffled.")
    else:
        lines.append(
            "Systems were not named. Which clip was on the left was balanced over listeners and randomized. "
            f"Among the pairs were {settings.repeats} hidden repeats on exchanged sides and {settings.obvious} "
            "attention checks, a clip against a degraded version of itself; "
            f"{settings.practice} practice pairs came first."
        )
    lines.append(f"At least {settings.minimum_listening:g} s of each clip had to be played before an answer was taken.")
    if settings.screening != "none":
        name = {"huggins": "Huggins pitch (Milne et al., 2021)", "antiphase": "antiphase tones (Woods et al., 2017)"}
        kind, out = name[settings.screening], len(results.screened_out)
        lines.append(f"Headphones were screened for with six trials of {kind}; {out} listeners failed.")
    if results.registered is not None:
        lines.append(
            f"Settings, texts and exclusion rules were fixed at {results.registered.at}, before the first answer "
            f"(SHA-256 {results.registered.digest}). Results were looked at {results.number_of_looks} times."
        )
    return lines


def rules_sentence(test: TestInfo, results: TestResults) -> str:
    """The exclusion rules, which were set beforehand, and how many listeners they left out."""
    if test.kind == "rating":
        rule = (
            "gave the hidden reference less than 90" if test.settings.reference else "gave the anchor the highest value"
        )
        rules = [f"{rule} on more than 15 % of the pages"]
    else:
        given = results.rules.model_dump(exclude_none=True)
        rules = [f"{name.replace('_', ' ')} {value:g}" for name, value in given.items()]
    left_out = f"{len(results.exclusions)} of {results.listeners} listeners"
    stated = "; ".join(rules) if rules else "none"
    return f"Exclusion rules, set before the test: {stated}. They leave out {left_out}."


def _listeners(results: TestResults) -> list[dict[str, str]]:
    """Rows of the table of listeners, who have numbers here."""
    excluded = {**results.exclusions, **results.screened_out}
    rows: list[dict[str, str]] = []
    if results.preference is not None:
        for place, one in enumerate(results.preference.listeners, start=1):
            rows.append(
                {
                    "name": str(place),
                    "answers": str(one.answers),
                    "seconds": _seconds(one.seconds),
                    "listened": _seconds(one.listened),
                    "obvious": f"{one.obvious[0]} of {one.obvious[1]}",
                    "repeats": f"{one.repeats[0]} of {one.repeats[1]}",
                    "left": EMPTY if one.left is None else percent(one.left),
                    "excluded": "; ".join(excluded.get(one.listener, [])),
                }
            )
    if results.rating is not None:
        for place, (listener, pages) in enumerate(results.rating.listeners.items(), start=1):
            reasons = "; ".join(excluded.get(listener, []))
            rows.append({"name": str(place), "answers": str(pages), "excluded": reasons})
    return rows


def _seconds(value: float | None) -> str:
    return EMPTY if value is None else duration(value)


def _number(value: float | None) -> str:
    return "not defined" if value is None else number(value, 2)


def finite_span(value: Span) -> str:
    """The ends of an interval; "unknown" where there are none."""
    interval = _interval(value)
    return "unknown" if interval is None else span(interval, 2)
