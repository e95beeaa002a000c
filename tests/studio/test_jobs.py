"""The queue, idempotency keys, events, the worker process, and the client over a real socket."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from sqlalchemy import func, select

from plaudit.errors import PlauditError, RunError
from plaudit.studio import jobs
from plaudit.studio.client import ApiError, StudioClient
from plaudit.studio.database import Event, Job
from plaudit.studio.events import KEPT, prune, publish
from tests.studio.conftest import Opened, Served, done

REQUEST = {"prompts": ["drums"], "model": "synthetic-distilled", "seconds": 1.0, "seed": 1}


def test_a_request_with_a_key_is_carried_out_once(studio: Opened, owner: Any) -> None:
    headers = {"idempotency-key": "a"}
    first, again = (owner.post("generations", json=REQUEST, headers=headers) for _ in range(2))
    assert done(first, 202) == done(again, 202) and again.headers["idempotency-replayed"] == "true"
    assert len(done(owner.get("jobs"))["items"]) == 1
    assert owner.post("generations", json={**REQUEST, "seed": 2}, headers=headers).status_code == 409
    done(owner.post("generations", json=REQUEST, headers={"idempotency-key": "b"}), 202)
    done(studio.editor().post("generations", json=REQUEST, headers=headers), 202)
    assert len(done(owner.get("jobs"))["items"]) == 3


def test_errors_are_not_kept(studio: Opened, owner: Any) -> None:
    headers = {"idempotency-key": "a"}
    assert owner.post("generations", json={}, headers=headers).status_code == 422
    done(owner.post("generations", json=REQUEST, headers=headers), 202)
    for key in ("", "ü".encode(), "a" * 129, "a b"):
        assert owner.post("generations", json=REQUEST, headers={"idempotency-key": key}).status_code in (202, 422)


def test_answers_that_their_handler_does_not_keep(studio: Opened, owner: Any) -> None:
    headers = {"idempotency-key": "a"}
    tokens = [done(owner.post("tokens", json={"name": "t", "role": "editor"}, headers=headers), 201) for _ in range(2)]
    assert tokens[0] == tokens[1] and len(done(owner.get("tokens"))["items"]) == 2


def test_requests_with_a_key_at_the_same_time(studio: Opened, owner: Any) -> None:
    def post(_: int) -> str:
        answer = owner.post("generations", json=REQUEST, headers={"idempotency-key": "same"})
        return str(done(answer, 202)["id"])

    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(post, range(16)))) == 1
    assert len(done(owner.get("jobs"))["items"]) == 1


def test_jobs_are_claimed_once_and_in_order(studio: Opened) -> None:
    jobs.load_kinds()
    database = studio.studio.database
    with database.transaction() as session:
        ids = [jobs.enqueue(session, "generate", {"n": n}).id for n in range(12)]

    def claim(worker: int) -> list[str]:
        rows = []
        while (row := jobs.claim(database, str(worker), "main")) is not None:
            rows.append(row.id)
        return rows

    with ThreadPoolExecutor(4) as pool:
        claimed = list(pool.map(claim, range(4)))
    assert sorted(id for rows in claimed for id in rows) == sorted(ids)
    assert all(rows == sorted(rows, key=ids.index) for rows in claimed)


def test_a_job_of_an_unknown_kind_fails(studio: Opened) -> None:
    with studio.studio.database.transaction() as session:
        id = jobs.enqueue(session, "of-the-future", {}).id
    jobs.load_kinds()
    jobs.fail_unknown_kinds(studio.studio.database)
    answer = done(studio.client(studio.token).get(f"jobs/{id}"))
    assert answer["status"] == "failed" and "of-the-future" in answer["error"]


def test_a_job_that_keeps_ending_the_worker_fails(studio: Opened, owner: Any) -> None:
    job = done(owner.post("generations", json=REQUEST), 202)
    jobs.load_kinds()
    for attempt in range(1, jobs.MOST_ATTEMPTS + 1):
        row = jobs.claim(studio.studio.database, "w", "main")
        assert row is not None and row.attempts == attempt
        assert jobs.requeue_interrupted(studio.studio.database) == 1
    answer = done(owner.get(f"jobs/{job['id']}"))
    assert answer["status"] == "failed" and "ended 3 times" in answer["error"]
    retried = done(owner.post(f"jobs/{job['id']}/retry"))
    assert (retried["status"], retried["attempts"], retried["error"]) == ("queued", 0, None)


def test_errors_of_jobs_are_one_line(studio: Opened, owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(context: jobs.JobContext, request: dict[str, Any]) -> dict[str, Any]:
        if request["with"] == "plaudit":
            raise PlauditError("what was\nwrong")
        if request["with"] == "memory":
            raise MemoryError
        raise ValueError("a secret")

    monkeypatch.setitem(jobs.KINDS, "fails", jobs.JobKind("fails", fails, "main"))
    with studio.studio.database.transaction() as session:
        ids = [jobs.enqueue(session, "fails", {"with": what}).id for what in ("plaudit", "memory", "bug")]
    studio.work()
    errors = [done(owner.get(f"jobs/{id}"))["error"] for id in ids]
    assert errors[0] == "what was wrong" and "memory" in errors[1]
    assert "secret" not in errors[2] and "worker.log" in errors[2]
    assert "a secret" in (studio.studio.settings.layout.logs / "worker.log").read_text()


def test_old_events_are_pruned(studio: Opened) -> None:
    with studio.studio.database.transaction() as session:
        session.add_all([Event(kind="x", subject="y", data={}) for _ in range(3)])
        session.flush()
        first = session.scalar(select(func.min(Event.sequence)))
        session.add(Event(sequence=first + KEPT, kind="x", subject="y", data={}))
        session.flush()
        prune(session)
        assert session.scalar(select(func.count()).select_from(Event)) == 3


def test_a_clock_that_jumps_changes_no_order(studio: Opened, owner: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from plaudit.studio import database

    times = iter(["2030-01-01T00:00:00Z", "1999-01-01T00:00:00Z", "2031-01-01T00:00:00Z"])
    monkeypatch.setattr(Job.__table__.c.created_at.default, "arg", lambda context: next(times))
    ids = []
    with studio.studio.database.transaction() as session:
        for n in range(3):
            ids.append(jobs.enqueue(session, "generate", {"n": n}).id)
    assert [job["id"] for job in done(owner.get("jobs"))["items"]] == ids[::-1]
    jobs.load_kinds()
    row = jobs.claim(studio.studio.database, "w", "main")
    assert row is not None and row.id == ids[0]
    assert database.now() > "2020"


def test_events_of_a_job_end_with_it(served: Served) -> None:
    database = served.studio.database
    with StudioClient(served.address, served.token) as client:
        job = client.generate("drums", wait=False, **{k: v for k, v in REQUEST.items() if k != "prompts"})
        seen: list[dict[str, Any]] = []
        thread = threading.Thread(target=lambda: seen.extend(client.events(f"jobs/{job['id']}/events")))
        thread.start()
        while not seen:  # its first event is the job's present state
            time.sleep(0.01)
        with database.transaction() as session:
            publish(session, "clip", job["id"], {"id": "c"})
            publish(session, "clip", "another", {"id": "d"})
        jobs.finish(database, job["id"], "done", result={})
        thread.join(10)
        assert [(event["event"], event["data"].get("status")) for event in seen] == [
            ("job", "queued"), ("clip", None), ("job", "done"),
        ]  # fmt: skip
        missed = list(client.events(f"jobs/{job['id']}/events", last_event_id=seen[0]["id"]))
        assert missed == seen[1:]
        with pytest.raises(ApiError, match="Last-Event-ID"):
            list(client.events("events", last_event_id="x"))


def test_a_stream_ends_when_its_token_is_revoked(served: Served) -> None:
    with StudioClient(served.address, served.token) as owner:
        token = owner.post("tokens", {"name": "e", "role": "editor"})
        with StudioClient(served.address, token["token"]) as editor:
            seen: list[dict[str, Any]] = []
            thread = threading.Thread(target=lambda: seen.extend(editor.events()))
            thread.start()
            time.sleep(0.5)
            owner.delete(f"tokens/{token['id']}")
            thread.join(10)
            assert not thread.is_alive() and seen == []


def test_the_clients_errors_are_one_line(served: Served) -> None:
    with StudioClient(served.address, "nobody.secret") as client, pytest.raises(ApiError, match="not valid") as error:
        client.get("jobs")
    assert error.value.status == 401
    with StudioClient(served.address, served.token) as client:
        job = client.generate("drums", wait=False, model="synthetic-distilled")
        client.post(f"jobs/{job['id']}/cancel")
        with pytest.raises(RunError, match="cancelled"):
            client.wait(job["id"])


def test_a_post_whose_answer_is_lost_is_carried_out_once(served: Served) -> None:
    class Flaky(httpx.HTTPTransport):
        lost = 0

        def handle_request(self, request: httpx.Request) -> httpx.Response:
            answer = super().handle_request(request)
            if request.method == "POST" and self.lost < 2:
                self.lost += 1
                answer.close()
                raise httpx.ReadError("the connection broke")
            return answer

    with StudioClient(served.address, served.token, transport=Flaky()) as client:
        client.generate("drums", wait=False, model="synthetic-distilled")
        assert len(list(client.items("jobs"))) == 1


def test_no_studio_is_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as bound:
        port = bound.getsockname()[1]
    with StudioClient(f"http://127.0.0.1:{port}", "x") as client, pytest.raises(RunError, match="is it running"):
        client._send("GET", "health", attempts=1)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_replaced_and_its_job_continues(tmp_path: Path) -> None:
    running = Served(tmp_path / "studio", worker=True)
    try:
        request = {"count": 6, "seed": 3, "model": "synthetic-distilled", "seconds": 10.0}
        with StudioClient(running.address, running.token) as client:
            whole = client.generate("drums", **request)
            killed = client.generate("drums", wait=False, **request)
            while len(list(client.clips(job=killed["id"]))) < 2:
                time.sleep(0.02)
            worker = running.worker
            os.kill(worker, signal.SIGKILL)
            job = client.wait(killed["id"], timeout=300)
            assert job["attempts"] == 2 and running.worker != worker
            digests = [
                [client._send("GET", f"clips/{clip['id']}/audio").content for clip in client.clips(job=id)]
                for id in (whole["id"], killed["id"])
            ]
            assert len(digests[0]) == 6 and digests[0] == digests[1]
    finally:
        running.stop()
    assert running.studio.supervisor.process.poll() is not None
