"""Votes: reading and writing them, splitting them, their clips' audio, and the features that a reward trains on."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.cluster.hierarchy import DisjointSet
from torch import Tensor

from plaudit.audio import audio_under, read_audio
from plaudit.corpus.manifest import SPLITS
from plaudit.errors import CorpusError, VoteError, listed
from plaudit.files import find_file
from plaudit.reporting import Progress
from plaudit.reward.features import FeatureStore, RewardFeatures
from plaudit.settings import BothBad
from plaudit.storage import seed_of, to_json, write_atomically
from plaudit.tables import read_json_lines, read_table, write_table
from plaudit.types import Vote


@dataclass(frozen=True)
class VoteFeatures:
    """Lists of votes whose clips are in `store`, or in its quarantine; `notes` say what was left out."""

    votes: list[list[Vote]]
    store: FeatureStore
    notes: list[str]


def load_training_votes(
    files: Sequence[Path],
    audio: Path,
    encoders: RewardFeatures,
    folder: Path,
    progress: Progress | None = None,
    both_bad: BothBad = "leave-out",
    split: bool = True,
) -> VoteFeatures:
    """Training, validation and test votes, from one file that is split or from three files, and their features.
    Without `split`, the votes of one file in one list.

    Only votes whose clips can be used are split, so that the split does not depend on missing clips. Votes may prefer
    the same side throughout: the head does not see which side a clip is on. VoteError for another number of files.
    """
    if not split and len(files) > 1:
        raise VoteError(f"{len(files)} files of votes; give one for cross-validation, which divides it by itself")
    if len(files) not in (1, len(SPLITS)):
        raise VoteError(f"{len(files)} files of votes; give one, which is split, or one each for {', '.join(SPLITS)}")
    everything = [read_all_votes(file) for file in files]
    parts = [with_both_bad(votes, both_bad, str(file)) for votes, file in zip(everything, files, strict=True)]
    left_out = both_bad_note(sum(map(len, everything)) - sum(map(len, parts)))
    if len(parts) > 1:
        features = extract_vote_features(parts, audio, encoders, folder, progress)
        return replace(features, notes=[*left_out, *features.notes])
    divide = split_votes if split else partial(fold_votes, folds=LEAST_FOLDS)
    divide(parts[0])  # too few votes are refused before their audio is encoded
    features = extract_vote_features(parts, audio, encoders, folder, progress)
    usable = usable_votes(features.votes[0], features.store)
    divided = divide(usable)
    notes = [*left_out, *features.notes, *([divided.note] if divided.note else [])]
    if isinstance(divided, VoteFolds):
        return VoteFeatures([usable], features.store, notes)
    return VoteFeatures([divided.train, divided.validation, divided.test], features.store, notes)


def extract_vote_features(
    parts: Sequence[list[Vote]],
    audio: Path,
    encoders: RewardFeatures,
    folder: Path,
    progress: Progress | None = None,
) -> VoteFeatures:
    """Encode every clip that the votes of all `parts` name, once; features already in `folder` are reused.

    audio: as `named_files` takes it. All clip features of the two encoders are extracted, so that any blocks can be
    trained on later. Votes that name missing clips are left out; VoteError where a part has none left.
    """
    files = named_files(audio, [clip for votes in parts for vote in votes for clip in (vote.a, vote.b)])
    present = votes_with_audio(parts, files)
    everything = RewardFeatures(encoders.clap, encoders.audio_encoder, clap_through=encoders.clap_through)
    store = FeatureStore(folder, everything)
    clips = list(dict.fromkeys(clip for votes in present.parts for vote in votes for clip in (vote.a, vote.b)))

    def load(clip: str) -> tuple[Tensor, int]:
        wave, rate = read_audio(files[clip])
        return torch.from_numpy(wave), rate

    store.extract(clips, load, progress=progress)
    unusable = [store.quarantine[clip] for clip in clips if clip in store.quarantine]
    notes = [present.note] if present.missing else []
    if unusable:
        notes.append(f"{len(unusable)} clips cannot be encoded; their votes are left out (the first: {unusable[0]})")
    return VoteFeatures(present.parts, store, notes)


def usable_votes(votes: Sequence[Vote], store: FeatureStore) -> list[Vote]:
    """The votes that name no quarantined clip, in their order; VoteError where none is left."""
    unusable = store.quarantine
    usable = [vote for vote in votes if vote.a not in unusable and vote.b not in unusable]
    if not usable:
        raise VoteError(f"none of {len(votes)} votes compares two usable clips; check their audio")
    return usable


VOTE_FIELDS = tuple(field.name for field in fields(Vote))
REQUIRED = ("prompt", "a", "b", "winner")
"""The fields that every vote in a file has."""

LISTED_PROBLEMS = 5
"""Malformed lines that a message names."""

Winner = Literal["a", "b", "tie", "both_bad"]

_OUTCOMES: dict[str, Winner] = {
    "a": "a",
    "a_wins": "a",
    "model_a": "a",
    "b": "b",
    "b_wins": "b",
    "model_b": "b",
    "tie": "tie",
    "both_good": "tie",
    "both_bad": "both_bad",
}


def _outcome(name: str) -> Winner | None:
    return _OUTCOMES.get("_".join(re.split(r"[\s_-]+", name.strip().lower())))


def parse_winner(name: str, where: str) -> Winner:
    """The winner, from any of the names that votes are published with, in any case.

    "Both good" is a tie. VoteError, which begins with `where`, for another name.
    """
    outcome = _outcome(name)
    if outcome is None:
        raise VoteError(f"{where} must be one of {', '.join(_OUTCOMES)}, not {name!r}")
    return outcome


def with_both_bad(votes: Sequence[Vote], choice: BothBad, source: str) -> list[Vote]:
    """The votes without those that find both clips bad, or with those as ties; VoteError where none is left."""
    if choice == "tie":
        return [replace(vote, winner="tie") if vote.winner == "both_bad" else vote for vote in votes]
    kept = [vote for vote in votes if vote.winner != "both_bad"]
    if not kept:
        raise VoteError(f"{source}: all {len(votes)} votes find both clips bad; give votes that prefer one side")
    return kept


def both_bad_note(count: int) -> list[str]:
    """A note on `count` votes that were left out for finding both clips bad; none for zero."""
    votes = "1 vote finds" if count == 1 else f"{count} votes find"
    return [f"{votes} both clips bad and {'is' if count == 1 else 'are'} left out; --both-bad tie keeps them"] * (
        count > 0
    )


def read_votes(path: Path, both_bad: BothBad = "leave-out") -> list[Vote]:
    """Votes of a file as `read_all_votes` takes it; those that find both clips bad are left out, or ties."""
    return with_both_bad(read_all_votes(path), both_bad, str(path))


def read_all_votes(path: Path) -> list[Vote]:
    """Votes of a `.jsonl` or `.csv` file (UTF-8, one vote a line).

    Every vote has `prompt`, `a`, `b` and `winner`; the prompt may be empty. `id`, `system_a`, `system_b`, `source` and
    `listener` are optional: the id defaults to the place in the file. Other fields are ignored.
    VoteError, in one line, lists everything that is wrong: missing columns, malformed lines, ids that repeat.
    """
    if not path.exists():
        raise VoteError(f"{path} does not exist; check the file name")
    votes: list[Vote] = []
    problems: list[str] = []
    lines_of_ids: dict[str, int] = {}
    for place, (line, record) in enumerate(read_records(path, REQUIRED), start=1):
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
        write_table(path, VOTE_FIELDS, rows)
    else:
        write_atomically(path, "".join(to_json(row) + "\n" for row in rows))


def _is_csv(path: Path) -> bool:
    if path.suffix not in (".csv", ".jsonl"):
        raise VoteError(f"{path} is neither .jsonl nor .csv; name the file by its format")
    return path.suffix == ".csv"


def read_records(path: Path, required: Sequence[str]) -> Iterator[tuple[int, Any]]:
    """(line number, record) of each vote of a `.jsonl` or `.csv` file. Values of a CSV but its prompts are stripped.

    VoteError where a line is not JSON or the CSV is malformed or lacks a `required` column.
    """
    if not _is_csv(path):
        yield from read_json_lines(path, VoteError)
        return
    for row in read_table(path, required, VoteError):
        yield row.line, {name: value if name == "prompt" else value.strip() for name, value in row.items()}


def _problems(record: Any) -> list[str]:
    """Problems of a vote's record."""
    if not isinstance(record, dict):
        return [f"a vote is an object with the fields {', '.join(REQUIRED)}"]
    missing = [repr(name) for name in REQUIRED if record.get(name) is None]
    problems = []
    if missing:
        fields = "field" if len(missing) == 1 else "fields"
        problems.append(f"{fields} {', '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing")
    values = {name: record[name] for name in VOTE_FIELDS if record.get(name) is not None}
    problems += [f"field {k!r} must be text, not {v!r}" for k, v in values.items() if not isinstance(v, str)]
    problems += [f"field {name!r} is empty" for name in ("a", "b", "winner") if values.get(name) == ""]
    winner = values.get("winner")
    if isinstance(winner, str) and winner and _outcome(winner) is None:
        problems.append(f"field 'winner' must be a, b, tie or both_bad, not {winner!r}")
    if values.get("a") and values.get("a") == values.get("b"):
        problems.append(f"fields 'a' and 'b' name the same clip, {values['a']!r}")
    return problems


