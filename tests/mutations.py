"""Trees of plain values with some of them replaced, removed or added, for what reads files that people edit."""

from __future__ import annotations

import copy
import math
from typing import Any

from hypothesis import strategies as st

WRONG: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**70, 1.5, math.inf, math.nan, 1e39, "", "x", "007", "no", [], {}, [None]),
    *({"a": 1}, [[]], {"steps": "x"}, [1, "x"], {"": {}}, 10**400, "\ud800", b"bytes", {1: 2}),
]


Change = tuple[list[float], int, Any]


@st.composite
def mutations(draw: st.DrawFn) -> list[Change]:
    """Where (as fractions of what is there), how (replace, remove, add) and by what a tree is changed."""
    place = st.lists(st.floats(0, 0.999), min_size=1, max_size=5)
    return draw(st.lists(st.tuples(place, st.integers(0, 2), st.sampled_from(WRONG)), min_size=1, max_size=3))


def mutated(tree: dict[str, Any], changes: list[Change]) -> dict[str, Any]:
    """A copy of the tree after the changes."""
    mutated = copy.deepcopy(tree)
    for path, kind, value in changes:
        place: Any = mutated
        for depth, share in enumerate(path):
            keys = list(place) if isinstance(place, dict) else list(range(len(place)))
            if not keys:
                break
            key = keys[int(share * len(keys))]
            inner = place[key]
            if depth + 1 < len(path) and isinstance(inner, (dict, list)) and inner:
                place = inner
                continue
            if kind == 0:
                place[key] = copy.deepcopy(value)
            elif kind == 1:
                del place[key]
            elif isinstance(place, dict):
                place[str(value)] = copy.deepcopy(value)
            else:
                place.append(copy.deepcopy(value))
            break
    return mutated
