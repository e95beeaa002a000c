"""Results of a test from its answers. `compute` reads the answers and computes everything, which takes about half a
second for 3,000 votes: the server leaves it to a process beside it (`calculator`), as votes would wait meanwhile."""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, is_dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any

from sqlalchemy.orm import Session

from plaudit.studio.database import Test, now
from plaudit.studio.listening.records import (
    RatingRecord,
    VoteRecord,
    count_answers,
    ratings_of,
    systems_of,
    votes_of,
)
from plaudit.studio.listening.schemas import TestSettings

if TYPE_CHECKING:
    from plaudit.studio.listening.statistics.answers import Answer


@dataclass(frozen=True)
class Version:
    """What results depend on that changes: how many answers there are, and the settings, by their digest."""

    answers: int
    settings: str

    @classmethod
    def of(cls, session: Session, test: Test) -> Version:
        """The version of a test's results now. Answers are never changed or removed, so that their number suffices."""
        settings = json.dumps(test.settings["settings"], sort_keys=True)
        return cls(count_answers(session, test.id), hashlib.sha256(settings.encode()).hexdigest())

    def includes(self, other: Version) -> bool:
        """Whether results of this version have all that those of the other have."""
        return self.settings == other.settings and self.answers >= other.answers


@dataclass(frozen=True)
class Computed:
    """Computed results. figures: as in `PreferenceResults` or `RatingResults`. seconds: how long it took."""

    version: Version
    figures: dict[str, Any]
    seconds: float
    computed_at: str


def compute(session: Session, test: Test) -> Computed:
    """Compute the results of a test from all its answers."""
    begun, at = time.monotonic(), now()
    settings = TestSettings.model_validate(test.settings["settings"])
    systems = [row.name for row in systems_of(session, test.id)]
    version = Version.of(session, test)
    if test.kind == "rating":
        figures = _rating_results(ratings_of(session, test.id), systems, settings)
    else:
        figures = _preference_results(votes_of(session, test.id), systems, settings)
    return Computed(version, _plain(figures), time.monotonic() - begun, at)


def answers_of(votes: Sequence[VoteRecord]) -> list[Answer]:
    """Votes as the statistics take them."""
    from plaudit.studio.listening.statistics.answers import Answer

    return [
        Answer(
            listener=vote.listener, id=vote.id, prompt=vote.prompt, a=vote.a, b=vote.b, system_a=vote.system_a,
            system_b=vote.system_b, winner=vote.winner, kind=vote.kind, swapped=vote.swapped,  # type: ignore[arg-type]
            expected=vote.expected, listened_a=vote.listened_a, listened_b=vote.listened_b,  # type: ignore[arg-type]
            response_ms=vote.response_ms,
        )
        for vote in votes
    ]  # fmt: skip


def _preference_results(votes: Sequence[VoteRecord], systems: Sequence[str], settings: TestSettings) -> dict[str, Any]:
    from plaudit.studio.listening.statistics.answers import counted
    from plaudit.studio.listening.statistics.reward_accuracy import reward_accuracy
    from plaudit.studio.listening.statistics.summary import summarize
    from plaudit.studio.listening.statistics.win_rates import win_rates

    answers = answers_of(votes)
    pairs = list(combinations(systems, 2))
    summary = summarize(answers, settings.exclusion_rules, systems, pairs, margin=settings.margin, power=settings.power)
    rewards = {vote.a: vote.reward_a for vote in votes} | {vote.b: vote.reward_b for vote in votes}
    kept = counted(answers, summary.excluded)
    result = asdict(summary)
    result["intransitivity"]["rate"] = summary.intransitivity.rate
    for row, strength in zip(result["board"]["strengths"], summary.board.strengths, strict=True):
        row["arena_score"] = strength.arena_score
    result["reward"] = asdict(reward_accuracy(kept, rewards.get)) if settings.reward is not None else None
    # Reviewers ask what the exclusions change.
    everybody = counted(answers) if summary.excluded else []
    result["without_exclusion"] = [asdict(row) for row in win_rates(everybody)]
    return result


def _rating_results(ratings: Sequence[RatingRecord], systems: Sequence[str], settings: TestSettings) -> dict[str, Any]:
    from plaudit.studio.listening import rating

    pages: dict[tuple[str, str], dict[str, int]] = {}
    prompts: dict[str, str] = {}
    for one in ratings:
        pages.setdefault((one.listener, one.page), {})[one.system] = int(one.value)
        prompts[one.page] = one.prompt
    rated = [rating.RatedPage(listener, prompts[page], values) for (listener, page), values in pages.items()]
    return asdict(rating.summarize(rated, [*systems, rating.ANCHOR], settings.reference))


def _plain(value: Any) -> Any:
    """Values for JSON: infinite and undefined numbers are None."""
    if is_dataclass(value) and not isinstance(value, type):
        return _plain(asdict(value))
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
