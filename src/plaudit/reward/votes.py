"""Votes as files, and their split into training, validation and test votes that share no prompt."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections import Counter
from collections.abc import Hashable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from plaudit.assets import to_json, write_atomically
from plaudit.corpus.table import delimiter_of
from plaudit.errors import VoteError
from plaudit.types import Vote

FIELDS = tuple(field.name for field in fields(Vote))
WINNERS = ("a", "b", "tie")
_NEVER_EMPTY = ("id", "a", "b")

_OUTCOMES: dict[str, Literal["a", "b", "tie"]] = {
    "a": "a",
    "a_wins": "a",
    "model_a": "a",
    "b": "b",
    "b_wins": "b",
    "model_b": "b",
    "tie": "tie",
    "both_good": "tie",
    "both_bad": "tie",
}


def winner_called(name: str, where: str) -> Literal["a", "b", "tie"]:
    """The winner by any of the names that votes are published with, whatever their case.

    "Both good" and "both bad" prefer neither clip: a tie. VoteError, which begins with `where`, for another name.
    """
    key = name.strip().lower().replace(" ", "_")
    if key not in _OUTCOMES:
        raise VoteError(f"{where} must be one of {', '.join(_OUTCOMES)}, not {name!r}")
    return _OUTCOMES[key]


def read_votes(path: Path) -> list[Vote]:
    """Votes of a `.jsonl` or `.csv` file (UTF-8, one vote per line, the fields of Vote; others are ignored).

    VoteError names the line and the field of the first record that is malformed or repeats an id.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise VoteError(f"{path} does not exist; check the file name") from None
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise VoteError(f"{path} is not a UTF-8 text file ({error}); save it as UTF-8") from None
    records = _csv_records(path, text) if _is_csv(path) else _json_records(path, text)
    votes, seen = [], set()
    for line, record in records:
        vote = _vote(path, line, record)
        if vote.id in seen:
            raise VoteError(f"{path} line {line}: id {vote.id!r} appears twice; every vote needs its own")
        seen.add(vote.id)
        votes.append(vote)
    if not votes:
        raise VoteError(f"{path} holds no votes")
    return votes


def write_votes(path: Path, votes: Iterable[Vote]) -> None:
    """Write votes as `.jsonl` or `.csv`, by the name's suffix, whole or not at all."""
    rows = [asdict(vote) for vote in votes]
    if _is_csv(path):
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, buffer.getvalue())
    else:
        write_atomically(path, "".join(to_json(row) + "\n" for row in rows))


def _is_csv(path: Path) -> bool:
    if path.suffix not in (".csv", ".jsonl"):
        raise VoteError(f"{path} is neither .jsonl nor .csv; name the file by its format")
    return path.suffix == ".csv"


def _csv_records(path: Path, text: str) -> Iterable[tuple[int, Any]]:
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter_of(text, FIELDS), strict=True)
    try:
        for record in reader:
            yield reader.line_num, record
    except csv.Error as error:
        raise VoteError(f"{path} line {reader.line_num}: not valid CSV ({error}); quote the field") from None


def _json_records(path: Path, text: str) -> Iterable[tuple[int, Any]]:
    # Only "\n" ends a record: a prompt may hold U+2028 and the like, which str.splitlines would cut at.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise VoteError(f"{path} line {number}: not valid JSON ({error.msg}); one vote per line") from None


def _vote(path: Path, line: int, record: Any) -> Vote:
    where = f"{path} line {line}"
    if not isinstance(record, dict):
        raise VoteError(f"{where}: a vote is an object with the fields {', '.join(FIELDS)}")
    for field in FIELDS:
        if record.get(field) is None:
            raise VoteError(f"{where}: field {field!r} is missing")
        if not isinstance(record[field], str):
            raise VoteError(f"{where}: field {field!r} must be text, not {record[field]!r}")
        if field in _NEVER_EMPTY and not record[field]:
            raise VoteError(f"{where}: field {field!r} is empty")
    if record["winner"] not in WINNERS:
        raise VoteError(f"{where}: field 'winner' must be a, b or tie, not {record['winner']!r}")
    if record["a"] == record["b"]:
        raise VoteError(f"{where}: fields 'a' and 'b' name the same clip, {record['a']!r}")
    return Vote(**{field: record[field] for field in FIELDS})


@dataclass(frozen=True)
class VoteSplit:
    """Votes for training, for stopping and calibration, and for the figures that are reported.

    No prompt is in two of them. `clips_apart` says whether that holds for clips as well.
    """

    train: list[Vote]
    validation: list[Vote]
    test: list[Vote]
    clips_apart: bool


def split_votes(votes: list[Vote], validation: float = 0.1, test: float = 0.1, seed: int = 0) -> VoteSplit:
    """Split votes so that votes which share a prompt or a clip stay together (ours).

    `validation` and `test` are expected shares of the votes. Votes are grouped by what they share, and a group's place
    follows from a hash of its name: it does not depend on the votes' order. Where shared clips tie more than half
    of all votes into one group (a few clips compared under many prompts), only prompts are kept apart; a vote without
    a prompt then belongs to its pair. VoteError where a split that was asked for comes out empty.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise VoteError(f"validation {validation} and test {test} must be shares that leave votes to train on")
    groups = _linked([[("clip", v.a), ("clip", v.b), *_prompt_key(v)] for v in votes])
    clips_apart = not votes or max(Counter(groups).values()) <= len(votes) / 2
    if not clips_apart:
        groups = _linked([_prompt_key(v) or [("pair", *sorted((v.a, v.b)))] for v in votes])
    parts: dict[str, list[Vote]] = {"train": [], "validation": [], "test": []}
    for vote, group in zip(votes, groups, strict=True):
        position = _uniform(f"{seed}:{group!r}")
        parts["test" if position < test else "validation" if position < test + validation else "train"].append(vote)
    for name, share in (("train", 1.0), ("validation", validation), ("test", test)):
        if share > 0 and not parts[name]:
            raise VoteError(f"{len(votes)} votes leave none for {name}; give more votes or a larger share")
    return VoteSplit(parts["train"], parts["validation"], parts["test"], clips_apart)


def _prompt_key(vote: Vote) -> list[Hashable]:
    return [("prompt", vote.prompt)] if vote.prompt else []


def _linked(keys: list[list[Any]]) -> list[Any]:
    """For every list of keys, the smallest key of all lists that it is linked to, directly or through others."""
    parent: dict[Any, Any] = {}

    def root(key: Any) -> Any:
        parent.setdefault(key, key)
        while parent[key] != key:
            parent[key] = parent[parent[key]]
            key = parent[key]
        return key

    for group in keys:
        roots = sorted({root(key) for key in group})
        for other in roots[1:]:
            parent[other] = roots[0]
    return [root(group[0]) for group in keys]


def _uniform(name: str) -> float:
    """A number in [0, 1) that depends on `name` alone."""
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest()) / 2**64
