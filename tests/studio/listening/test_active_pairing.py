"""Active pairing in tests through the API: what is asked, and that nothing else changes for listeners."""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import select

from plaudit.studio.database import Assignment, Pair, Stimulus, System
from plaudit.studio.listening import next_pair
from plaudit.studio.listening.records import votes_of
from tests.studio.conftest import Opened, done
from tests.studio.listening.conftest import SYSTEMS, Participant, Party, test_request, write_systems

Open = Callable[..., Party]
FOUR = ("quokka", "axolotl", "zebrafish", "pangolin")
STRENGTHS = {"quokka": 4.0, "axolotl": 0.2, "zebrafish": 0.0, "pangolin": -4.0}
"""Of the simulated listeners: one system is the best and one the worst by far, and two are hard to tell apart."""


def given_to(test: Party, listener: Participant) -> list[tuple[Assignment, Pair]]:
    """What a listener got so far, in order."""
    with test.studio.studio.database.reading() as session:
        query = select(Assignment, Pair).join(Pair, Pair.id == Assignment.pair_id)
        rows = session.execute(query.where(Assignment.listener_id == listener.id).order_by(Assignment.position))
        return [(assignment, pair) for assignment, pair in rows]


def systems_by_stimulus(test: Party) -> dict[str, str]:
    with test.studio.studio.database.reading() as session:
        query = select(Stimulus.id, System.name).join(System, System.id == Stimulus.system_id)
        return dict(session.execute(query.where(Stimulus.test_id == test.test)).all())  # type: ignore[arg-type]


def test_informative_pairs_are_asked_more_often(party: Open, studio: Opened) -> None:
    """In a test of another kind each comparison would be asked about six times."""
    write_systems(studio.studio.settings.layout.root, FOUR)
    test = party(
        systems=FOUR, pairing="active", pairs_per_listener=6, repeats=0, obvious=0, practice=0, minimum_listening=0
    )
    names, rng = systems_by_stimulus(test), np.random.default_rng(0)

    def choose(item: dict[str, Any]) -> str:
        with studio.studio.database.reading() as session:
            query = select(Assignment.swapped, Pair.stimulus_a, Pair.stimulus_b)
            query = query.join(Pair, Pair.id == Assignment.pair_id).where(Assignment.id == item["assignment"])
            swapped, a, b = session.execute(query).one()
        gap = STRENGTHS[names[a]] - STRENGTHS[names[b]]
        return "left" if (gap + rng.logistic() > 0) != swapped else "right"

    for _ in range(6):
        test.join().consent().finish(choose)
    with studio.studio.database.reading() as session:
        votes = votes_of(session, test.test)
    asked = Counter(tuple(sorted((vote.system_a, vote.system_b))) for vote in votes)
    assert asked.total() == 36
    assert asked["axolotl", "zebrafish"] >= 8, asked
    assert asked["axolotl", "zebrafish"] > asked["pangolin", "quokka"], asked


def test_a_listener_has_checks_repeats_and_practice_as_ever(party: Open) -> None:
    test = party(pairing="active", pairs_per_listener=6, repeats=2, obvious=1, practice=1)
    listener = test.join().consent()
    total, seen = 6 + 2 + 1 + 1, []
    assert done(listener.client.get("listen/session"))["total"] == total
    while (item := listener.next())["kind"] == "pair":
        assert listener.next() == item, "it stays until it is answered"
        assert (item["total"], item["position"]) == (total, len(seen) + 1)
        answer = done(listener.vote(item["assignment"]))
        seen.append(item["assignment"])
        assert (answer["answered"], answer["total"], answer["completed"]) == (len(seen), total, len(seen) == total)
    given = given_to(test, listener)
    assert [assignment.id for assignment, _ in given] == seen
    assert Counter(pair.kind for _, pair in given) == {"regular": 6, "repeat": 2, "obvious": 1, "practice": 1}
    sides: dict[tuple[str, str], list[bool]] = defaultdict(list)
    for assignment, pair in given:
        if pair.kind != "obvious":
            sides[pair.stimulus_a, pair.stimulus_b].append(assignment.swapped)
    assert len(sides) == 7, "practice was of another pair, and repeats of two of the six"
    assert all(len(swapped) == 1 or swapped[0] != swapped[1] for swapped in sides.values())
    row = done(test.owner.get(f"tests/{test.test}/listeners"))["items"][0]
    assert (row["answered"], row["total"], row["completion_code"]) == (total, total, item["completion_code"])


def test_all_pairs_where_a_listener_gets_all(party: Open) -> None:
    test = party(pairing="active", pairs_per_listener=50, repeats=0, obvious=0, practice=2)
    listener = test.join().consent()
    listener.finish()
    pairs = [pair.id for _, pair in given_to(test, listener) if pair.kind == "regular"]
    assert len(pairs) == len(set(pairs)) == 9


def test_sides_are_balanced_over_listeners(party: Open) -> None:
    test = party(pairing="active", repeats=0, obvious=0, practice=0, pairs_per_listener=9)
    for _ in range(2):
        test.join().consent().finish()
    with test.studio.studio.database.reading() as session:
        assert Counter(vote.swapped for vote in votes_of(session, test.test)) == {True: 9, False: 9}


