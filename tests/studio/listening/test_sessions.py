"""Listeners through the API: consent to completion, and everything that can go wrong on the way."""

from __future__ import annotations

import errno
import io
import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pytest
import soundfile
from fastapi.testclient import TestClient
from sqlalchemy import select

from plaudit.generate.loudness import integrated_loudness
from plaudit.studio.database import Assignment, Clip, Listener, Pair, System, Vote
from plaudit.studio.listening import enrolment, sessions
from plaudit.studio.listening.audio import clips_of, content_of
from plaudit.studio.listening.plans import exposure_of
from plaudit.studio.listening.records import votes_of
from tests.studio.conftest import done
from tests.studio.listening.conftest import PROMPTS, SYSTEMS, Participant, Party, pass_screening

Open = Callable[..., Party]


def test_a_listener_goes_from_consent_to_a_completion_code(party: Open) -> None:
    test = party()
    listener = test.join()
    state = done(listener.client.get("listen/session"))
    assert (state["state"], state["total"]) == ("consent", 0)
    assert done(listener.client.post("listen/consent"))["state"] == "listening"
    seen = []
    while (pair := listener.next())["kind"] == "pair":
        assert listener.next() == pair, "it stays until it is answered"
        seen.append(pair)
        answer = done(listener.vote(pair["assignment"]))
        assert answer["answered"] == len(seen) == pair["position"]
        assert answer["completed"] == (len(seen) == pair["total"])
    assert len(seen) == 6 + 1 + 1 + 1
    assert [pair["practice"] for pair in seen] == [True] + [False] * 8
    code = pair["completion_code"]
    assert len(code) == 10
    assert done(listener.client.get("listen/completion")) == {"completion_code": code}
    state = done(listener.client.get("listen/session"))
    assert (state["state"], state["completion_code"]) == ("completed", code)
    assert (test.info["listeners"], test.info["completed"], test.info["votes"]) == (1, 1, 9)


def test_the_winner_is_the_clip_and_not_the_side(party: Open) -> None:
    test = party(repeats=0, obvious=0, practice=0, pairs_per_listener=9)
    for _ in range(2):
        test.join().consent().finish(lambda pair: "left")
    with test.studio.studio.database.reading() as session:
        votes = votes_of(session, test.test)
    assert len(votes) == 18
    assert all(vote.winner == ("b" if vote.swapped else "a") for vote in votes)
    assert Counter(vote.swapped for vote in votes) == {True: 9, False: 9}, "sides are balanced over listeners"


def test_both_sides_have_one_length_rate_loudness_and_no_tags(party: Open) -> None:
    listener = party().join().consent()
    while (pair := listener.next())["kind"] == "pair":
        answers = [listener.client.get(pair[side].removeprefix("/api/v1/")) for side in ("left", "right")]
        assert {answer.headers["content-type"] for answer in answers} == {"audio/wav"}
        waves = [soundfile.read(io.BytesIO(answer.content)) for answer in answers]
        assert waves[0][1] == waves[1][1] == 16_000
        assert len(waves[0][0]) == len(waves[1][0]) == round(pair["seconds"] * 16_000)
        for wave, rate in waves:
            assert integrated_loudness(wave, rate) == pytest.approx(-23, abs=0.1)
        for answer in answers:
            assert len(answer.content) == 44 + 2 * len(waves[0][0]), "nothing but the format and the samples"
            assert not {"etag", "last-modified", "content-disposition"} & set(answer.headers)
        part = listener.client.get(pair["left"].removeprefix("/api/v1/"), headers={"range": "bytes=44-143"})
        assert (part.status_code, len(part.content)) == (206, 100)
        done(listener.vote(pair["assignment"]))


