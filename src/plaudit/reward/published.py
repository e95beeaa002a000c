"""Published TuneJury heads: their names to ours."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from plaudit.errors import ModelError
from plaudit.released import require, unwrap
from plaudit.reward.head import TuneJuryHead

WHAT = "a TuneJury head"
PREFIXES = ("score.", "net.")
"""Names begin with `score.` in heads over MuQ-MuLan, with `net.` in those over CLAP and MERT."""


def head_from_published(checkpoint: Mapping[str, Any]) -> TuneJuryHead:
    """The head in the content of a released file, ready for scoring; its widths are read from the weights.

    The layers of one sequence are counted as ours are: 0 linear, 1 batch norm, 4 linear and so on. ModelError lists,
    with shapes, what is missing, unknown or does not fit.
    """
    state = unwrap(checkpoint)
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in state)), PREFIXES[0])
    widths = _linear_shapes(state, prefix)
    head = TuneJuryHead(widths[0][1], [outputs for outputs, _ in widths[:-1]])
    own = head.state_dict()
    theirs = {ours: ours.replace("layers.", prefix, 1) for ours in own if ours.startswith("layers.")}
    require(state, WHAT, {published: tuple(own[ours].shape) for ours, published in theirs.items()})
    head.load_state_dict(own | {ours: state[published].to(own[ours].dtype) for ours, published in theirs.items()})
    return head.eval()


def _linear_shapes(state: Mapping[str, Tensor], prefix: str) -> list[tuple[int, int]]:
    """(outputs, inputs) of the linear layers in their order."""
    found = {}
    for name, value in state.items():
        if (match := re.fullmatch(rf"{re.escape(prefix)}(\d+)\.weight", name)) and value.ndim == 2:
            found[int(match[1])] = (value.shape[0], value.shape[1])
    if not found:
        held = ", ".join(list(state)[:10]) or "no tensor"
        raise ModelError(
            f"the checkpoint does not fit {WHAT}: missing the linear layers {' or '.join(f'{p}<i>' for p in PREFIXES)}"
            f".weight; it holds {held}"
        )
    return [found[index] for index in sorted(found)]
