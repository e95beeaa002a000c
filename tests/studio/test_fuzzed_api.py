"""Requests drawn from the API's own description: never a 5xx, and answers are as described."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from plaudit.studio.settings import StudioSettings
from tests.studio.conftest import Opened

schemathesis = pytest.importorskip("schemathesis")

from hypothesis import HealthCheck, Phase, given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402

STREAMS = ("/events",)
"""Streams that do not end; test_jobs.py has them."""


@pytest.fixture(scope="module")
def fuzzed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    """A studio with nobody to work off its jobs."""
    folder: Path = tmp_path_factory.mktemp("fuzzed") / "studio"
    opened = Opened(StudioSettings(folder=folder, device="cpu"))
    yield opened
    opened.close()


def fuzz(fuzzed: Opened, requests: int) -> dict[int, int]:
    """Send so many requests, spread over all operations; how many answers had each status."""
    api = schemathesis.openapi.from_asgi("/api/v1/openapi.json", fuzzed.app, headers={"host": "127.0.0.1"})
    operations = [
        result.ok()
        for result in api.get_all_operations()
        if not result.ok().path.endswith(STREAMS) and result.ok().label != "DELETE /api/v1/tokens/{token_id}"
    ]
    statuses: dict[int, int] = {}
    each = max(1, requests // len(operations))
    headers = {"authorization": f"Bearer {fuzzed.token}", "host": "127.0.0.1"}

    def send(case: Any) -> None:
        answer = case.call(headers=headers, timeout=120)  # a busy machine is no fault of the server
        statuses[answer.status_code] = statuses.get(answer.status_code, 0) + 1
        assert answer.status_code < 500, (case.as_curl_command(), answer.text)
        assert str(fuzzed.studio.settings.layout.root) not in answer.text, (case.as_curl_command(), answer.text)
        if answer.status_code >= 400 and answer.status_code != 416:
            assert set(answer.json()) == {"detail", "code"}, (case.as_curl_command(), answer.text)

    checked = settings(
        max_examples=each, deadline=None, database=None, phases=[Phase.generate], derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    for operation in operations:
        cases = [operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode]
        checked(given(case=st.one_of(cases))(send))()
    return statuses


def test_no_request_is_an_internal_error(fuzzed: Opened) -> None:
    statuses = fuzz(fuzzed, 120)
    assert {200, 404, 422} <= set(statuses)


@pytest.mark.slow
def test_ten_thousand_requests_are_no_internal_errors(fuzzed: Opened) -> None:
    statuses = fuzz(fuzzed, 10_000)
    assert sum(statuses.values()) >= 9_000
