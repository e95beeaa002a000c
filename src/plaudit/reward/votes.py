"""Votes as files, the clips that they name, and their split."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from plaudit.audio import audio_under, read_audio
from plaudit.errors import CorpusError, VoteError, listed
from plaudit.files import find_file
from plaudit.storage import to_json, write_atomically
from plaudit.tables import table_rows
from plaudit.types import Vote

VOTE_FIELDS = tuple(field.name for field in fields(Vote))
REQUIRED = ("prompt", "a", "b", "winner")
"""The fields that every vote in a file has."""

LISTED_PROBLEMS = 5
"""Malformed lines that a message names."""

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


def _outcome(name: str) -> Literal["a", "b", "tie"] | None:
    return _OUTCOMES.get(name.strip().lower().replace(" ", "_"))


def winner_called(name: str, where: str) -> Literal["a", "b", "tie"]:
    """The winner by any of the names that votes are published with, whatever their case.

    "Both good" and "both bad" prefer neither clip: a tie. VoteError, which begins with `where`, for another name.
    """
    outcome = _outcome(name)
    if outcome is None:
        raise VoteError(f"{where} must be one of {', '.join(_OUTCOMES)}, not {name!r}")
    return outcome


def read_votes(path: Path) -> list[Vote]:
    """Votes of a `.jsonl` or `.csv` file (UTF-8, one vote a line).

    Every vote has `prompt`, `a`, `b` and `winner`; the prompt may be empty. `id`, `system_a`, `system_b`, `source` and
    `listener` are optional: a vote without an id is called by its place in the file. Other fields are ignored.
    VoteError, in one line, lists everything that is wrong: missing columns, malformed lines, ids that repeat.
    """
    if not path.exists():
        raise VoteError(f"{path} does not exist; check the file name")
    votes: list[Vote] = []
    problems: list[str] = []
    lines_of_ids: dict[str, int] = {}
    for place, (line, record) in enumerate(_csv_records(path) if _is_csv(path) else _json_records(path), start=1):
        wrong = _problems(record)
        if not wrong:
            votes.append(_vote(record, place))
            first = lines_of_ids.setdefault(votes[-1].id, line)
            wrong = [] if first == line else [f"id {votes[-1].id!r} appears twice (first in line {first})"]
        problems += [f"line {line}: {problem}" for problem in wrong]
    if problems:
        raise VoteError(f"{path}: {listed(problems, LISTED_PROBLEMS)}")
    if not votes:
        raise VoteError(f"{path} holds no votes; add one per line")
    return votes


def write_votes(path: Path, votes: Iterable[Vote]) -> None:
    """Write votes as `.jsonl` or `.csv`, by the name's suffix, whole or not at all."""
    rows = [asdict(vote) for vote in votes]
    if _is_csv(path):
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, VOTE_FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, buffer.getvalue())
    else:
        write_atomically(path, "".join(to_json(row) + "\n" for row in rows))


def _is_csv(path: Path) -> bool:
    if path.suffix not in (".csv", ".jsonl"):
        raise VoteError(f"{path} is neither .jsonl nor .csv; name the file by its format")
    return path.suffix == ".csv"


def _csv_records(path: Path) -> Iterator[tuple[int, Any]]:
    for line, row in table_rows(path, REQUIRED):
        yield line, row | {name: row[name].strip() for name in ("a", "b", "winner")}