def test_nothing_a_listener_can_fetch_names_a_system_a_file_or_a_clip(party: Open) -> None:
    test = party(screening="huggins", comment=True)
    database = test.studio.studio.database
    listener = test.join()
    texts = [listener.client.get("listen/session").text, listener.client.post("listen/consent").text]
    texts.append(listener.client.get("listen/screening").text)
    pass_screening(test, listener)
    while True:
        answer = listener.client.get("listen/next")
        texts += [answer.text, str(answer.headers)]
        item = answer.json()
        if item["kind"] != "pair":
            break
        for side in ("left", "right"):
            audio = listener.client.get(item[side].removeprefix("/api/v1/"))
            texts += [str(audio.headers), audio.content.decode("latin-1")]
        vote = listener.vote(item["assignment"], comment="fine")
        texts += [vote.text, str(vote.headers), listener.vote(item["assignment"], "right").text]
    texts += [listener.client.get(path).text for path in ("listen/completion", "listen/audio/nothing.left")]
    with database.reading() as session:
        secrets = {row.name for row in session.scalars(select(System))}
        secrets |= {part for row in session.scalars(select(Clip)) for part in (row.id, row.path, str(row.path)[:-4])}
        secrets |= {row.id for kind in (System, Pair) for row in session.scalars(select(kind))}
        secrets |= {"uploads", "obvious", "repeat", "degraded", test.test}
    text = "\n".join(texts)
    assert {"zebrafish", "degraded"} < secrets
    assert not [secret for secret in secrets if secret in text]


def test_a_listener_reaches_nothing_else(party: Open) -> None:
    test = party()
    listener, other = test.join().consent(), test.join().consent()
    theirs = other.next()
    reached = []
    for path, operations in test.studio.app.openapi()["paths"].items():
        path = path.removeprefix("/api/v1/")
        if path.startswith("listen/") or path == "health":
            continue
        path = path.replace("{test_id}", test.test)
        for method in operations:
            answer = listener.client.request(method, path, json={} if method in ("post", "patch", "put") else None)
            if answer.status_code not in (401, 403):
                reached.append((method, path, answer.status_code))
    # Logging in and out are everybody's; whoever logs out has no session there.
    assert {path for _, path, _ in reached} <= {"session"}
    assert listener.vote(theirs["assignment"]).status_code == 404
    assert listener.client.get(theirs["left"].removeprefix("/api/v1/")).status_code == 404
    mine = listener.next()
    outside = ("../../studio.sqlite", "%2e%2e%2fstudio.sqlite")
    for name in (*outside, mine["assignment"], f"{mine['assignment']}.reference"):
        assert listener.client.get(f"listen/audio/{name}").status_code in (403, 404)
    assert test.studio.client("listener.x").get("listen/next").status_code == 401
    assert test.studio.client().get("listen/next").status_code == 401
    assert test.owner.get("listen/next").status_code == 403, "those who run a test are no listeners"


def test_the_same_vote_again_changes_nothing_and_another_is_refused(party: Open) -> None:
    listener = (test := party()).join().consent()
    pair = listener.next()
    first = done(listener.vote(pair["assignment"], "tie"))
    assert done(listener.vote(pair["assignment"], "tie", response_ms=1, listened_left=1.5)) == first
    refused = listener.vote(pair["assignment"], "right")
    assert (refused.status_code, "answered already" in refused.json()["detail"]) == (409, True)
    assert test.info["votes"] == 1
    with test.studio.studio.database.reading() as session:
        votes = votes_of(session, test.test)
    assert [(vote.winner, vote.response_ms) for vote in votes] == [("tie", 5000)]


def test_a_link_opened_twice_continues_in_the_same_browser(party: Open) -> None:
    test = party()
    browser = test.studio.client()
    first = done(browser.post(f"listen/{test.invitation}"))
    headers = {"x-csrf-token": first["csrf"]}
    done(browser.post("listen/consent", headers=headers))
    pair = done(browser.get("listen/next"))
    vote = {
        "assignment": pair["assignment"], "choice": "left", "listened_left": 2, "listened_right": 2, "response_ms": 1,
    }  # fmt: skip
    done(browser.post("listen/votes", json=vote, headers=headers))
    again = done(browser.post(f"listen/{test.invitation}"))
    assert again["listener"] == first["listener"]
    assert (again["session"]["state"], again["session"]["answered"]) == ("listening", 1)
    assert done(browser.get("listen/next"))["position"] == 2
    assert browser.post("listen/votes", json=vote).status_code == 403, "a cookie needs the CSRF token"
    elsewhere = done(test.studio.client().post(f"listen/{test.invitation}"))
    assert elsewhere["listener"] != first["listener"], "another browser is another listener"


