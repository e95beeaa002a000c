"""Logging in, roles, CSRF, and tokens."""

from __future__ import annotations

from tests.studio.conftest import Opened, done


def test_health_needs_no_token(studio: Opened) -> None:
    assert done(studio.client().get("health"))["status"] == "ok"


def test_without_a_token_everything_else_is_refused(studio: Opened) -> None:
    assert studio.client().get("jobs").status_code == 401
    assert studio.client("nobody.secret").get("jobs").status_code == 401


def test_a_cookie_needs_its_csrf_token_to_change_something(studio: Opened) -> None:
    client = studio.client()
    answer = done(client.post("session", json={"token": studio.token}))
    assert done(client.get("session")) == answer
    body = {"name": "a", "role": "editor"}
    assert client.post("tokens", json=body).status_code == 403
    assert client.post("tokens", json=body, headers={"X-CSRF-Token": "wrong"}).status_code == 403
    assert client.post("tokens", json=body, headers={"X-CSRF-Token": answer["csrf"]}).status_code == 201


def test_the_login_link_logs_in_but_is_no_token_of_the_api(studio: Opened) -> None:
    login = studio.studio.login_token()
    assert login is not None
    assert studio.client(login).get("jobs").status_code == 401
    client = studio.client()
    assert done(client.post("session", json={"token": login}))["role"] == "owner"
    assert client.get("jobs").status_code == 200


def test_an_editor_is_no_owner(studio: Opened) -> None:
    editor = studio.editor()
    assert editor.get("jobs").status_code == 200
    assert editor.get("tokens").status_code == 403


def test_a_revoked_token_ends_its_sessions(studio: Opened, owner) -> None:
    token = done(owner.post("tokens", json={"name": "b", "role": "editor"}), 201)
    bearer, browser = studio.client(token["token"]), studio.client()
    browser.post("session", json={"token": token["token"]})
    assert bearer.get("jobs").status_code == browser.get("jobs").status_code == 200
    done(owner.delete(f"tokens/{token['id']}"))
    assert bearer.get("jobs").status_code == browser.get("jobs").status_code == 401
    assert "token" not in done(owner.get("tokens"))["items"][0]


def test_the_last_owner_stays(studio: Opened, owner) -> None:
    [row] = done(owner.get("tokens"))["items"]
    assert owner.delete(f"tokens/{row['id']}").status_code == 409
