"""Headers, names of hosts, CSRF on every route, and what a listener's token reaches."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastapi.routing import APIRoute

from plaudit.studio import schemas
from plaudit.studio.auth import COOKIE, LISTENER_COOKIE
from plaudit.studio.database import Invitation, Listener
from plaudit.studio.database import Test as TestRow
from plaudit.studio.settings import StudioSettings
from tests.studio.conftest import Opened, done
from tests.studio.listening.conftest import write_clip

PUBLIC = {("GET", "/api/v1/health"), ("POST", "/api/v1/session"), ("POST", "/api/v1/listen/{token}")}
"""Routes without credentials: whether it is up, logging in, and opening an invitation."""


def api_routes(studio: Opened) -> Iterator[tuple[str, str]]:
    """(method, path with placeholders) of the API, as its description has them."""
    for path, methods in studio.app.openapi()["paths"].items():
        for method in methods:
            yield method.upper(), path


def filled(path: str) -> str:
    return re.sub(r"\{[^}]*\}", "x", path)


def is_public(method: str, path: str) -> bool:
    return (method, re.sub(r"\{[^}]*\}", "{token}", path)) in PUBLIC


def listener_token(studio: Opened) -> str:
    """A listener of a test that is open."""
    with studio.studio.database.transaction() as session:
        test = TestRow(
            name="t", kind="preference", status="open", question="", instructions="", consent="", settings={}
        )
        session.add(test)
        session.flush()
        invitation = Invitation(test_id=test.id, label="l")
        session.add(invitation)
        session.flush()
        listener = Listener(test_id=test.id, invitation_id=invitation.id)
        session.add(listener)
        session.flush()
        return studio.studio.authority.listener_token(listener.id)


def test_every_route_needs_credentials(studio: Opened) -> None:
    client = studio.client()
    for method, path in api_routes(studio):
        if not is_public(method, path):
            answer = client.request(method, f"http://127.0.0.1:8765{filled(path)}")
            assert answer.status_code == 401, (method, path, answer.text)


def test_a_listeners_token_reaches_nothing_but_listening(studio: Opened) -> None:
    token = listener_token(studio)
    by_cookie = studio.client()
    by_cookie.cookies.set(LISTENER_COOKIE, token)
    as_editor = studio.client()
    as_editor.cookies.set(COOKIE, token)
    for client in (studio.client(token), by_cookie, as_editor):
        for method, path in api_routes(studio):
            if is_public(method, path) or path.startswith("/api/v1/listen"):
                continue
            answer = client.request(method, f"http://127.0.0.1:8765{filled(path)}")
            assert answer.status_code in (401, 403), (method, path, answer.text)
    assert studio.client().post("session", json={"token": token}).status_code == 403


def test_nobody_else_reaches_the_listeners_routes(studio: Opened, owner: Any) -> None:
    for method, path in api_routes(studio):
        if path.startswith("/api/v1/listen/") and not is_public(method, path):
            assert owner.request(method, f"http://127.0.0.1:8765{filled(path)}").status_code == 403, path


def test_every_change_by_cookie_needs_the_csrf_token(studio: Opened) -> None:
    client = studio.client()
    done(client.post("session", json={"token": studio.token}))
    for method, path in api_routes(studio):
        if method == "GET" or is_public(method, path) or path.startswith("/api/v1/listen"):
            continue
        for headers in ({}, {"X-CSRF-Token": "x" * 24}, {"X-CSRF-Token": "ü".encode()}):
            answer = client.request(method, f"http://127.0.0.1:8765{filled(path)}", headers=headers)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (method, path)


def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites(studio: Opened) -> None:
    header = studio.client().post("session", json={"token": studio.token}).headers["set-cookie"].lower()
    assert "httponly" in header and "samesite=strict" in header


def test_a_session_ends_with_logging_out(studio: Opened) -> None:
    client = studio.client()
    csrf = done(client.post("session", json={"token": studio.token}))["csrf"]
    assert client.delete("session", headers={"X-CSRF-Token": csrf}).status_code == 204
    assert client.get("session").status_code == 401


def test_answers_have_a_content_security_policy(studio: Opened, owner: Any) -> None:
    page = owner.get("http://127.0.0.1:8765/create")
    policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'" and policy["script-src"] == "'self'"
    assert "unsafe" not in page.headers["content-security-policy"]
    assert policy["frame-ancestors"] == "'none'" and page.headers["x-content-type-options"] == "nosniff"
    answer = owner.get("jobs")
    assert answer.headers["content-security-policy"].startswith("default-src 'none'")
    assert answer.headers["cache-control"] == "no-store"


def test_only_names_of_this_machine_are_served(owner: Any) -> None:
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost.evil.example:8765", ""):
        assert owner.get("health", headers={"host": host}).status_code == 421, host
    for host in ("127.0.0.1", "localhost:1234", "[::1]:8765", "LOCALHOST"):
        assert owner.get("health", headers={"host": host}).status_code == 200, host


def test_tokens_that_are_none(studio: Opened) -> None:
    for token in ("", "x", "login.x", "listener.x", "a.b", "a" * 4000, "ü.ü", "listener." + "W10." * 99):
        headers = [{"authorization": f"Bearer {token}".encode()}]
        headers += [{"cookie": f"{name}={token}".encode()} for name in (COOKIE, LISTENER_COOKIE)]
        for header in headers:
            assert studio.client().get("jobs", headers=header).status_code == 401, header


def test_a_signed_text_is_good_for_its_purpose_alone(studio: Opened) -> None:
    authority = studio.studio.authority
    cookie, _ = authority.session_cookie("x")
    for text in (cookie, authority.invitation_token("x"), authority.login_token("x").removeprefix("login.")):
        for kind in ("listener.", "login.", ""):
            assert studio.client(f"{kind}{text}").get("jobs").status_code == 401


def test_errors_are_one_line_with_a_code(owner: Any) -> None:
    for answer in (
        owner.get("jobs/unknown"),
        owner.get("nothing"),
        owner.put("jobs"),
        owner.post("generations", json={}),
    ):
        assert set(answer.json()) == {"detail", "code"} and "\n" not in answer.json()["detail"]


def test_examples_are_valid_and_in_the_description(studio: Opened) -> None:
    described = studio.app.openapi()["components"]["schemas"]
    found = set()
    for name in described:
        model = getattr(schemas, name, None)
        extra = model.model_config.get("json_schema_extra") if model is not None else None
        for example in extra["examples"] if extra else ():
            model.model_validate(example)
            assert described[name]["examples"], name
            found.add(name)
    assert {"GenerationRequest", "ScoreRequest", "ComparisonRequest", "JobInfo", "ClipInfo"} <= found


def test_every_operation_is_described(studio: Opened) -> None:
    names = [route.name for route in studio.app.routes if isinstance(route, APIRoute)]
    assert len(names) == len(set(names))
    for path, methods in studio.app.openapi()["paths"].items():
        for method, operation in methods.items():
            assert operation.get("description") or operation.get("summary"), (method, path)
            assert operation["tags"], (method, path)


# Where the studio is on its machine


def ended_job(studio: Opened, owner: Any, path: str, body: dict[str, Any]) -> Iterator[str]:
    """What is said about a job: the answer to the request, the job once it ended, and the test that it is of."""
    answer = owner.post(path, json=body)
    yield answer.text
    if answer.status_code == 202:
        studio.work()
        job = answer.json()
        ended = owner.get(f"jobs/{job['job'] if 'job' in job else job['id']}")
        assert ended.json()["status"] in ("done", "failed")
        yield ended.text
        if "test" in job:
            yield owner.get(f"tests/{job['test']['id']}").text


def bad_folders(root: Path) -> list[str]:
    """Folders that can't be used, each for a reason of its own, and `short`, which can."""
    uploads = root / "uploads"
    write_clip(uploads / "without-prompts" / "a.wav", "")
    (uploads / "without-prompts" / "a.json").unlink()
    write_clip(uploads / "damaged" / "a.wav", "piano")
    (uploads / "damaged" / "a.wav").write_bytes(b"RIFF")
    write_clip(uploads / "silent" / "a.wav", "piano", level=0.0)
    write_clip(uploads / "bad-sidecar" / "a.wav", "piano")
    (uploads / "bad-sidecar" / "a.json").write_text("{{{")
    (uploads / "empty").mkdir()
    write_clip(uploads / "short" / "a.wav", "piano")
    return [f"uploads/{folder.name}" for folder in sorted(uploads.iterdir())]


