"""Votes with the rewards of both clips, and checks of votes."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from plaudit.errors import VoteError
from plaudit.reward.features import FeatureStore
from plaudit.reward.scoring import Clip, score_clips
from plaudit.reward.training import TARGETS
from plaudit.reward.tunejury import TuneJury
from plaudit.reward.votes import named_files, parse_winner, usable_votes, votes_with_audio
from plaudit.settings import BothBad
from plaudit.tables import read_table, write_table
from plaudit.types import Reward, Vote

SCORED_VOTE_COLUMNS = ("id", "system_a", "system_b", "winner", "score_a", "score_b", "source")
_WINNER = ("winner", "preference")
_SCORES = (("score_a", "tj_a"), ("score_b", "tj_b"))


@dataclass(frozen=True)
class ScoredVote:
    """The rewards of both clips of a vote, and its target: 1 where A was preferred, 0 where B was, 0.5 for a tie.

    id: the vote's name, where it has one.
    """

    system_a: str
    system_b: str
    source: str
    score_a: float
    score_b: float
    target: float
    id: str = ""

    @property
    def winner(self) -> str:
        """The winner in a vote's words."""
        return {1.0: "a", 0.0: "b"}.get(self.target, "tie")


def score_votes(votes: Sequence[Vote], reward: TuneJury, store: FeatureStore) -> list[ScoredVote]:
    """The votes between clips that are not quarantined, each clip scored for the vote's prompt.

    `store` holds the features of all clips. VoteError where there is no such vote.
    """
    usable = usable_votes(votes, store)
    columns = reward.features.columns_of(store.features)
    prompts = [vote.prompt for vote in usable]
    with torch.inference_mode():
        a, b = (
            torch.cat(
                [
                    reward.score_features(store.rows(side[i : i + 4096])[:, columns], prompts[i : i + 4096])
                    for i in range(0, len(side), 4096)
                ]
            ).tolist()
            for side in ([vote.a for vote in usable], [vote.b for vote in usable])
        )
    return [
        ScoredVote(vote.system_a, vote.system_b, vote.source, score_a, score_b, TARGETS[vote.winner], vote.id)
        for vote, score_a, score_b in zip(usable, a, b, strict=True)
    ]


def score_audio_of_votes(
    votes: Sequence[Vote], reward: Reward, audio: Path, progress: Callable[[int, int], None] | None = None
) -> tuple[list[ScoredVote], list[str]]:
    """The votes whose clips can be scored by any reward, and notes on what was left out.

    audio: as plaudit.reward.votes.named_files takes it. VoteError where no vote is left.
    """
    files = named_files(audio, [clip for vote in votes for clip in (vote.a, vote.b)])
    present = votes_with_audio([votes], files)
    scorable = present.parts[0]
    pairs = list(dict.fromkeys((clip, vote.prompt) for vote in scorable for clip in (vote.a, vote.b)))
    rows = score_clips(
        [Clip(files[clip], prompt) for clip, prompt in pairs], reward, progress=progress or (lambda done, total: None)
    )
    scores = {key: row.score for key, row in zip(pairs, rows, strict=True) if row.score is not None}
    errors = [row.error for row in rows if row.error is not None]
    notes = [present.note] if present.missing else []
    if errors:
        notes.append(f"{len(errors)} clips cannot be scored; their votes are left out (the first: {errors[0]})")
    scored = [
        ScoredVote(vote.system_a, vote.system_b, vote.source, a, b, TARGETS[vote.winner], vote.id)
        for vote in scorable
        if (a := scores.get((vote.a, vote.prompt))) is not None and (b := scores.get((vote.b, vote.prompt))) is not None
    ]
    if not scored:
        first = f" ({errors[0]})" if errors else ""
        raise VoteError(f"none of {len(votes)} votes compares two clips that can be scored{first}; check their audio")
    return scored, notes


def read_scored_votes(path: Path, id_column: str = "id", both_bad: BothBad = "leave-out") -> list[ScoredVote]:
    """Scored votes of a CSV with the columns system_a, system_b, winner (or preference), score_a and score_b (or tj_a
    and tj_b) and, where they are there, source and `id_column`. A preference is a, b, tie or both_bad in any case;
    votes that find both clips bad are left out, or ties.

    VoteError in one line, naming the line and the column, where the file cannot be read that way.
    """
    table = read_table(path, error=VoteError)
    names = _columns(path, table.columns, (_WINNER, *_SCORES, ("system_a",), ("system_b",)))
    read = [_scored(row.where, row, names, id_column, both_bad) for row in table]
    votes = [vote for vote in read if vote is not None]
    if not votes:
        raise VoteError(f"{path} holds no votes" + (" but those that find both clips bad" if read else ""))
    return votes