def test_a_link_opened_twice_at_once_loses_nothing(party: Open) -> None:
    test = party()
    personal = done(test.owner.post(f"tests/{test.test}/invitations", json={"max_listeners": 1}), 201)["token"]
    tabs = [test.studio.client() for _ in range(4)]

    def begin(tab: TestClient) -> tuple[str, str, str]:
        opened = done(tab.post(f"listen/{personal}"))
        headers = {"x-csrf-token": opened["csrf"]}
        done(tab.post("listen/consent", headers=headers))
        pair = done(tab.get("listen/next"))
        vote = {
            "assignment": pair["assignment"], "choice": "tie", "listened_left": 2, "listened_right": 2,
            "response_ms": 1,
        }  # fmt: skip
        answer = done(tab.post("listen/votes", json=vote, headers=headers))
        return opened["listener"], pair["assignment"], answer["assignment"]

    with ThreadPoolExecutor(len(tabs)) as pool:
        answers = list(pool.map(begin, tabs))
    assert len({listener for listener, _, _ in answers}) == 1
    given = {assignment for _, assignment, _ in answers}
    state = done(tabs[0].get("listen/session"))
    assert (state["answered"], state["total"]) == (len(given), 9), "each pair once, and one plan"


def test_a_second_tab_that_became_another_listener_says_so(party: Open) -> None:
    test = party()
    browser = test.studio.client()
    first = done(browser.post(f"listen/{test.invitation}"))
    headers = {"x-csrf-token": first["csrf"]}
    done(browser.post("listen/consent", headers=headers))
    pair = done(browser.get("listen/next"))
    vote = {
        "assignment": pair["assignment"], "choice": "left", "listened_left": 2, "listened_right": 2, "response_ms": 1,
    }  # fmt: skip
    done(browser.post("listen/votes", json=vote, headers=headers))
    browser.cookies.clear()  # both tabs asked before either had the cookie
    second = done(browser.post(f"listen/{test.invitation}"))
    assert second["listener"] != first["listener"]
    refused = browser.post("listen/votes", json=vote, headers=headers)
    assert (refused.status_code, refused.json()["detail"].endswith("reload the page")) == (403, True)
    assert test.info["votes"] == 1


