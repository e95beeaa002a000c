"""The headphone screening of a listener: its state and the answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy.orm import Session

from plaudit.studio.database import Listener
from plaudit.studio.errors import Conflict
from plaudit.studio.listening import screening
from plaudit.studio.listening.audio import audio_address
from plaudit.studio.listening.plans import begin
from plaudit.studio.listening.schemas import ScreeningState
from plaudit.studio.listening.sessions import check_open, listener_and_test, settings_of


def screening_state(session: Session, listener_id: str) -> ScreeningState:
    """The screening of a listener; Conflict where the test has none or consent is missing."""
    listener, test = listener_and_test(session, listener_id)
    state = _screening(listener)
    kind, number = state["kind"], len(state["attempts"])
    over = state["passed"] is not None
    return ScreeningState(
        kind=kind,
        question=screening.QUESTION[kind],
        sounds=screening.INTERVALS,
        audio=[] if over else [audio_address(f"screening.{number}.{i}") for i in range(screening.TRIALS)],
        attempts_left=0 if over else settings_of(test).screening_attempts - number,
        passed=state["passed"],
    )


def answer_screening(session: Session, listener_id: str, answers: Sequence[int]) -> None:
    """Evaluate the answers of an attempt; who passes goes on, who fails the last attempt is screened out.

    The last attempt's answers again, sent after it was over, change nothing.
    """
    listener, test = listener_and_test(session, listener_id)
    state = dict(_screening(listener))
    attempts = list(state["attempts"])
    if state["passed"] is not None:
        if attempts and attempts[-1]["answers"] == list(answers):
            return
        raise Conflict("the screening is over; go on with the test")
    check_open(test)
    settings = settings_of(test)
    passed, right = screening.passes(state["kind"], screening.trial_seed(state, len(attempts)), answers)
    attempts.append({"answers": list(answers), "right": right})
    final = passed or len(attempts) >= settings.screening_attempts
    listener.screening = {**state, "attempts": attempts, "passed": passed if final else None}
    if passed:
        begin(session, listener, test, settings)
    elif final:
        listener.excluded = {"reasons": [f"failed the headphone screening ({right} of {screening.TRIALS} right)"]}


def _screening(listener: Listener) -> dict[str, Any]:
    if listener.consented_at is None:
        raise Conflict("read the consent text and agree first")
    if listener.screening is None:
        raise Conflict("this test has no screening; go on with the pairs")
    return listener.screening