def _json_records(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise VoteError(f"{path} is not a UTF-8 text file ({error}); save it as UTF-8") from None
    # Only "\n" ends a record: a prompt may hold U+2028 and the like, which str.splitlines would cut at.
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise VoteError(f"{path} line {number}: not valid JSON ({error.msg}); one vote per line") from None


def _problems(record: Any) -> list[str]:
    """Everything that keeps a record from being a vote."""
    if not isinstance(record, dict):
        return [f"a vote is an object with the fields {', '.join(REQUIRED)}"]
    missing = [repr(name) for name in REQUIRED if record.get(name) is None]
    problems = []
    if missing:
        fields = "field" if len(missing) == 1 else "fields"
        problems.append(f"{fields} {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    given = {name: record[name] for name in VOTE_FIELDS if record.get(name) is not None}
    problems += [f"field {k!r} must be text, not {v!r}" for k, v in given.items() if not isinstance(v, str)]
    problems += [f"field {name!r} is empty" for name in ("a", "b", "winner") if given.get(name) == ""]
    winner = given.get("winner")
    if isinstance(winner, str) and winner and _outcome(winner) is None:
        problems.append(f"field 'winner' must be a, b or tie, not {winner!r}")
    if given.get("a") and given.get("a") == given.get("b"):
        problems.append(f"fields 'a' and 'b' name the same clip, {given['a']!r}")
    return problems


def _vote(record: dict[str, str], place: int) -> Vote:
    """The vote in a sound record; `place` in the file names one that has no id."""
    given = {name: record.get(name) or "" for name in VOTE_FIELDS}
    return Vote(**given | {"id": given["id"] or str(place), "winner": _outcome(record["winner"])})  # type: ignore[arg-type]


@dataclass(frozen=True)
class VoteSplit:
    """Votes for training, for stopping and calibration, and for the figures that are reported.

    prompts_apart, clips_apart: whether no prompt, and no clip, is in two of them.
    """

    train: list[Vote]
    validation: list[Vote]
    test: list[Vote]
    prompts_apart: bool
    clips_apart: bool

    @property
    def note(self) -> str:
        """What the parts share, for whoever reads figures on held-out votes; empty where they share nothing."""
        shared = [what for what, apart in (("prompts", self.prompts_apart), ("clips", self.clips_apart)) if not apart]
        if not shared:
            return ""
        return f"held-out votes share {' and '.join(shared)} with training votes; accuracy on new ones may be lower"


def split_votes(votes: list[Vote], validation: float = 0.1, test: float = 0.1, seed: int = 0) -> VoteSplit:
    """Split votes so that votes which share a prompt or a clip stay together (ours).

    `validation` and `test` are expected shares of the votes. Votes are grouped by what they share, and a group's place
    follows from a hash of its name: it does not depend on the votes' order. A part that would be empty gets the group
    whose hash comes next. Where that ties more than half of all votes into one group, or leaves fewer groups than
    parts, only prompts are kept apart; failing that only clips; failing that only pairs of clips. VoteError where there
    are fewer pairs than parts.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise VoteError(f"validation {validation} and test {test} must be shares that leave votes to train on")
    shares = {"test": test, "validation": validation, "train": 1 - test - validation}
    wanted = [name for name, share in shares.items() if share > 0]
    groups, prompts_apart, clips_apart = _grouped(votes, len(wanted))
    if votes and len(set(groups)) < len(wanted):
        pairs = len(set(groups))
        told = f"{len(votes)} votes on {pairs} {'pair' if pairs == 1 else 'pairs'} of clips leave none for"
        raise VoteError(f"{told} {wanted[0]}; give votes on at least {len(wanted)} pairs")
    part_of = _parts({group: _uniform(f"{seed}:{group!r}") for group in groups}, shares)
    parts: dict[str, list[Vote]] = {"train": [], "validation": [], "test": []}
    for vote, group in zip(votes, groups, strict=True):
        parts[part_of[group]].append(vote)
    return VoteSplit(parts["train"], parts["validation"], parts["test"], prompts_apart, clips_apart)


def _grouped(votes: list[Vote], parts: int) -> tuple[list[Any], bool, bool]:
    """The group of each vote, and whether groups share no prompt and no clip."""
    clips = [[("clip", vote.a), ("clip", vote.b)] for vote in votes]
    pairs = [[("pair", *sorted((vote.a, vote.b)))] for vote in votes]
    prompts = [_prompt_key(vote) for vote in votes]
    ways: list[tuple[list[list[Any]], bool, bool]] = [
        ([both + prompt for both, prompt in zip(clips, prompts, strict=True)], True, True),
        ([prompt or pair for prompt, pair in zip(prompts, pairs, strict=True)], True, False),
        (clips, False, True),
    ]
    for keys, prompts_apart, clips_apart in ways:
        groups = _linked(keys)
        counts = Counter(groups)
        if len(counts) >= parts and max(counts.values()) <= len(votes) / 2:
            return groups, prompts_apart, clips_apart
    return _linked(pairs), False, False


def _parts(positions: dict[Any, float], shares: dict[str, float]) -> dict[Any, str]:
    """The part of each group by its position in [0, 1): parts lie side by side there, each as long as its share, and
    give way so that none is empty."""
    order = sorted(positions, key=lambda group: (positions[group], repr(group)))
    wanted = {name: share for name, share in shares.items() if share > 0}
    found: dict[Any, str] = {}
    start, edge = 0, 0.0
    for left, (name, share) in zip(range(len(wanted) - 1, -1, -1), wanted.items(), strict=True):
        edge += share
        reach = sum(positions[group] < edge for group in order) if left else len(order)
        end = min(max(reach, start + 1), len(order) - left)
        found |= dict.fromkeys(order[start:end], name)
        start = end
    return found


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


def clip_files(source: Path) -> dict[str, Path]:
    """The file of each clip id.

    source: a folder, whose clips are called by their paths in it, with or without the suffix; or a CSV (UTF-8) with a
    column `file`, relative to the table, whose clips are called by a column `id` or, without one, like those of a
    folder. CorpusError in one line where it cannot be read, holds nothing, or two files have the same id.
    """
    files = _table_files(source) if source.is_file() else _folder_files(source)
    spellings = [(unicodedata.normalize(form, id), path) for form in ("NFC", "NFD") for id, path in files.items()]
    return {**dict(spellings), **files}


def named_files(source: Path, names: Iterable[str]) -> dict[str, Path]:
    """The files of `clip_files`, and of those names that are paths of one of them.

    A path is absolute, or relative to the working folder or to the folder that `source` is in.
    """
    files = clip_files(source)
    known = {file.resolve() for file in files.values()}
    for name in names:
        if name not in files:
            for folder in (Path(), source.parent):
                place = find_file(name, folder)
                if place is not None and place.resolve() in known:
                    files[name] = place
    return files


def audio_loader(files: dict[str, Path]) -> Callable[[str], tuple[Tensor, int]]:
    """What FeatureStore.extract asks for a clip's waveform [T] and its rate."""

    def load(id: str) -> tuple[Tensor, int]:
        wave, rate = read_audio(files[id])
        return torch.from_numpy(wave), rate

    return load


@dataclass(frozen=True)
class PresentVotes:
    """Lists of votes both of whose clips are there, the ids of missing clips, and how many votes were left out."""

    parts: list[list[Vote]]
    missing: list[str]
    left_out: int

    @property
    def told(self) -> str:
        """One line about what is missing; empty where nothing is."""
        if not self.missing:
            return ""
        what = "1 clip is missing" if len(self.missing) == 1 else f"{len(self.missing)} clips are missing"
        votes = "1 vote that names" if self.left_out == 1 else f"{self.left_out} votes that name"
        is_out = "is" if self.left_out == 1 else "are"
        return f"{what} ({listed(self.missing)}); {votes} them {is_out} left out"


def present_votes(parts: Sequence[Sequence[Vote]], files: dict[str, Path]) -> PresentVotes:
    """Leave out the votes that name a clip which is not among `files`; VoteError where a part has none left."""
    everything = [vote for votes in parts for vote in votes]
    missing = list(dict.fromkeys(clip for vote in everything for clip in (vote.a, vote.b) if clip not in files))
    kept = [[vote for vote in votes if vote.a in files and vote.b in files] for votes in parts]
    for votes, left in zip(parts, kept, strict=True):
        if not left:
            first_names = {file: name for name, file in reversed(files.items())}
            there = listed([first_names[file] for file in dict.fromkeys(files.values())], 3)
            raise VoteError(
                f"none of {len(votes)} votes names two clips of the audio, which are called {there}; missing are "
                f"{listed(missing)}"
            )
    return PresentVotes(kept, missing, len(everything) - sum(map(len, kept)))


def _folder_files(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise CorpusError(f"{folder} does not exist; give a folder of audio or a CSV with a column file")
    paths = audio_under(folder)
    if not paths:
        raise CorpusError(f"{folder} holds no audio; put audio files (wav, flac, mp3, ogg, ...) there")
    files: dict[str, Path] = {}
    for path in paths:
        name = path.relative_to(folder)
        for id in (name.as_posix(), name.with_suffix("").as_posix()):
            if id in files:
                raise CorpusError(f"{folder} has {files[id].name} and {name}, both called {id!r}; rename one of them")
            files[id] = path
    return files


def _table_files(table: Path) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for line, row in table_rows(table, ["file"]):
        file = row["file"].strip()
        if not file:
            raise CorpusError(f"{table} line {line}: column 'file' is empty; name the audio file")
        own = row.get("id", "").strip()
        for id in (own,) if own else (Path(file).as_posix(), Path(file).with_suffix("").as_posix()):
            if id in files:
                raise CorpusError(f"{table} line {line}: id {id!r} appears twice; give each clip one line")
            if (path := find_file(file, table.parent)) is not None:
                files[id] = path
    if not files:
        raise CorpusError(f"{table} names no file that exists; paths are relative to the table")
    return files
