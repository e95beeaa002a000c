"""The design of a listening test: which pairs there are, and which of them a listener gets, in which order and on which
sides.

Everything is a function of its arguments and a random generator; nothing here knows of the database or of audio.

Balance over listeners: each gets the pairs that fewest others got, and each pair is on the side that it was on less
often. Balance within a listener: no prompt, no comparison of two systems and no side of a system more often than it
must.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, pairwise
from typing import Literal, TypeVar

import numpy as np

PairKind = Literal["regular", "repeat", "obvious", "practice", "page"]
"""regular: counts. repeat: a pair that the listener gets a second time, on exchanged sides. obvious: a clip against a
degraded version of itself, an attention check. practice: comes first and doesn't count. page: of a rating test, whose
clips are all of the prompt's; `a` is the reference, or the first system's clip, and `b` the anchor."""

T = TypeVar("T")

LEAST_GAP = 3
"""Pairs between a pair and its repeat, where there are as many (ours)."""


@dataclass(frozen=True)
class Stimulus:
    """A clip of one system for one prompt. take: distinguishes several clips of a system for a prompt, from 0."""

    id: str
    prompt: str
    system: str
    take: int = 0


@dataclass(frozen=True)
class Pair:
    """Two stimuli of one prompt. Of an obvious pair `a` is the clip and `b` its degraded version."""

    id: str
    kind: PairKind
    prompt: str
    a: str
    b: str
    system_a: str
    system_b: str

    @property
    def systems(self) -> tuple[str, str]:
        """The two systems."""
        return self.system_a, self.system_b


@dataclass(frozen=True)
class Presentation:
    """One pair as a listener gets it. swapped: `a` is on the right."""

    pair: Pair
    swapped: bool


@dataclass(frozen=True)
class Exposure:
    """What listeners got so far: how often each pair, and how often with `a` on the left and on the right."""

    pairs: Mapping[str, int]
    left: Mapping[str, int]
    right: Mapping[str, int]

    @classmethod
    def of(cls, presentations: Sequence[Presentation]) -> Exposure:
        """Of the presentations of all listeners together."""
        return cls(
            Counter(one.pair.id for one in presentations),
            Counter(one.pair.id for one in presentations if not one.swapped),
            Counter(one.pair.id for one in presentations if one.swapped),
        )


def pairs_of(stimuli: Sequence[Stimulus]) -> list[tuple[Stimulus, Stimulus]]:
    """Every two systems' clips of each prompt, take by take; systems in the order in which they first appear.

    A system without a clip for a prompt is in no pair of it, and takes that only one of two systems has are left out.
    """
    order = {system: place for place, system in enumerate(dict.fromkeys(one.system for one in stimuli))}
    groups: dict[tuple[str, int], dict[str, Stimulus]] = {}
    for one in stimuli:
        group = groups.setdefault((one.prompt, one.take), {})
        if one.system in group:
            raise ValueError(f"two stimuli are take {one.take} of {one.system} for prompt {one.prompt}")
        group[one.system] = one
    return [
        (group[first], group[second])
        for group in groups.values()
        for first, second in combinations(sorted(group, key=order.__getitem__), 2)
    ]


def balanced_subset(pairs: Sequence[Pair], count: int, exposure: Exposure, rng: np.random.Generator) -> list[Pair]:
    """`count` of the pairs, or all where there are fewer: those that listeners got least often.

    Among equals, those whose prompt, and then whose two systems, the listener has least often so far; then at random.
    """
    seen = dict(exposure.pairs)
    left = list(pairs)
    prompts: Counter[str] = Counter()
    systems: Counter[tuple[str, str]] = Counter()
    chosen: list[Pair] = []
    draw = {pair.id: float(value) for pair, value in zip(left, rng.random(len(left)), strict=True)}
    while left and len(chosen) < count:
        best = min(left, key=lambda p: (seen.get(p.id, 0), prompts[p.prompt], systems[p.systems], draw[p.id]))
        left.remove(best)
        chosen.append(best)
        prompts[best.prompt] += 1
        systems[best.systems] += 1
    return chosen


def sides(
    pairs: Sequence[Pair], exposure: Exposure, rng: np.random.Generator, before: Sequence[Presentation] = ()
) -> list[Presentation]:
    """The pairs with sides: `a` where it was less often over all listeners.

    Where both sides are even, the side that evens out how often this listener has each of the two systems on the left;
    then at random. before: what the listener had before these pairs.
    """
    lead: Counter[str] = Counter()  # of each system: times on the left minus times on the right
    for one in before:
        step = -1 if one.swapped else 1
        lead[one.pair.system_a] += step
        lead[one.pair.system_b] -= step
    presentations = []
    for pair in pairs:
        left, right = exposure.left.get(pair.id, 0), exposure.right.get(pair.id, 0)
        if left != right:
            swapped = left > right
        elif lead[pair.system_a] != lead[pair.system_b]:
            swapped = lead[pair.system_a] > lead[pair.system_b]
        else:
            swapped = bool(rng.integers(2))
        step = -1 if swapped else 1
        lead[pair.system_a] += step
        lead[pair.system_b] -= step
        presentations.append(Presentation(pair, swapped))
    return presentations


def shuffled(presentations: Sequence[Presentation], rng: np.random.Generator) -> list[Presentation]:
    """A random order in which the same prompt does not come twice in a row where that can be avoided."""
    left = [presentations[place] for place in rng.permutation(len(presentations))]
    order: list[Presentation] = []
    while left:
        counts = Counter(one.pair.prompt for one in left)
        last = order[-1].pair.prompt if order else None
        # A prompt that has more than half of what is left must come now, or it would follow itself later.
        urgent = [prompt for prompt, count in counts.items() if 2 * count > len(left)]
        eligible = [one for one in left if one.pair.prompt != last and (not urgent or one.pair.prompt in urgent)]
        following = (eligible or [one for one in left if one.pair.prompt != last] or left)[0]
        left.remove(following)
        order.append(following)
    return order


def listener_plan(
    pairs: Sequence[Pair],
    count: int,
    repeats: int,
    obvious: int,
    practice: int,
    exposure: Exposure,
    rng: np.random.Generator,
) -> list[Presentation]:
    """What one listener gets, in order: practice, then `count` regular pairs with hidden repeats and obvious pairs
    among them.

    pairs: of all kinds. A repeat is the pair of kind "repeat" with the same two stimuli; it comes at least `LEAST_GAP`
    pairs after the first time where there are as many, on exchanged sides. Obvious pairs are spread evenly, none of
    them first.
    """
    kinds: dict[str, list[Pair]] = {kind: [] for kind in ("regular", "repeat", "obvious", "practice")}
    for pair in pairs:
        kinds[pair.kind].append(pair)
    regular = balanced_subset(kinds["regular"], count, exposure, rng)
    order = shuffled(sides(regular, exposure, rng), rng)
    order = _with_repeats(order, kinds["repeat"], repeats, exposure, rng)
    order = _with_checks(order, _balanced(kinds["obvious"], obvious, exposure, rng), rng)
    return [*_practice(kinds["practice"], practice, regular, exposure, rng), *order]


def _balanced(pairs: Sequence[Pair], count: int, exposure: Exposure, rng: np.random.Generator) -> list[Presentation]:
    return sides(balanced_subset(pairs, count, exposure, rng), exposure, rng)


def _practice(
    pairs: Sequence[Pair], count: int, regular: Sequence[Pair], exposure: Exposure, rng: np.random.Generator
) -> list[Presentation]:
    """Practice pairs, if possible of other clips than the regular pairs have."""
    shown = {(pair.a, pair.b) for pair in regular}
    fresh = [pair for pair in pairs if (pair.a, pair.b) not in shown]
    spare = [pair for pair in pairs if (pair.a, pair.b) in shown]
    chosen = balanced_subset(fresh, count, exposure, rng)
    chosen += balanced_subset(spare, count - len(chosen), exposure, rng)
    return sides(chosen, exposure, rng)


def _with_repeats(
    order: list[Presentation], repeats: Sequence[Pair], count: int, exposure: Exposure, rng: np.random.Generator
) -> list[Presentation]:
    """The order with `count` of its pairs a second time, later and with sides exchanged."""
    again = {(pair.a, pair.b): pair for pair in repeats}
    repeatable = [one for one in order if (one.pair.a, one.pair.b) in again]
    # Of those that come early, the ones repeated least often so far.
    picked = balanced_subset([again[one.pair.a, one.pair.b] for one in _early(repeatable, count)], count, exposure, rng)
    first = {(one.pair.a, one.pair.b): one for one in order}
    result = list(order)
    for pair in picked:
        before = first[pair.a, pair.b]
        _insert_later(result, Presentation(pair, not before.swapped), before, rng)
    return result


def _early(order: Sequence[T], count: int) -> Sequence[T]:
    """The first half, or `count` where that is more: those leave room behind them for a repeat."""
    return order[: max(count, (len(order) + 1) // 2)]


def _insert_later(order: list[T], item: T, first: T, rng: np.random.Generator) -> None:
    """Insert an item at a random place that is at least `LEAST_GAP` behind another, or else last."""
    earliest = min(order.index(first) + 1 + LEAST_GAP, len(order))
    order.insert(int(rng.integers(earliest, len(order) + 1)), item)


def _with_checks(order: Sequence[T], checks: Sequence[T], rng: np.random.Generator) -> list[T]:
    """The order with attention checks in it: one at a random place of each of as many equal parts, none of them
    first."""
    if not order:
        return list(checks)
    limits = np.linspace(1, len(order) + 1, len(checks) + 1)
    places = [int(rng.integers(int(low), max(int(low) + 1, int(high)))) for low, high in pairwise(limits)]
    result = list(order)
    for place, check in sorted(zip(places, checks, strict=True), key=lambda item: -item[0]):
        result.insert(place, check)
    return result


# Pairs that are chosen while the test runs


@dataclass(frozen=True)
class Slot:
    """A place in a listener's plan whose pair is chosen when its turn comes.

    repeats: None for a regular pair; for a hidden repeat the position of the pair that it repeats.
    """

    repeats: int | None = None


@dataclass(frozen=True)
class PairTable:
    """The pairs of a test: all in order, the regular ones by comparison (two systems), the repeats by their stimuli."""

    pairs: tuple[Pair, ...]
    comparisons: Mapping[tuple[str, str], tuple[Pair, ...]]
    repeats: Mapping[tuple[str, str], Pair]

    @classmethod
    def of(cls, pairs: Sequence[Pair]) -> PairTable:
        """Of a test's pairs."""
        comparisons: dict[tuple[str, str], list[Pair]] = {}
        for pair in pairs:
            if pair.kind == "regular":
                comparisons.setdefault(pair.systems, []).append(pair)
        return cls(
            tuple(pairs),
            {systems: tuple(group) for systems, group in comparisons.items()},
            {(pair.a, pair.b): pair for pair in pairs if pair.kind == "repeat"},
        )


