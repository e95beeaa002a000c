"""Published TuneJury heads: their names to ours, and back."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from plaudit.errors import ModelError
from plaudit.released import require, require_sizes, unwrap
from plaudit.reward.features import PUBLISHED_BLOCKS
from plaudit.reward.head import TuneJuryHead

WHAT = "a TuneJury head (whose names begin with score. or net.)"
PREFIXES = ("score.", "net.")
"""Names begin with `score.` in heads over MuQ-MuLan, with `net.` in those over CLAP and MERT."""


def head_from_published(checkpoint: Mapping[str, Any]) -> TuneJuryHead:
    """The head in the content of a released file, ready for scoring; its widths are read from the weights.

    The layers of one sequence are counted as ours are: 0 linear, 1 batch norm, 4 linear and so on. ModelError lists,
    with shapes, what is missing, unknown or does not fit.
    """
    state = unwrap(checkpoint)
    prefix = next((p for p in PREFIXES if any(name.startswith(p) for name in state)), PREFIXES[0])
    places = [int(match[1]) for name in state if (match := re.match(rf"{re.escape(prefix)}(\d+)\.", name))]
    last = max(places, default=0)
    linears = [f"{prefix}{4 * index}.weight" for index in range(math.ceil(last / 4) + 1)]
    require_sizes(state, WHAT, dict.fromkeys(linears, 2))
    head = TuneJuryHead(state[linears[0]].shape[1], [state[name].shape[0] for name in linears[:-1]])
    own = head.state_dict()
    theirs = {ours: ours.replace("layers.", prefix, 1) for ours in own if ours.startswith("layers.")}
    require(state, WHAT, {published: tuple(own[ours].shape) for ours, published in theirs.items()})
    head.load_state_dict(own | {ours: state[published].to(own[ours].dtype) for ours, published in theirs.items()})
    return head.eval()


def head_to_published(head: TuneJuryHead, blocks: Sequence[str]) -> dict[str, Tensor]:
    """The head's tensors under the names of heads over CLAP and MERT: scores are the same but for rounding.

    What the head does to its inputs and its output goes into its first and last layers. ModelError where it hears
    blocks, or in an order, that no released head does.
    """
    if tuple(blocks) != tuple(block for block in PUBLISHED_BLOCKS if block in blocks):
        raise ModelError(f"the reward hears {', '.join(blocks)}; released heads hear {', '.join(PUBLISHED_BLOCKS)}")
    state = {name: value.detach().clone() for name, value in head.state_dict().items() if name.startswith("layers.")}
    first, last = "layers.0.", f"layers.{4 * len(head.hidden)}."
    state[first + "weight"] /= head.input_std
    state[first + "bias"] -= state[first + "weight"] @ head.input_mean
    state[last + "weight"] *= head.scale
    state[last + "bias"] = (state[last + "bias"] - head.offset) * head.scale
    return {name.replace("layers.", "net.", 1): value for name, value in state.items()}
