"""Votes between systems, of which a leaderboard needs neither clips nor prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from plaudit.errors import VoteError
from plaudit.reward.votes import Winner, parse_winner, read_records

SYSTEMS = ("system_a", "system_b")


@dataclass(frozen=True)
class SystemVote:
    """What a leaderboard needs of a vote; an empty listener is unknown."""

    system_a: str
    system_b: str
    winner: Winner
    listener: str


def read_system_votes(path: Path) -> list[SystemVote]:
    """Votes between two systems of a `.jsonl` or `.csv` file with `system_a`, `system_b` and `winner` or `preference`.

    `listener` is optional and other fields are ignored, so that a file needs no clips. Votes that compare a system with
    itself are left out. VoteError, in one line, where a vote is malformed or none is left.
    """
    votes = [_system_vote(record, f"{path} line {line}") for line, record in read_records(path, SYSTEMS)]
    between = [vote for vote in votes if vote.system_a != vote.system_b]
    if not between:
        raise VoteError(f"{path} holds no votes between two systems")
    return between


def _system_vote(record: Any, where: str) -> SystemVote:
    if not isinstance(record, dict):
        raise VoteError(f"{where}: a vote is an object with the fields {', '.join(SYSTEMS)} and winner")
    values = {name: record.get(name) or "" for name in (*SYSTEMS, "winner", "preference", "listener")}
    for name, value in values.items():
        if not isinstance(value, str):
            raise VoteError(f"{where}: field {name!r} must be text, not {value!r}")
        if not value and name in SYSTEMS:
            raise VoteError(f"{where}: field {name!r} is empty; a leaderboard needs the system of each clip")
    winner = parse_winner(values["winner"] or values["preference"], f"{where}: field 'winner' (or 'preference')")
    return SystemVote(values["system_a"], values["system_b"], winner, values["listener"])