def open_plan(
    table: PairTable,
    count: int,
    repeats: int,
    obvious: int,
    practice: int,
    exposure: Exposure,
    rng: np.random.Generator,
) -> list[Presentation | Slot]:
    """A plan as `listener_plan` makes it, with slots where regular pairs and their repeats are to be.

    Any slot of the first half may be repeated, at the same distance, and obvious pairs are spread over all.
    """
    regular = [_OpenPair(number) for number in range(min(count, sum(map(len, table.comparisons.values()))))]
    early = _early(regular, repeats) if table.repeats else []
    order: list[_OpenPair | Presentation] = [*regular]
    for place in rng.permutation(len(early))[:repeats]:
        _insert_later(order, _OpenPair(early[place].number, is_repeat=True), early[place], rng)
    checks = _balanced([pair for pair in table.pairs if pair.kind == "obvious"], obvious, exposure, rng)
    order = _with_checks(order, checks, rng)
    exercises = [pair for pair in table.pairs if pair.kind == "practice"]
    plan = [*_practice(exercises, practice, [], exposure, rng), *order]
    return [
        one if isinstance(one, Presentation) else Slot(plan.index(_OpenPair(one.number)) if one.is_repeat else None)
        for one in plan
    ]


@dataclass(frozen=True)
class _OpenPair:
    """A regular pair of an open plan, by its number among them, or its repeat."""

    number: int
    is_repeat: bool = False