def write_scored_votes(path: Path, votes: Sequence[ScoredVote]) -> None:
    """Write scored votes for `read_scored_votes`, whole or not at all."""
    winners = {target: winner for winner, target in TARGETS.items()}
    rows = [
        [v.id, v.system_a, v.system_b, winners[v.target], repr(v.score_a), repr(v.score_b), v.source] for v in votes
    ]
    write_table(path, SCORED_VOTE_COLUMNS, rows)


def _columns(path: Path, header: Sequence[str], required: Sequence[Sequence[str]]) -> dict[str, str]:
    """The header's name for each required column, by the first of its names."""
    columns = {names[0]: next((name for name in names if name in header), "") for names in required}
    if missing := [" or ".join(names) for names in required if not columns[names[0]]]:
        raise VoteError(f"{path} has no column {', '.join(missing)}; its columns are {', '.join(header) or 'none'}")
    return columns


def _scored(
    where: str, row: dict[str, str], names: dict[str, str], id_column: str, both_bad: BothBad
) -> ScoredVote | None:
    """The vote of a row; None for one that is left out."""
    winner = parse_winner(row[names["winner"]] or "", f"{where}: column {names['winner']!r}")
    if winner == "both_bad":
        if both_bad == "leave-out":
            return None
        winner = "tie"
    score_a, score_b = (_number(where, names[side], row[names[side]] or "") for side in ("score_a", "score_b"))
    source, id = row.get("source") or "", row.get(id_column) or ""
    return ScoredVote(row["system_a"] or "", row["system_b"] or "", source, score_a, score_b, TARGETS[winner], id)


def _number(where: str, column: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise VoteError(f"{where}: column {column!r} must be a number, not {text!r}")
    return value


@dataclass(frozen=True)
class VoteSummary:
    """How many votes there are, of what kind, and how many different systems, prompts, clips and listeners."""

    votes: int
    ties: int
    both_bad: int
    without_prompt: int
    systems: int
    prompts: int
    clips: int
    listeners: int


def summarize_votes(votes: Sequence[Vote]) -> VoteSummary:
    """Counts of votes; an empty prompt, system or listener is missing and not counted."""
    return VoteSummary(
        votes=len(votes),
        ties=sum(vote.winner == "tie" for vote in votes),
        both_bad=sum(vote.winner == "both_bad" for vote in votes),
        without_prompt=sum(not vote.prompt for vote in votes),
        systems=len(_systems(votes)),
        prompts=len({vote.prompt for vote in votes} - {""}),
        clips=len({clip for vote in votes for clip in (vote.a, vote.b)}),
        listeners=len({vote.listener for vote in votes} - {""}),
    )


def vote_warnings(votes: Sequence[Vote] | Sequence[ScoredVote]) -> list[str]:
    """Reasons why these votes are worth less than their number suggests, one line each."""
    decided = [vote for vote in votes if vote.winner in ("a", "b")]
    if not decided:
        kinds = "ties or find both clips bad" if any(vote.winner == "both_bad" for vote in votes) else "ties"
        return [f"all {len(votes)} votes are {kinds}; nothing can be learned from them"]
    warnings = []
    if len(decided) > 1 and len({vote.winner for vote in decided}) == 1:
        warnings.append(f"every decided vote is for {decided[0].winner}; check the column that says who won")
    if within := sum(vote.system_a == vote.system_b != "" for vote in votes):
        warnings.append(f"{within} votes compare a system with itself and say nothing about systems")
    if len(decided) < len(_systems(votes)):
        systems = len(_systems(votes))
        warnings.append(f"{len(decided)} decided votes for {systems} systems are too few to tell them apart")
    return warnings


def missing_clips(votes: Sequence[Vote], present: Collection[str]) -> list[str]:
    """The clips that votes name and `present` lacks, in order of first mention."""
    named = dict.fromkeys(clip for vote in votes for clip in (vote.a, vote.b))
    return [clip for clip in named if clip not in present]


def _systems(votes: Sequence[Vote] | Sequence[ScoredVote]) -> set[str]:
    return {system for vote in votes for system in (vote.system_a, vote.system_b)} - {""}
