"""Results while a test runs, and its exports, from votes that simulated listeners give through the API."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from plaudit.studio.listening.live_results import LiveResults
from plaudit.studio.listening.records import votes_of
from plaudit.studio.listening.report import rating_findings
from plaudit.studio.listening.schemas import RatingResults
from tests.studio.conftest import Opened, done
from tests.studio.listening.conftest import SYSTEMS, Participant, Party

Open = Callable[..., Party]


def side_of(test: Party, assignment: str) -> dict[str, str]:
    """Which system is on the left and on the right of an assignment: what a simulated listener knows."""
    from sqlalchemy import select

    from plaudit.studio.database import Assignment, Stimulus, System
    from plaudit.studio.listening.audio import clips_of, content_of

    with test.studio.studio.database.reading() as session:
        row = session.scalar(select(Assignment).where(Assignment.id == assignment))
        assert row is not None
        names = {}
        for side, clip in clips_of(content_of(session, row.pair_id), row).items():
            query = select(System.name).join(Stimulus, Stimulus.system_id == System.id)
            names[side] = str(session.scalar(query.where(Stimulus.id == clip.stimulus)))
    return names


def prefer(test: Party, order: tuple[str, ...] = (*SYSTEMS, "degraded")) -> Callable[[dict[str, Any]], str]:
    """Choose the system that comes first in an order."""

    def choose(pair: dict[str, Any]) -> str:
        names = side_of(test, pair["assignment"])
        return min(names, key=lambda side: order.index(names[side]))

    return choose


@pytest.fixture(scope="module")
def finished(studio: Any) -> Party:
    """A test of two systems that attentive listeners decided, and one listener who always chose the right side."""
    from tests.studio.listening.conftest import open_test

    rules = {"min_obvious": 1.0, "min_answers": 2}
    test = open_test(
        studio, SYSTEMS[:2], pairs_per_listener=3, repeats=1, obvious=2, practice=1, exclusion_rules=rules, margin=0.2
    )
    for _ in range(6):
        test.join().consent().finish(prefer(test))
    test.join().consent().finish(prefer(test, ("degraded", *SYSTEMS[1::-1])))
    return test


def test_results_have_strengths_decisions_and_the_reasons_of_exclusions(finished: Party) -> None:
    results = done(finished.owner.get(f"tests/{finished.test}/results"))
    figures = results["preference"]
    assert results["at_votes"] == 7 * 7
    assert (results["listeners"], results["completed"]) == (7, 7)
    assert results["rating"] is None
    assert figures["counted"] == 6 * 3, "without practice, checks, repeats and the listener who failed the checks"
    assert list(figures["excluded"].values()) == [["0 of 2 obvious pairs right, below 100%"]]
    assert [row["system"] for row in figures["board"]["strengths"]] == list(SYSTEMS[:2])
    assert [(row["wins"], row["losses"]) for row in figures["win_rates"]] in ([(18, 0)], [(0, 18)])
    assert [(row["wins"], row["losses"]) for row in figures["without_exclusion"]] in ([(18, 3)], [(3, 18)])
    decision = figures["decisions"][0]
    assert (decision["verdict"], decision["needed"]) == ("first", 0)
    assert figures["repeats"]["mean"] == 1
    assert figures["agreement"]["agreeing"]["mean"] == 1
    assert len(figures["listeners"]) == 7
    assert figures["reward"] is None
    assert results["rules"]["min_obvious"] == 1
    assert [look["at_votes"] for look in results["looks"]] == [49]
    again = done(finished.owner.get(f"tests/{finished.test}/results"))
    assert again == results, "no look is counted twice for the same votes"


def test_results_begin_without_votes_and_say_how_many_are_needed(party: Open) -> None:
    test = party(SYSTEMS[:2])
    figures = done(test.owner.get(f"tests/{test.test}/results"))["preference"]
    assert figures["decisions"][0] | {"planned": 0} == {
        "first": SYSTEMS[0], "second": SYSTEMS[1], "votes": 0, "listeners": 0, "verdict": "open", "needed": None,
        "planned": 0, "rate": {"mean": 0.5, "low": 0, "high": 1},
    }  # fmt: skip
    assert 150 < figures["decisions"][0]["planned"] < 250


def test_exported_votes_are_those_that_count_in_the_schema_of_the_package(finished: Party, tmp_path: Path) -> None:
    from plaudit.reward.votes import named_files, read_all_votes, votes_with_audio

    text = finished.owner.get(f"tests/{finished.test}/export", params={"format": "votes"}).text
    (tmp_path / "votes.jsonl").write_text(text)
    votes = read_all_votes(tmp_path / "votes.jsonl")
    assert len(votes) == 18
    for vote in votes:
        preferred = vote.system_a if vote.winner == "a" else vote.system_b
        assert preferred == SYSTEMS[0]
    folder = finished.studio.studio.settings.layout.tests / finished.test
    found = named_files(folder, [clip for vote in votes for clip in (vote.a, vote.b)])
    assert not votes_with_audio([votes], found).missing


def test_the_table_has_every_answer_with_its_side_and_exclusion(finished: Party) -> None:
    text = finished.owner.get(f"tests/{finished.test}/export", params={"format": "csv"}).text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert len(rows) == 49
    assert {row["kind"] for row in rows} == {"regular", "repeat", "obvious", "practice"}
    assert sum(bool(row["excluded"]) for row in rows) == 7
    with finished.studio.studio.database.reading() as session:
        stored = votes_of(session, finished.test)
    assert [row["left"] for row in rows] == ["b" if vote.swapped else "a" for vote in stored]
    assert [int(row["sequence"]) for row in rows] == sorted(vote.sequence for vote in stored)


def test_a_comment_is_no_formula_in_a_spreadsheet(party: Open) -> None:
    test = party(SYSTEMS[:2], comment=True)
    listener = test.join().consent()
    done(listener.vote(listener.next()["assignment"], comment="=HYPERLINK(1)"))
    text = test.owner.get(f"tests/{test.test}/export", params={"format": "csv"}).text
    assert "'=HYPERLINK(1)" in text


def test_the_report_is_a_folder_that_opens_from_disk(finished: Party, tmp_path: Path) -> None:
    missing = finished.owner.get(f"tests/{finished.test}/export", params={"format": "report"})
    assert (missing.status_code, "make one with POST" in missing.text) == (404, True)
    job = done(finished.owner.post(f"tests/{finished.test}/reports"), 202)
    finished.studio.work()
    assert done(finished.owner.get(f"jobs/{job['id']}"))["status"] == "done"
    answer = finished.owner.get(f"tests/{finished.test}/export", params={"format": "report"})
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        archive.extractall(tmp_path)
    page = (tmp_path / "report" / "index.html").read_text()
    assert f"{SYSTEMS[0]} is preferred to {SYSTEMS[1]}" in page
    assert "0 of 2 obvious pairs right" in page
    assert "set before the test: min obvious 1; min answers 2. They leave out 1 of 7 listeners." in page
    assert "http://" not in page.replace("http://www.w3.org", "")
    audio = {part.split('"')[0] for part in page.split('src="')[1:]}
    assert audio
    assert all((tmp_path / "report" / address).is_file() for address in audio)
    results = json.loads((tmp_path / "report" / "results.json").read_text())
    assert results["preference"]["counted"] == 18
    assert len((tmp_path / "report" / "votes.jsonl").read_text().splitlines()) == 18
    done(finished.owner.post(f"tests/{finished.test}/reports"), 202)
    finished.studio.work()
    assert finished.owner.get(f"tests/{finished.test}/export", params={"format": "report"}).status_code == 200


def _rate_all(test: Party, listener: Participant, values: dict[str, int]) -> None:
    while (page := listener.next())["kind"] == "page":
        names = side_of(test, page["assignment"])
        rated = {clip["id"]: values[names[clip["id"]]] for clip in page["clips"]}
        request = {"assignment": page["assignment"], "values": rated, "listened": {id: 2 for id in rated}}
        done(listener.client.post("listen/ratings", json=request))


def test_ratings_have_means_differences_and_the_exclusion_by_the_hidden_reference(party: Open) -> None:
    reference, second, third = SYSTEMS
    test = party(kind="rating", reference=reference, pairs_per_listener=3)
    for shift in range(3):
        _rate_all(test, test.join().consent(), {reference: 95 + shift, second: 60 + 2 * shift, third: 40, "anchor": 10})
    _rate_all(test, test.join().consent(), {reference: 50, second: 60, third: 70, "anchor": 90})
    results = done(test.owner.get(f"tests/{test.test}/results"))
    figures = results["rating"]
    assert results["at_votes"] == 12
    assert list(figures["excluded"].values()) == [
        ["gave the hidden reference less than 90 on 100% of the pages, above 15%"]
    ]
    assert [(row["system"], row["mean"]["mean"]) for row in figures["systems"]] == [
        (reference, 96), (second, 62), (third, 40), ("anchor", 10),
    ]  # fmt: skip
    gap = next(row for row in figures["differences"] if (row["first"], row["second"]) == (second, third))
    assert gap["difference"]["mean"] == -22
    assert gap["difference"]["low"] < -22 < gap["difference"]["high"] < 0
    assert figures["alpha"] > 0.9
    assert f"{second} is rated above {third}, by 22.0 points." in rating_findings(RatingResults(**figures))
    done(test.owner.post(f"tests/{test.test}/reports"), 202)
    test.studio.work()
    assert test.owner.get(f"tests/{test.test}/export", params={"format": "report"}).status_code == 200
    refused = test.owner.get(f"tests/{test.test}/export", params={"format": "votes"})
    assert refused.json()["detail"] == "a rating test has no votes; export it as csv"
    rows = list(csv.DictReader(io.StringIO(test.owner.get(f"tests/{test.test}/export?format=csv").text)))
    assert len(rows) == 4 * 3 * 4


@pytest.mark.slow
def test_rewards_of_the_clips_are_compared_with_the_votes(party: Open) -> None:
    test = party(SYSTEMS[:2], reward="synthetic", pairs_per_listener=3)
    test.join().consent().finish(prefer(test))
    reward = done(test.owner.get(f"tests/{test.test}/results"))["preference"]["reward"]
    assert reward["votes"] == 3
    assert 0 <= reward["accuracy"]["mean"] <= 1


@pytest.fixture
def clock(studio: Opened) -> Iterator[Clock]:
    """A clock of the studio's results that a test sets; the results are the studio's."""
    now = Clock()
    computing = studio.studio.results
    studio.studio.results = LiveResults(computing.compute, now)
    yield now
    studio.studio.results = computing


class Clock:
    """Seconds that pass only where a test says so."""

    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def answer_next(test: Party, listener: Participant) -> None:
    """One more vote of a listener."""
    done(listener.vote(listener.next()["assignment"]))


def test_results_of_an_open_test_are_computed_again_only_after_a_pause(party: Open, clock: Clock) -> None:
    test = party(SYSTEMS[:2])
    listener = test.join().consent()
    answer_next(test, listener)
    results = f"tests/{test.test}/results"
    first = done(test.owner.get(results))
    assert (first["at_votes"], first["votes"], first["refresh_after"]) == (1, 1, None)

    answer_next(test, listener)
    second = done(test.owner.get(results))
    assert (second["at_votes"], second["votes"], second["computed_at"]) == (1, 2, first["computed_at"])
    assert second["preference"] == first["preference"] and second["refresh_after"] >= 1

    clock.seconds += second["refresh_after"]
    third = done(test.owner.get(results))
    assert (third["at_votes"], third["refresh_after"]) == (2, None)
    assert [look["at_votes"] for look in third["looks"]] == [1, 2] and third["number_of_looks"] == 2


def test_exports_and_results_of_a_closed_test_have_every_vote(party: Open, clock: Clock) -> None:
    test = party(SYSTEMS[:2], practice=0, exclusion_rules={"min_answers": 2})
    listener = test.join().consent()
    answer_next(test, listener)
    assert len(done(test.owner.get(f"tests/{test.test}/results"))["preference"]["excluded"]) == 1
    answer_next(test, listener)
    table = test.owner.get(f"tests/{test.test}/export", params={"format": "csv"}).text
    assert not any(row["excluded"] for row in csv.DictReader(io.StringIO(table)))
    answer_next(test, listener)
    assert done(test.owner.get(f"tests/{test.test}/results"))["at_votes"] == 2
    done(test.owner.patch(f"tests/{test.test}", json={"status": "closed"}))
    closed = done(test.owner.get(f"tests/{test.test}/results"))
    assert (closed["at_votes"], closed["refresh_after"]) == (3, None)