def test_listeners_at_once_get_different_pairs(party: Open) -> None:
    test = party(pairing="active", repeats=0, obvious=0, practice=0, pairs_per_listener=3)
    listeners = [test.join().consent() for _ in range(9)]
    answers: dict[str, list[str]] = defaultdict(list)

    def ask(listener: Participant) -> None:
        answers[listener.id].append(listener.next()["assignment"])

    threads = [threading.Thread(target=ask, args=(listener,)) for listener in listeners for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [len(set(got)) for got in answers.values()] == [1] * 9, "two requests at once get one pair"
    pairs = [given_to(test, listener)[0][1] for listener in listeners]
    assert len({pair.id for pair in pairs}) >= 7
    names = systems_by_stimulus(test)
    times = Counter(frozenset((names[pair.stimulus_a], names[pair.stimulus_b])) for pair in pairs)
    assert max(times.values()) <= 5, times  # 3 but for exploration


def test_a_pair_that_was_chosen_stays_when_the_studio_is_opened_again(party: Open) -> None:
    test = party(pairing="active", obvious=0, practice=0)
    listener = test.join().consent()
    for _ in range(3):
        done(listener.vote(listener.next()["assignment"]))
    item = listener.next()
    test.studio.studio.database.engine.dispose()
    assert listener.next() == item
    done(listener.vote(item["assignment"]))


def test_clips_that_are_gone_are_not_chosen(party: Open) -> None:
    test = party(pairing="active", pairs_per_listener=9, repeats=1, obvious=0, practice=0)
    root = test.studio.studio.settings.layout.root
    names = systems_by_stimulus(test)
    with test.studio.studio.database.reading() as session:
        from plaudit.studio.database import Clip

        query = select(Clip.path, Stimulus.id).join(Stimulus, Stimulus.clip_id == Clip.id)
        paths = session.execute(query.where(Stimulus.test_id == test.test)).all()
    for path, stimulus in paths:
        if names[stimulus] == SYSTEMS[0]:
            (root / path).unlink()
    listener = test.join().consent()
    assert len(listener.finish()) == 10
    regular = [pair for _, pair in given_to(test, listener) if pair.kind == "regular"]
    assert len(regular) == 3, "those of the other two systems"
    assert SYSTEMS[0] not in {names[id] for pair in regular for id in (pair.stimulus_a, pair.stimulus_b)}


def test_a_test_whose_clips_are_all_gone_says_so(party: Open) -> None:
    test = party(pairing="active", obvious=0, practice=0)
    for path in (test.studio.studio.settings.layout.tests / test.test).glob("*.wav"):
        path.unlink()
    answer = test.join().consent().client.get("listen/next")
    assert (answer.status_code, answer.json()["detail"][:34]) == (410, "the clips of this test are gone; p")


def test_a_closed_test_chooses_no_pair(party: Open) -> None:
    test = party(pairing="active", obvious=0, practice=0)
    listener = test.join().consent()
    done(test.owner.patch(f"tests/{test.test}", json={"status": "closed"}))
    assert listener.client.get("listen/next").status_code == 410
    assert given_to(test, listener) == []


def test_what_counts_for_the_choice(party: Open) -> None:
    test = party(systems=SYSTEMS[:2], pairing="active", repeats=1, obvious=1, practice=1, pairs_per_listener=3)
    listener, other = test.join().consent(), test.join().consent()
    choices = ["left", "tie", "both_bad", "left", "tie", "left"]
    for choice in choices:
        done(listener.vote(listener.next()["assignment"], choice))
    regular = [
        choice for (_, pair), choice in zip(given_to(test, listener), choices, strict=True) if pair.kind == "regular"
    ]
    assert len(regular) == 3
    done(other.vote(other.next()["assignment"]))  # practice
    other.next()
    with test.studio.studio.database.reading() as session:
        ids = list(session.scalars(select(System.id).where(System.test_id == test.test).order_by(System.sequence)))[:2]
        wins, ties, pending = next_pair._tallies(session, test.test, ids)
    assert wins.sum() == regular.count("left")
    assert ties.sum() == 2 * regular.count("tie")
    assert pending.sum() == 1, "the pair that the other listener has"


@pytest.mark.parametrize("kind", ["preference", "rating"])
def test_the_setting_in_the_api(owner: TestClient, studio: Opened, kind: str) -> None:
    request = test_request(kind=kind, pairing="active")
    answer = owner.post("tests", json=request)
    if kind == "rating":
        assert (answer.status_code, "active pairing is for preference tests" in answer.text) == (422, True)
        made = done(owner.post("tests", json=test_request(kind=kind)), 202)["test"]
        studio.work()
        refused = owner.patch(f"tests/{made['id']}", json={"pairing": "active"})
        assert (refused.status_code, "active pairing is for preference tests" in refused.text) == (422, True)
    else:
        made = done(answer, 202)["test"]
        assert made["settings"]["pairing"] == "active"
        studio.work()
        assert done(owner.patch(f"tests/{made['id']}", json={"pairing": "random"}))["settings"]["pairing"] == "random"
        assert done(owner.patch(f"tests/{made['id']}", json={"status": "open"}))["settings"]["pairing"] == "random"
        assert owner.patch(f"tests/{made['id']}", json={"pairing": "active"}).status_code == 409
    assert owner.post("tests", json=test_request(pairing="clever")).status_code == 422
