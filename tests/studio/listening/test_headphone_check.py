"""The headphone screening of a listener, through the API."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
import soundfile

from tests.studio.conftest import done
from tests.studio.listening.conftest import Party, pass_screening, right_answers

Open = Callable[..., Party]


@pytest.mark.parametrize("kind", ["huggins", "antiphase"])
def test_who_passes_the_screening_goes_on(party: Open, kind: str) -> None:
    test = party(screening=kind)
    listener = test.join().consent()
    assert done(listener.client.get("listen/session"))["state"] == "screening"
    assert listener.client.get("listen/next").json()["detail"] == "finish the headphone screening first"
    state = done(listener.client.get("listen/screening"))
    assert (state["kind"], len(state["audio"]), state["attempts_left"], state["passed"]) == (kind, 6, 2, None)
    for address in state["audio"]:
        wave, rate = soundfile.read(io.BytesIO(listener.client.get(address.removeprefix("/api/v1/")).content))
        assert wave.shape == (4 * rate, 2)
    pass_screening(test, listener)
    state = done(listener.client.get("listen/screening"))
    assert (state["audio"], state["passed"]) == ([], True)
    assert listener.client.get(address.removeprefix("/api/v1/")).status_code == 404, "trials are over"
    assert listener.finish()


def test_who_fails_the_screening_twice_is_out_and_gets_no_pairs(party: Open) -> None:
    test = party(screening="huggins")
    listener = test.join().consent()
    for left in (1, 0):
        wrong = [(answer + 1) % 3 for answer in right_answers(test, listener)]
        state = done(listener.client.post("listen/screening", json={"answers": wrong}))
        assert (state["attempts_left"], state["passed"]) == (left, None if left else False)
    assert done(listener.client.get("listen/session"))["state"] == "screened-out"
    assert listener.client.get("listen/next").status_code == 403
    row = done(test.owner.get(f"tests/{test.test}/listeners"))["items"][0]
    assert row["excluded"] == ["failed the headphone screening (0 of 6 right)"]
    assert row["total"] == 0
    assert "seed" not in row["screening"]
    assert done(listener.client.post("listen/screening", json={"answers": wrong}))["passed"] is False
    assert listener.client.post("listen/screening", json={"answers": [0] * 6}).status_code == 409