def test_a_full_disk_keeps_no_vote_and_loses_none(party: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    test = party()
    listener = test.join().consent()
    first = listener.next()
    done(listener.vote(first["assignment"]))
    following = listener.next()

    def full(file: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("plaudit.studio.database.sync_file", full)
        refused = [listener.vote(following["assignment"]) for _ in range(2)]
    for answer in refused:
        assert (answer.status_code, answer.json()) == (
            507, {"detail": "the disk is full; free some space and try again", "code": "disk-full"},
        )  # fmt: skip
    assert done(listener.vote(following["assignment"]))["answered"] == 2
    assert test.info["votes"] == 2


def test_a_personal_link_continues_on_any_device(party: Open) -> None:
    test = party()
    personal = done(test.owner.post(f"tests/{test.test}/invitations", json={"max_listeners": 1}), 201)["token"]
    listener = Participant(test.studio.client(), "")
    first = done(listener.client.post(f"listen/{personal}"))
    phone = done(test.studio.client().post(f"listen/{personal}"))
    assert phone["listener"] == first["listener"]


def test_two_tabs_answer_the_same_pair_once(party: Open) -> None:
    listener = party().join().consent()
    in_both = listener.next()
    done(listener.vote(in_both["assignment"]))
    assert done(listener.vote(in_both["assignment"]))["answered"] == 1
    assert listener.next()["position"] == 2


def test_a_link_has_as_many_listeners_as_it_says(party: Open) -> None:
    test = party()
    link = done(test.owner.post(f"tests/{test.test}/invitations", json={"max_listeners": 2}), 201)["token"]
    clients = [test.studio.client(done(test.studio.client().post(f"listen/{link}"))["token"]) for _ in range(3)]
    for client in clients[:2]:
        done(client.post("listen/consent"))
    late = clients[2].post("listen/consent")
    assert (late.status_code, late.json()["detail"][:35]) == (410, "this test has all the listeners it ")
    assert test.studio.client().post(f"listen/{link}").status_code == 410


def test_a_withdrawn_or_damaged_link_opens_nothing(party: Open) -> None:
    test = party()
    listener = test.join().consent()
    links = done(test.owner.get(f"tests/{test.test}/invitations"))["items"]
    done(test.owner.delete(f"tests/{test.test}/invitations/{links[0]['id']}"))
    assert test.studio.client().post(f"listen/{test.invitation}").status_code == 410
    assert test.studio.client().post(f"listen/{test.invitation[:-2]}").status_code == 404
    done(listener.vote(listener.next()["assignment"]))


def test_a_closed_test_takes_no_more_and_keeps_what_there_is(party: Open) -> None:
    test = party()
    listener, late = test.join().consent(), test.join()
    pair = listener.next()
    done(listener.vote(pair["assignment"]))
    following = listener.next()
    done(test.owner.patch(f"tests/{test.test}", json={"status": "closed"}))
    refused = listener.vote(following["assignment"])
    assert (refused.status_code, refused.json()["detail"]) == (
        410, "this test is closed; all your answers so far are kept, thank you",
    )  # fmt: skip
    assert listener.client.get("listen/next").status_code == 410
    assert late.client.post("listen/consent").status_code == 410
    assert test.studio.client().post(f"listen/{test.invitation}").status_code == 410
    assert done(listener.vote(pair["assignment"]))["answered"] == 1, "a vote that is stored is still acknowledged"
    assert done(listener.client.get("listen/session"))["state"] == "closed"
    assert test.info["votes"] == 1
    done(test.owner.patch(f"tests/{test.test}", json={"status": "open"}))
    done(listener.vote(following["assignment"]))


def test_pairs_whose_clips_are_gone_are_passed_over(party: Open) -> None:
    test = party()
    root = test.studio.studio.settings.layout.root
    listener = test.join().consent()
    pair = listener.next()
    with test.studio.studio.database.reading() as session:
        assignment = session.scalar(select(Assignment).where(Assignment.id == pair["assignment"]))
        assert assignment is not None
        gone = clips_of(content_of(session, assignment.pair_id), assignment)["left"].path
    (root / gone).rename(root / "elsewhere.wav")
    audio = listener.client.get(pair["left"].removeprefix("/api/v1/"))
    gone_line = "this clip is gone; reload the page to go on with the next"
    assert (audio.status_code, audio.json()["detail"]) == (410, gone_line)
    assert listener.next()["position"] > 1
    assert "1 clips of the test are gone" in test.info["problem"]
    code = listener.finish()
    answered = test.info["votes"]
    assert 0 < answered < 9
    assert code
    (root / "elsewhere.wav").rename(root / gone)
    assert test.info["problem"] is None
    assert test.info["votes"] == answered


def test_a_test_without_any_clip_left_says_so(party: Open) -> None:
    test = party()
    for path in (test.studio.studio.settings.layout.tests / test.test).glob("*.wav"):
        path.unlink()
    answer = test.join().consent().client.get("listen/next")
    assert (answer.status_code, answer.json()["detail"]) == (
        410, "the clips of this test are gone; please tell the person who invited you",
    )  # fmt: skip


def test_a_clock_that_jumps_loses_nothing(party: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    test = party(repeats=0, obvious=0, practice=0)
    listener = test.join().consent()
    order = []
    for days in (0, 400, -4000, 0):
        moment = datetime.now(UTC) + timedelta(days=days)
        monkeypatch.setattr("plaudit.studio.database.now", lambda moment=moment: moment.isoformat())
        monkeypatch.setattr(enrolment, "now", lambda moment=moment: moment.isoformat())
        monkeypatch.setattr(sessions, "now", lambda moment=moment: moment.isoformat())
        pair = listener.next()
        done(listener.vote(pair["assignment"]))
        order.append(pair["assignment"])
        test.join().consent()
    with test.studio.studio.database.reading() as session:
        mine = Assignment.listener_id == listener.id
        query = select(Vote.assignment_id).join(Assignment, Assignment.id == Vote.assignment_id).where(mine)
        stored = list(session.scalars(query.order_by(Vote.sequence)))
    assert stored == order
    assert done(listener.client.get("listen/session"))["answered"] == 4


REFUSED: dict[str, list[tuple[dict[str, object], str]]] = {
    "{}": [
        ({"listened_left": 0.4}, "listen to the left clip for at least 1 s before you answer"),
        ({"listened_right": 0}, "listen to the right clip for at least 1 s before you answer"),
        ({"strength": 2}, "this test does not ask for a strength"),
        ({"comment": "nice"}, "this test takes no comments"),
        ({"choice": "a"}, "choice"),
        ({"response_ms": -1}, "response_ms"),
        ({"listened_left": "nan"}, "listened_left"),
    ],
    '{"ties": false, "both_bad": false, "strength": true}': [
        ({"choice": "tie"}, "this test has no ties"),
        ({"choice": "both_bad"}, "this test does not offer 'both bad'"),
        ({"strength": 4}, "strength"),
    ],
}


@pytest.mark.parametrize("changes", REFUSED)
def test_a_vote_that_is_not_allowed_is_refused_in_one_line(party: Open, changes: str) -> None:
    test = party(**json.loads(changes))
    listener = test.join().consent()
    pair = listener.next()
    for vote, message in REFUSED[changes]:
        answer = listener.vote(pair["assignment"], **{"choice": "left", **vote})  # type: ignore[arg-type]
        assert answer.status_code == 422
        assert answer.json()["detail"].startswith(message)
        assert "\n" not in answer.json()["detail"]
    assert test.info["votes"] == 0


def test_a_clip_shorter_than_the_minimum_is_heard_whole(party: Open) -> None:
    listener = party(minimum_listening=10).join().consent()
    pair = listener.next()
    assert pair["minimum_listening"] == pytest.approx(1)
    assert listener.vote(pair["assignment"], listened_left=0.9).status_code == 422
    done(listener.vote(pair["assignment"], listened_left=1, listened_right=1))


def test_pairs_left_by_who_gave_up_are_given_to_others(party: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    test = party(systems=SYSTEMS[:2], pairs_per_listener=2, repeats=0, obvious=0, practice=0)
    gave_up = test.join().consent()
    database = test.studio.studio.database

    def pairs(listener: Participant) -> set[str]:
        with database.reading() as session:
            return set(session.scalars(select(Assignment.pair_id).where(Assignment.listener_id == listener.id)))

    left = pairs(gave_up)
    assert len(pairs(test.join().consent()) - left) == 1, "the third pair comes first"
    with database.transaction() as session:
        for row in session.scalars(select(Listener).where(Listener.test_id == test.test)):
            row.created_at = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    with database.reading() as session:
        assert exposure_of(session, test.test).pairs == {}


def test_a_rating_page_is_stored_at_once(party: Open) -> None:
    test = party(kind="rating", reference=SYSTEMS[0], pairs_per_listener=3, repeats=0, obvious=0, practice=0)
    assert test.info["pairs"] == len(PROMPTS)
    listener = test.join().consent()
    page = listener.next()
    assert (page["kind"], page["total"], len(page["clips"])) == ("page", 3, len(SYSTEMS) + 1)
    waves = {clip["id"]: listener.client.get(clip["audio"].removeprefix("/api/v1/")).content for clip in page["clips"]}
    reference = listener.client.get(page["reference"].removeprefix("/api/v1/")).content
    assert list(waves.values()).count(reference) == 1, "the reference is hidden among the clips"
    assert len({len(wave) for wave in waves.values()}) == 1
    values = {clip["id"]: 10 * place for place, clip in enumerate(page["clips"])}
    heard = {id: 2.0 for id in values}

    def rate(**changes: object) -> object:
        request = {"assignment": page["assignment"], "values": values, "listened": heard, **changes}
        return listener.client.post("listen/ratings", json=request)

    assert rate(values={"0": 1}).status_code == 422  # type: ignore[attr-defined]
    assert rate(listened={}).json()["detail"] == "listen to clip 1 for at least 1 s before you answer"  # type: ignore[attr-defined]
    first = done(rate())
    assert done(rate()) == first
    assert rate(values={id: 50 for id in values}).status_code == 409  # type: ignore[attr-defined]
    assert listener.vote(page["assignment"]).status_code == 422
    assert listener.next()["position"] == 2
    assert test.info["votes"] == 1
