"""What votes hold, and what makes less of them than it seems."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from plaudit.reward.scored_votes import ScoredVote
from plaudit.types import Vote


@dataclass(frozen=True)
class VoteSummary:
    """How many votes there are, of what kind, and how many different systems, prompts, clips and listeners."""

    votes: int
    ties: int
    without_prompt: int
    systems: int
    prompts: int
    clips: int
    listeners: int


def summary(votes: Sequence[Vote]) -> VoteSummary:
    """Counts of votes; an empty prompt, system or listener is one that is not known and counts as none."""
    return VoteSummary(
        votes=len(votes),
        ties=sum(vote.winner == "tie" for vote in votes),
        without_prompt=sum(not vote.prompt for vote in votes),
        systems=len(_systems(votes)),
        prompts=len({vote.prompt for vote in votes} - {""}),
        clips=len({clip for vote in votes for clip in (vote.a, vote.b)}),
        listeners=len({vote.listener for vote in votes} - {""}),
    )


def doubts(votes: Sequence[Vote] | Sequence[ScoredVote]) -> list[str]:
    """Why these votes teach less than their number says, one line each; none where there is nothing to say."""
    decided = [vote for vote in votes if vote.winner != "tie"]
    if not decided:
        return [f"all {len(votes)} votes are ties; nothing can be learned from them"]
    found = []
    if len(decided) > 1 and len({vote.winner for vote in decided}) == 1:
        found.append(f"every decided vote is for {decided[0].winner}; check the column that says who won")
    if own := sum(vote.system_a == vote.system_b != "" for vote in votes):
        found.append(f"{own} votes compare a system with itself and say nothing about systems")
    if len(decided) < len(_systems(votes)):
        found.append(f"{len(decided)} decided votes for {len(_systems(votes))} systems are too few to tell them apart")
    return found


def missing_clips(votes: Sequence[Vote], present: Collection[str]) -> list[str]:
    """The clips that votes name and `present` lacks, in the order in which they are first named."""
    named = dict.fromkeys(clip for vote in votes for clip in (vote.a, vote.b))
    return [clip for clip in named if clip not in present]


def _systems(votes: Sequence[Vote] | Sequence[ScoredVote]) -> set[str]:
    return {system for vote in votes for system in (vote.system_a, vote.system_b)} - {""}