def test_no_answer_says_where_the_studio_is(studio: Opened, owner: Any) -> None:
    root = studio.studio.settings.layout.root
    texts: list[str] = []
    for method, path in api_routes(studio):
        if path.endswith("/events") or (method, path) == ("DELETE", "/api/v1/session"):
            continue  # streams do not end, and the session is needed
        for value in ("x", "..%2f..%2fx"):
            address = f"http://127.0.0.1:8765{re.sub(r'{[^}]*}', value, path)}"
            texts.append(owner.request(method, address, content=b"\xff{").text)
    folders = bad_folders(root)
    for folder in folders:
        systems = [{"name": "a", "source": {"folder": folder}}, {"name": "b", "source": {"folder": "uploads/short"}}]
        texts += ended_job(studio, owner, "tests", {"name": "t", "systems": systems})
    texts += ended_job(studio, owner, "scores", {"folder": "uploads/damaged", "reward": "synthetic"})
    assert any("a.wav has no prompt, nor has any other clip" in text for text in texts)
    assert any("uploads/silent/a.wav is silent" in text for text in texts), "files are called as the API calls them"
    assert len(texts) > 100
    for text in texts:
        assert str(root) not in text and str(Path.home()) not in text, text


def test_messages_call_files_as_the_api_does(tmp_path: Path) -> None:
    settings = StudioSettings(folder=tmp_path / "studio", runs=tmp_path / "my runs")
    root = settings.layout.root
    message = f"{root}/uploads/x/a.wav and {tmp_path}/my runs/tuned/clips-a/b.wav are in {root}"
    shown = "uploads/x/a.wav and runs/tuned/clips-a/b.wav are in ."
    assert settings.without_paths({"rows": [{"error": message}], "n": 1}) == {"rows": [{"error": shown}], "n": 1}
