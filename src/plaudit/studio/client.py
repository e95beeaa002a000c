"""A client of the studio's API.

    studio = StudioClient("http://127.0.0.1:8765", token)
    job = studio.generate(["slow sad piano in a minor key"], count=4)
    for clip in studio.clips(job=job["id"]):
        studio.download(clip["id"], "clips")

Errors are PlauditError, in one line. POSTs carry an Idempotency-Key and are sent again where the connection breaks, so
that they are carried out once.
"""

from __future__ import annotations

import json
import re
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from plaudit.errors import RunError
from plaudit.studio.errors import StudioError
from plaudit.writing import write_atomically

ATTEMPTS = 4
PAUSE = 0.3
"""Seconds before a second attempt; doubled for each further one."""

ENDED = ("done", "failed", "cancelled")


class ApiError(StudioError):
    """An error that the API answered with. status: of HTTP; code: of the API."""

    def __init__(self, message: str, status: int, code: str) -> None:
        super().__init__(message)
        self.status = status  # type: ignore[misc]
        self.code = code  # type: ignore[misc]


class StudioClient:
    """A studio at an address. token: an owner's, editor's or listener's. transport: httpx's, for an app in process."""

    def __init__(
        self,
        address: str,
        token: str | None = None,
        transport: httpx.BaseTransport | None = None,
        timeout: float = 60.0,
    ) -> None:
        headers = {} if token is None else {"authorization": f"Bearer {token}"}
        self._http = httpx.Client(
            base_url=address.rstrip("/") + "/api/v1/", headers=headers, transport=transport, timeout=timeout
        )

    def __enter__(self) -> StudioClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Any:
        """The JSON at a path under /api/v1; query: what is None is left out."""
        return self._request("GET", path, params={name: value for name, value in query.items() if value is not None})

    def post(self, path: str, body: Mapping[str, Any] | None = None, key: str | None = None) -> Any:
        """POST JSON. key: an Idempotency-Key of the caller's, as for a call that is repeated after a crash."""
        headers = {"idempotency-key": key or secrets.token_urlsafe(18)}
        return self._request("POST", path, json=body or {}, headers=headers)

    def patch(self, path: str, body: Mapping[str, Any]) -> Any:
        """PATCH JSON."""
        return self._request("PATCH", path, json=body)

    def delete(self, path: str) -> Any:
        """DELETE."""
        return self._request("DELETE", path)

    def items(self, path: str, **query: Any) -> Iterator[dict[str, Any]]:
        """All items of a list, newest first."""
        cursor = None
        while True:
            page = self.get(path, **query, cursor=cursor)
            yield from page["items"]
            cursor = page.get("next")
            if cursor is None:
                return

    def generate(self, prompts: str | Sequence[str], wait: bool = True, **settings: Any) -> dict[str, Any]:
        """A generation's job; settings: those of POST /generations. wait: until it has ended."""
        body = {"prompts": [prompts] if isinstance(prompts, str) else list(prompts), **settings}
        job: dict[str, Any] = self.post("generations", body)
        return self.wait(job["id"]) if wait else job

    def clips(self, **query: Any) -> Iterator[dict[str, Any]]:
        """Clips, newest first; query: status, job, test, prompt, q."""
        return self.items("clips", **query)

    def download(self, clip_id: str, folder: str | Path) -> Path:
        """Write a clip's file into a folder, under the name that the studio gives it."""
        answer = self._send("GET", f"clips/{clip_id}/download")
        match = re.search(r"filename=\"([^\"]+)\"", answer.headers.get("content-disposition", ""))
        suffix = ".wav" if "wav" in answer.headers.get("content-type", "") else ".flac"
        path = Path(folder) / (Path(match[1]).name if match else f"{clip_id}{suffix}")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, answer.content)
        return path

    def upload(self, files: Sequence[str | Path], name: str = "", wait: bool = True) -> dict[str, Any]:
        """Upload audio files and perhaps a prompts.csv: {folder, job}. wait: until they are decoded."""
        headers = {"idempotency-key": secrets.token_urlsafe(18)}
        with ExitStack() as stack:
            parts = [("files", (Path(file).name, stack.enter_context(Path(file).open("rb")))) for file in files]
            answer: dict[str, Any] = self._request(
                "POST", "uploads", files=parts, params={"name": name}, headers=headers, attempts=1
            )
        if wait:
            answer["job"] = self.wait(answer["job"]["id"])
        return answer

    def score(self, wait: bool = True, **settings: Any) -> dict[str, Any]:
        """A job of scores; settings: those of POST /scores."""
        job: dict[str, Any] = self.post("scores", settings)
        return self.wait(job["id"]) if wait else job

    def wait(self, job_id: str, timeout: float | None = None) -> dict[str, Any]:
        """A job once it is done. RunError where it failed, was cancelled, or took longer than `timeout` seconds."""
        began = time.monotonic()
        while True:
            job: dict[str, Any] = self.get(f"jobs/{job_id}")
            if job["status"] == "done":
                return job
            if job["status"] in ENDED:
                raise RunError(f"job {job_id} ({job['kind']}) {job['status']}: {job['error'] or 'it was cancelled'}")
            if timeout is not None and time.monotonic() - began > timeout:
                raise RunError(f"job {job_id} ({job['kind']}) is {job['status']} after {timeout:g} s")
            time.sleep(0.1)

    def events(self, path: str = "events", last_event_id: str | None = None) -> Iterator[dict[str, Any]]:
        """Server-sent events as {id, event, data}; after a broken connection they go on where they stopped."""
        failures = 0
        while True:
            headers = {} if last_event_id is None else {"last-event-id": last_event_id}
            try:
                with self._http.stream("GET", path, headers=headers, timeout=httpx.Timeout(60, read=60)) as answer:
                    if answer.status_code >= 400:
                        answer.read()
                        raise _error(answer)
                    for event in _parsed(answer.iter_lines()):
                        failures, last_event_id = 0, event["id"]
                        yield event
                return
            except httpx.TransportError as error:
                failures += 1
                if failures >= ATTEMPTS:
                    raise _unreachable(self._http.base_url, error) from None
                time.sleep(PAUSE * 2 ** (failures - 1))

    def _request(self, method: str, path: str, **content: Any) -> Any:
        answer = self._send(method, path, **content)
        return answer.json() if answer.content else None

    def _send(self, method: str, path: str, attempts: int = ATTEMPTS, **content: Any) -> httpx.Response:
        for attempt in range(attempts):
            try:
                answer = self._http.request(method, path, **content)
                break
            except httpx.TransportError as error:
                if attempt + 1 == attempts:
                    raise _unreachable(self._http.base_url, error) from None
                time.sleep(PAUSE * 2**attempt)
        if answer.status_code >= 400:
            raise _error(answer)
        return answer


def _parsed(lines: Iterator[str]) -> Iterator[dict[str, Any]]:
    fields: dict[str, str] = {}
    for line in lines:
        if line:
            name, _, value = line.partition(":")
            if name in ("id", "event", "data"):
                fields[name] = value.removeprefix(" ")
        elif "data" in fields:
            yield {"id": fields.get("id"), "event": fields.get("event"), "data": json.loads(fields["data"])}
            fields = {}


def _error(answer: httpx.Response) -> ApiError:
    try:
        problem = answer.json()
        return ApiError(problem["detail"], answer.status_code, problem["code"])
    except (ValueError, KeyError, TypeError):
        return ApiError(f"the studio answered {answer.status_code}", answer.status_code, "unknown")


def _unreachable(address: object, error: Exception) -> RunError:
    return RunError(f"no studio answers at {address} ({type(error).__name__}); is it running?")