def _vote(record: dict[str, str], place: int) -> Vote:
    """The vote in a valid record; its id defaults to its `place` in the file."""
    values = {name: record.get(name) or "" for name in VOTE_FIELDS}
    return Vote(**values | {"id": values["id"] or str(place), "winner": _outcome(record["winner"])})  # type: ignore[arg-type]


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
        """A note on prompts and clips shared between parts, which make held-out figures optimistic; or ""."""
        return _shared_note(self.prompts_apart, self.clips_apart)


def _shared_note(prompts_apart: bool, clips_apart: bool) -> str:
    shared = [what for what, apart in (("prompts", prompts_apart), ("clips", clips_apart)) if not apart]
    if not shared:
        return ""
    return f"held-out votes share {' and '.join(shared)} with training votes; accuracy on new ones may be lower"


def split_votes(votes: list[Vote], validation: float = 0.1, test: float = 0.1, seed: int = 0) -> VoteSplit:
    """Split votes so that votes which share a prompt or a clip stay together (ours).

    `validation` and `test` are expected fractions of the votes. Votes are grouped by what they share, and a group's
    part follows from a hash of its name, so that it does not depend on the votes' order. A part that would be empty
    gets the group whose hash comes next. Where that links more than half of all votes into one group, or leaves fewer
    groups than parts, only prompts are kept apart; failing that only clips; failing that only pairs of clips. VoteError
    where there are fewer pairs than parts.
    """
    if validation < 0 or test < 0 or validation + test >= 1:
        raise VoteError(f"validation {validation} and test {test} must be fractions that leave votes to train on")
    fractions = {"test": test, "validation": validation, "train": 1 - test - validation}
    fractions = {name: fraction for name, fraction in fractions.items() if fraction > 0}
    groups, prompts_apart, clips_apart = _grouped(votes, len(fractions))
    if votes and (pairs := len(set(groups))) < len(fractions):
        raise VoteError(
            f"{len(votes)} votes on {pairs} {'pair' if pairs == 1 else 'pairs'} of clips leave none for "
            f"{next(iter(fractions))}; give votes on at least {len(fractions)} pairs"
        )
    part_of = _parts({group: _uniform(f"{seed}:{group!r}") for group in groups}, fractions)
    parts: dict[str, list[Vote]] = {name: [] for name in SPLITS}
    for vote, group in zip(votes, groups, strict=True):
        parts[part_of[group]].append(vote)
    return VoteSplit(parts["train"], parts["validation"], parts["test"], prompts_apart, clips_apart)