def choose_presentation(
    slot: Slot,
    table: PairTable,
    before: Mapping[int, Presentation],
    exposure: Exposure,
    choose: Callable[[Sequence[tuple[str, str]]], int],
    rng: np.random.Generator,
    usable: Callable[[Pair], bool] = lambda pair: True,
) -> Presentation | None:
    """What a listener gets at a slot; None where no pair is left, or the pair to repeat was never given.

    before: what the listener has got, by position. choose: the place, among comparisons of two systems, of the one to
    ask about. Among its pairs, which differ in the prompt, it is one that the listener has not heard, not of the prompt
    that came last where that can be avoided; of these, one that fewest listeners had, of a prompt that the listener had
    least often. usable: whether a pair can be given at all; asked of a pair before it is given.
    """
    if slot.repeats is not None:
        first = before.get(slot.repeats)
        pair = None if first is None else table.repeats.get((first.pair.a, first.pair.b))
        return None if first is None or pair is None else Presentation(pair, not first.swapped)
    presentations = [before[position] for position in sorted(before)]
    given = {(one.pair.a, one.pair.b) for one in presentations if one.pair.kind == "regular"}
    practised = {(one.pair.a, one.pair.b) for one in presentations if one.pair.kind == "practice"}
    for avoided in (given | practised, given):  # one that was practice comes again only where nothing else is left
        groups = {
            systems: [pair for pair in group if (pair.a, pair.b) not in avoided]
            for systems, group in table.comparisons.items()
        }
        while open_groups := [systems for systems, group in groups.items() if group]:
            group = groups[open_groups[choose(open_groups)]]
            pair = _least_given(group, presentations, exposure, rng)
            if usable(pair):
                return sides([pair], exposure, rng, presentations)[0]
            group[:] = [other for other in group if other is not pair and usable(other)]
    return None


def _least_given(
    pairs: Sequence[Pair], before: Sequence[Presentation], exposure: Exposure, rng: np.random.Generator
) -> Pair:
    prompts = Counter(one.pair.prompt for one in before)
    last = before[-1].pair.prompt if before else None
    draw = rng.random(len(pairs))
    best = min(
        range(len(pairs)),
        key=lambda i: (
            pairs[i].prompt == last, exposure.pairs.get(pairs[i].id, 0), prompts[pairs[i].prompt], draw[i],
        ),
    )  # fmt: skip
    return pairs[best]


def page_plan(pages: Sequence[Pair], count: int, exposure: Exposure, rng: np.random.Generator) -> list[Presentation]:
    """What one listener gets of a rating test: `count` pages that fewest had so far, in random order."""
    chosen = balanced_subset(pages, count, exposure, rng)
    return [Presentation(chosen[place], False) for place in rng.permutation(len(chosen))]


def page_order(stimuli: Sequence[str], seed: int) -> list[str]:
    """The stimuli of a rating page in the order in which a listener gets them."""
    return [stimuli[place] for place in np.random.default_rng(seed).permutation(len(stimuli))]
