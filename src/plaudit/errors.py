"""Errors a user can cause. Each message is one line: what is wrong, and what to do about it."""

from __future__ import annotations

import errno
from collections.abc import Sequence

LISTED = 20
"""Names that a message lists; of the others it gives the number."""


def listed(names: Sequence[str], limit: int = LISTED) -> str:
    """Names for a message: all of a few, the first of many with the number of the others."""
    more = len(names) - limit
    return ", ".join(names[:limit]) + (f" and {more} more" if more > 0 else "")


def is_no_room(error: BaseException) -> bool:
    """Whether writing failed because the disk is full or a quota or file size limit is reached."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def is_no_memory(error: BaseException) -> bool:
    """Whether an allocation by Python, NumPy or PyTorch failed for lack of memory."""
    text = str(error).lower()
    phrases = ("not enough memory", "out of memory", "allocate memory")
    return isinstance(error, MemoryError) or any(phrase in text for phrase in phrases)


class PlauditError(Exception):
    """Base of every error that the command line prints as one line, without a trace."""


class AudioError(PlauditError):
    """An audio file or waveform cannot be used (missing, empty, truncated, silent, not finite)."""


class CorpusError(PlauditError):
    """A corpus, a caption table or a shard set is malformed."""


class ModelError(PlauditError):
    """A model folder or checkpoint is missing, damaged, or does not fit the request."""


class RecipeError(PlauditError):
    """A recipe has an unknown key, a value out of range, or a stage out of order."""


class RunError(PlauditError):
    """A run folder cannot be used: busy, damaged, or of another kind."""


class Preempted(PlauditError):
    """Training stopped on SIGTERM, with a checkpoint to resume from."""


class VoteError(PlauditError):
    """A vote record is malformed, or there are too few votes."""


class PromptError(PlauditError):
    """A prompt or a list of prompts cannot be used."""


class EngineError(PlauditError):
    """The engine that spreads work over processes is not installed, can't be reached, or keeps losing workers."""


class EvaluationError(PlauditError):
    """Clips, embeddings, a reference or a vocabulary cannot be evaluated."""