LEAST_FOLDS = 3
"""One to train on, one to decide when to stop, and one to predict."""


@dataclass(frozen=True)
class VoteFolds:
    """Parts of votes for cross-validation. count: how many; of_votes, groups: the fold and the group of each vote [N],
    as numbers. A group, of votes that share a prompt or a clip, is in one fold; every fold has a vote that prefers one
    side. note: as VoteSplit.note."""

    count: int
    of_votes: NDArray[np.int64]
    groups: NDArray[np.int64]
    note: str


def fold_votes(votes: Sequence[Vote], folds: int, seed: int = 0) -> VoteFolds:
    """Divide votes into as many folds, or as many as there are groups; grouped as `split_votes` does.

    The largest group goes first, each into the fold that has the fewest votes that prefer one side; the seed decides
    among equals, whatever the order of the votes. VoteError where there are fewer than three groups with such votes.
    """
    if folds < LEAST_FOLDS:
        raise VoteError(f"{folds} folds are too few; cross-validation needs at least {LEAST_FOLDS}")
    names, prompts_apart, clips_apart = _grouped(list(votes), LEAST_FOLDS)
    decided = Counter(name for name, vote in zip(names, votes, strict=True) if vote.winner in ("a", "b"))
    if len(decided) < LEAST_FOLDS:
        raise VoteError(
            f"{len(votes)} votes are too few for cross-validation; give votes that prefer one side on at least "
            f"{LEAST_FOLDS} prompts or pairs of clips"
        )
    count = min(folds, len(decided))
    fold_of: dict[Any, int] = {}
    sizes = [0] * count
    for name in sorted(set(names), key=lambda name: (-decided[name], _uniform(f"{seed}:{name!r}"), repr(name))):
        fold_of[name] = min(range(count), key=sizes.__getitem__)
        sizes[fold_of[name]] += decided[name]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return VoteFolds(
        count,
        np.array([fold_of[name] for name in names]),
        np.array([numbers[name] for name in names]),
        _shared_note(prompts_apart, clips_apart),
    )


