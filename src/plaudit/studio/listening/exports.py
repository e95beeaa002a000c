"""Exports of a test: votes in the package's schema, and CSV with everything."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from sqlalchemy.orm import Session

from plaudit.studio.database import Test
from plaudit.studio.listening.records import preference_record, ratings_of, votes_of
from plaudit.tables import csv_text

VOTE_COLUMNS = (
    *("id", "sequence", "created_at", "listener", "excluded", "kind", "position", "prompt", "pair"),
    *("a", "b", "system_a", "system_b", "winner", "left", "strength", "comment"),
    *("listened_a", "listened_b", "response_ms", "reward_a", "reward_b"),
)
RATING_COLUMNS = (
    "id", "sequence", "created_at", "listener", "excluded", "position", "prompt", "clip", "system", "value", "page",
)  # fmt: skip

Excluded = Mapping[str, list[str]]
"""Listeners who are left out, with the reasons."""


def vote_lines(session: Session, test: Test, excluded: Excluded) -> str:
    """The votes that count, a line of JSON each, as `plaudit reward train` reads them.

    Without repeats, checks and practice, and without listeners who are excluded. `a` and `b` are the names of the files
    in the test's folder, and in `audio/` of the exported report.
    """
    return "".join(
        json.dumps(preference_record(vote, test), ensure_ascii=False) + "\n"
        for vote in votes_of(session, test.id)
        if vote.kind == "regular" and vote.listener not in excluded
    )


def vote_table(session: Session, test: Test, excluded: Excluded) -> str:
    """Every vote, those of excluded listeners and checks too, as CSV. left: which of a and b was on the left."""
    rows = [
        {
            **asdict(vote),
            "left": "b" if vote.swapped else "a",
            "excluded": _reasons(excluded, vote.listener),
            "comment": _harmless(vote.comment),
        }
        for vote in votes_of(session, test.id)
    ]
    return csv_text(VOTE_COLUMNS, rows)


def rating_table(session: Session, test: Test, excluded: Excluded) -> str:
    """Every value of a rating test as CSV."""
    rows = [{**asdict(one), "excluded": _reasons(excluded, one.listener)} for one in ratings_of(session, test.id)]
    return csv_text(RATING_COLUMNS, rows)


def _reasons(excluded: Excluded, listener: str) -> str:
    return "; ".join(excluded.get(listener, []))


def _harmless(comment: str | None) -> str | None:
    """A listener's text that a spreadsheet would take for a formula gets an apostrophe in front."""
    return "'" + comment if comment and comment[0] in "=+-@\t\r" else comment
