"""From what a user has, files of votes and audio, to votes whose clips have been heard."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from plaudit.corpus.manifest import SPLITS
from plaudit.errors import VoteError
from plaudit.reward.clips import audio_loader, named_files, present_votes
from plaudit.reward.features import RewardFeatures
from plaudit.reward.fit import usable_votes
from plaudit.reward.store import FeatureStore
from plaudit.reward.votes import read_votes, split_votes
from plaudit.types import Vote


@dataclass(frozen=True)
class HeardVotes:
    """Lists of votes whose clips are in `store`, or in its quarantine; `told` are lines about what was left out."""

    votes: list[list[Vote]]
    store: FeatureStore
    told: list[str]


def hear_votes(
    parts: Sequence[list[Vote]],
    audio: Path,
    encoders: RewardFeatures,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> HeardVotes:
    """Hear every clip that the votes of all `parts` name, once, into the feature store `folder`, whatever is there.

    audio: as named_files takes it. All clip features of the two encoders are extracted, so that any blocks can be
    trained on later. Votes that name missing clips are left out; VoteError where a part has none left.
    """
    files = named_files(audio, [clip for votes in parts for vote in votes for clip in (vote.a, vote.b)])
    present = present_votes(parts, files)
    store = FeatureStore(folder, RewardFeatures(encoders.clap, encoders.listener))
    wanted = [clip for votes in present.parts for vote in votes for clip in (vote.a, vote.b)]
    store.extract(wanted, audio_loader(files), progress=progress)
    unusable = [clip for clip in dict.fromkeys(wanted) if clip in store.quarantine]
    told = [present.told] if present.missing else []
    if unusable:
        reason = store.quarantine[unusable[0]]
        told.append(f"{len(unusable)} clips could not be heard; their votes are left out (the first: {reason})")
    return HeardVotes(present.parts, store, told)


def hear_training_votes(
    files: Sequence[Path],
    audio: Path,
    encoders: RewardFeatures,
    folder: Path,
    progress: Callable[[int, int], None] | None = None,
) -> HeardVotes:
    """`hear_votes` for training, validation and test votes: of one file, whose votes are split, or of three files.

    Only votes whose clips can be used are split, so that no part depends on clips that are not there. Votes may prefer
    the same side throughout: the head is not given which side a clip is on. VoteError for another number of files.
    """
    if len(files) not in (1, len(SPLITS)):
        raise VoteError(f"{len(files)} files of votes; give one, which is split, or one each for {', '.join(SPLITS)}")
    parts = [read_votes(file) for file in files]
    if len(parts) > 1:
        return hear_votes(parts, audio, encoders, folder, progress)
    split_votes(parts[0])  # too few votes are refused before their audio is encoded
    heard = hear_votes(parts, audio, encoders, folder, progress)
    split = split_votes(usable_votes(heard.votes[0], heard.store))
    notes = [*heard.told, split.note] if split.note else heard.told
    return HeardVotes([split.train, split.validation, split.test], heard.store, notes)