def _grouped(votes: list[Vote], parts: int) -> tuple[list[Any], bool, bool]:
    """The group of each vote, and whether groups share no prompt and no clip."""
    clips = [[("clip", vote.a), ("clip", vote.b)] for vote in votes]
    pairs = [[("pair", *sorted((vote.a, vote.b)))] for vote in votes]
    prompts = [[("prompt", vote.prompt)] if vote.prompt else [] for vote in votes]
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


def _parts(positions: dict[Any, float], fractions: dict[str, float]) -> dict[Any, str]:
    """The part of each group by its position in [0, 1), where parts lie side by side, each as long as its fraction;
    their limits move so that none is empty."""
    order = sorted(positions, key=lambda group: (positions[group], repr(group)))
    part_of: dict[Any, str] = {}
    start, limit = 0, 0.0
    for following, (name, fraction) in zip(range(len(fractions) - 1, -1, -1), fractions.items(), strict=True):
        limit += fraction
        below = sum(positions[group] < limit for group in order) if following else len(order)
        end = min(max(below, start + 1), len(order) - following)
        part_of |= dict.fromkeys(order[start:end], name)
        start = end
    return part_of


def _linked(keys: list[list[Any]]) -> list[Any]:
    """For every list of keys, the smallest key of its connected component (lists are connected by common keys)."""
    components = DisjointSet({key for group in keys for key in group})
    for group in keys:
        for key in group[1:]:
            components.merge(group[0], key)
    smallest = {key: min(component) for component in components.subsets() for key in component}
    return [smallest[group[0]] for group in keys]


def _uniform(name: str) -> float:
    """A number in [0, 1) that depends on `name` alone."""
    return seed_of(name) / 2**64


def clip_files(source: Path) -> dict[str, Path]:
    """The file of each clip id.

    source: a folder, where a clip's id is its path in it, with or without the suffix; or a CSV (UTF-8) with a column
    `file`, relative to the table, where it is in the column `id` or, without one, the path. CorpusError in one line
    where it cannot be read, is empty, or two files have the same id.
    """
    files = _table_files(source) if source.is_file() else _folder_files(source)
    spellings = [(unicodedata.normalize(form, id), path) for form in ("NFC", "NFD") for id, path in files.items()]
    return {**dict(spellings), **files}


def named_files(source: Path, names: Iterable[str]) -> dict[str, Path]:
    """The files of `clip_files`, and of those names that are paths of one of them.

    A path is absolute, or relative to the working folder or to the folder that `source` is in.
    """
    files = clip_files(source)
    resolved = {file.resolve() for file in files.values()}
    for name in names:
        if name not in files:
            for folder in (Path(), source.parent):
                place = find_file(name, folder)
                if place is not None and place.resolve() in resolved:
                    files[name] = place
    return files


@dataclass(frozen=True)
class VotesWithAudio:
    """Lists of votes whose clips both have audio, the ids of missing clips, and how many votes were left out."""

    parts: list[list[Vote]]
    missing: list[str]
    left_out: int

    @property
    def note(self) -> str:
        """A note on missing clips; empty where there are none."""
        if not self.missing:
            return ""
        what = "1 clip is missing" if len(self.missing) == 1 else f"{len(self.missing)} clips are missing"
        votes = "1 vote is" if self.left_out == 1 else f"{self.left_out} votes are"
        return f"{what} ({listed(self.missing)}); {votes} left out for it"


def votes_with_audio(parts: Sequence[Sequence[Vote]], files: dict[str, Path]) -> VotesWithAudio:
    """Leave out votes that name a clip which is not among `files`; VoteError where a part has none left."""
    everything = [vote for votes in parts for vote in votes]
    missing = list(dict.fromkeys(clip for vote in everything for clip in (vote.a, vote.b) if clip not in files))
    complete = [[vote for vote in votes if vote.a in files and vote.b in files] for votes in parts]
    for votes, usable in zip(parts, complete, strict=True):
        if not usable:
            first_names = {file: name for name, file in reversed(files.items())}
            examples = listed([first_names[file] for file in dict.fromkeys(files.values())], 3)
            raise VoteError(
                f"none of {len(votes)} votes names two clips of the audio, which are called {examples}; missing are "
                f"{listed(missing)}"
            )
    return VotesWithAudio(complete, missing, len(everything) - sum(map(len, complete)))


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
    for row in read_table(table, ["file"]):
        file = row.filled("file", "name the audio file")
        given_id = row.get("id", "").strip()
        for id in (given_id,) if given_id else (Path(file).as_posix(), Path(file).with_suffix("").as_posix()):
            if id in files:
                raise CorpusError(f"{row.where}: id {id!r} appears twice; give each clip one line")
            if (path := find_file(file, table.parent)) is not None:
                files[id] = path
    if not files:
        raise CorpusError(f"{table} names no file that exists; paths are relative to the table")
    return files
