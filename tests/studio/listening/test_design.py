"""The design of listening tests: pairs, balance, order."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plaudit.studio.listening.design import (
    LEAST_GAP,
    Exposure,
    Pair,
    PairTable,
    Presentation,
    Slot,
    Stimulus,
    balanced_subset,
    listener_plan,
    open_plan,
    page_order,
    page_plan,
    pairs_of,
    shuffled,
)


def stimuli(prompts: int, systems: int, takes: int = 1) -> list[Stimulus]:
    return [
        Stimulus(f"{prompt}-{system}-{take}", f"p{prompt}", f"s{system}", take)
        for prompt in range(prompts)
        for system in range(systems)
        for take in range(takes)
    ]


def regular_pairs(prompts: int, systems: int) -> list[Pair]:
    return [
        Pair(f"{a.id}:{b.id}", "regular", a.prompt, a.id, b.id, a.system, b.system)
        for a, b in pairs_of(stimuli(prompts, systems))
    ]


def all_pairs(prompts: int, systems: int) -> list[Pair]:
    regular = regular_pairs(prompts, systems)
    repeats = [replace(pair, kind="repeat", id=f"again {pair.id}") for pair in regular]
    practice = [replace(pair, kind="practice", id=f"practice {pair.id}") for pair in regular]
    obvious = [Pair(f"obvious {p}", "obvious", f"p{p}", f"{p}-x", f"{p}-y", "s0", "degraded") for p in range(prompts)]
    return [*regular, *repeats, *practice, *obvious]


def enrolled(pairs: list[Pair], listeners: int, seed: int, **counts: int) -> list[list[Presentation]]:
    """Plans of listeners who come one after the other."""
    plans: list[list[Presentation]] = []
    for listener in range(listeners):
        exposure = Exposure.of([one for plan in plans for one in plan])
        rng = np.random.default_rng([seed, listener])
        plans.append(listener_plan(pairs, exposure=exposure, rng=rng, **counts))
    return plans


def test_pairs_are_of_one_prompt_and_take_and_of_different_systems() -> None:
    found = stimuli(3, 3, takes=2)
    pairs = pairs_of(found)
    assert len(pairs) == 3 * 3 * 2
    for a, b in pairs:
        assert (a.prompt, a.take) == (b.prompt, b.take)
        assert a.system < b.system


def test_a_system_without_a_clip_is_in_no_pair_of_that_prompt() -> None:
    found = [one for one in stimuli(2, 2) if one.id != "1-1-0"]
    assert [(a.id, b.id) for a, b in pairs_of(found)] == [("0-0-0", "0-1-0")]


def test_two_clips_with_one_take_are_refused() -> None:
    with pytest.raises(ValueError, match="take 0 of s"):
        pairs_of([Stimulus("x", "p", "s"), Stimulus("y", "p", "s")])


SIZES = {
    "prompts": st.integers(1, 6),
    "systems": st.integers(2, 4),
    "listeners": st.integers(1, 7),
    "count": st.integers(1, 20),
    "seed": st.integers(0, 10**6),
}


@settings(max_examples=60, deadline=None)
@given(**SIZES)
def test_pairs_and_sides_are_balanced_over_listeners(
    prompts: int, systems: int, listeners: int, count: int, seed: int
) -> None:
    pairs = regular_pairs(prompts, systems)
    plans = enrolled(pairs, listeners, seed, count=count, repeats=0, obvious=0, practice=0)
    shown = [one for plan in plans for one in plan]
    for plan in plans:
        assert len(plan) == min(count, len(pairs)) == len({one.pair.id for one in plan})
    exposure = Exposure.of(shown)
    times = [exposure.pairs[pair.id] for pair in pairs]
    assert max(times) - min(times) <= 1
    assert all(abs(exposure.left[pair.id] - exposure.right[pair.id]) <= 1 for pair in pairs)


@settings(max_examples=60, deadline=None)
@given(**SIZES)
def test_a_listener_has_each_prompt_and_comparison_about_equally_often(
    prompts: int, systems: int, listeners: int, count: int, seed: int
) -> None:
    pairs = regular_pairs(prompts, systems)
    first = enrolled(pairs, 1, seed, count=count, repeats=0, obvious=0, practice=0)[0]
    times = Counter(one.pair.prompt for one in first)
    assert max(times.values()) - min(times.get(f"p{p}", 0) for p in range(prompts)) <= 1


@settings(max_examples=60, deadline=None)
@given(**SIZES, repeats=st.integers(0, 4), obvious=st.integers(0, 3), practice=st.integers(0, 2))
def test_repeats_come_later_on_exchanged_sides_and_checks_are_spread(
    prompts: int, systems: int, listeners: int, count: int, seed: int, repeats: int, obvious: int, practice: int
) -> None:
    pairs = all_pairs(prompts, systems)
    for plan in enrolled(pairs, listeners, seed, count=count, repeats=repeats, obvious=obvious, practice=practice):
        kinds = [one.pair.kind for one in plan]
        regular = min(count, prompts * systems * (systems - 1) // 2)
        assert kinds.count("regular") == regular
        assert kinds.count("repeat") == min(repeats, regular)
        assert kinds.count("obvious") == min(obvious, prompts)
        assert kinds.count("practice") == min(practice, prompts * systems * (systems - 1) // 2)
        assert "practice" not in kinds[kinds.count("practice") :], "practice comes first"
        assert kinds[kinds.count("practice")] != "obvious"
        places = {(one.pair.a, one.pair.b): i for i, one in enumerate(plan) if one.pair.kind == "regular"}
        for place, one in enumerate(plan):
            if one.pair.kind == "repeat":
                first = places[one.pair.a, one.pair.b]
                assert one.swapped != plan[first].swapped
                after = sum(other.pair.kind != "obvious" for other in plan[first + 1 :])
                assert place > first
                assert place - first > LEAST_GAP or after <= LEAST_GAP + kinds.count("repeat")


@settings(max_examples=60, deadline=None)
@given(**SIZES, repeats=st.integers(0, 4), obvious=st.integers(0, 3), practice=st.integers(0, 2))
def test_an_open_plan_has_slots_where_pairs_and_their_repeats_will_be(
    prompts: int, systems: int, count: int, listeners: int, seed: int, repeats: int, obvious: int, practice: int
) -> None:
    pairs = all_pairs(prompts, systems)
    table = PairTable.of(pairs)
    count = min(count, len(regular_pairs(prompts, systems)))
    for listener in range(listeners):
        rng = np.random.default_rng([seed, listener])
        plan = open_plan(table, count, repeats, obvious, practice, Exposure({}, {}, {}), rng)
        first = [one for one in plan[:practice] if isinstance(one, Presentation)]
        assert all(one.pair.kind == "practice" for one in first) and not isinstance(plan[len(first)], Presentation)
        slots = {place: one for place, one in enumerate(plan) if isinstance(one, Slot)}
        again = {place: one.repeats for place, one in slots.items() if one.repeats is not None}
        assert len(slots) - len(again) == count and len(again) == min(repeats, count)
        assert len(set(again.values())) == len(again), "no pair is repeated twice"
        for place, repeated in again.items():
            assert repeated < place and slots[repeated].repeats is None
        checks = [one for one in plan if isinstance(one, Presentation) and one.pair.kind == "obvious"]
        assert len(checks) == min(obvious, prompts)
        assert len(plan) == len(first) + len(slots) + len(checks)


def test_repeats_of_an_open_plan_leave_a_gap_and_are_of_any_pair_of_the_first_half() -> None:
    table = PairTable.of(all_pairs(6, 3))
    repeated: Counter[int] = Counter()
    for seed in range(400):
        plan = open_plan(table, 12, 1, 0, 0, Exposure({}, {}, {}), np.random.default_rng(seed))
        ((place, slot),) = [(k, one) for k, one in enumerate(plan) if isinstance(one, Slot) and one.repeats is not None]
        assert slot.repeats is not None and place - slot.repeats > LEAST_GAP
        repeated[slot.repeats] += 1
    assert set(repeated) == set(range(6)) and min(repeated.values()) > 40
    without = PairTable.of([pair for pair in all_pairs(3, 2) if pair.kind != "repeat"])
    plan = open_plan(without, 3, 2, 0, 0, Exposure({}, {}, {}), np.random.default_rng(0))
    assert plan == [Slot()] * 3


def test_practice_prefers_pairs_that_the_listener_does_not_get_later() -> None:
    pairs = all_pairs(3, 2)
    for seed in range(20):
        plan = enrolled(pairs, 1, seed, count=2, repeats=0, obvious=0, practice=1)[0]
        practice, *rest = plan
        assert (practice.pair.a, practice.pair.b) not in [(one.pair.a, one.pair.b) for one in rest]


@settings(max_examples=200, deadline=None)
@given(counts=st.lists(st.integers(1, 6), min_size=1, max_size=5), seed=st.integers(0, 10**6))
def test_a_prompt_does_not_follow_itself_where_that_can_be_avoided(counts: list[int], seed: int) -> None:
    shown = [
        Presentation(Pair(f"{p}-{i}", "regular", f"p{p}", "a", "b", "s0", "s1"), False)
        for p, count in enumerate(counts)
        for i in range(count)
    ]
    order = shuffled(shown, np.random.default_rng(seed))
    assert sorted(one.pair.id for one in order) == sorted(one.pair.id for one in shown)
    if max(counts) <= (len(shown) + 1) // 2:
        assert all(one.pair.prompt != other.pair.prompt for one, other in pairwise(order))


def test_orders_and_sides_differ_between_listeners() -> None:
    plans = enrolled(regular_pairs(4, 3), 6, 0, count=12, repeats=0, obvious=0, practice=0)
    assert len({tuple(one.pair.id for one in plan) for plan in plans}) == 6
    left = Counter(one.pair.id for plan in plans for one in plan if not one.swapped)
    assert set(left.values()) == {3}


def test_first_sides_are_random_and_not_always_a() -> None:
    sides = [
        one.swapped
        for seed in range(200)
        for one in enrolled(regular_pairs(1, 2), 1, seed, count=1, repeats=0, obvious=0, practice=0)[0]
    ]
    assert 70 < sum(sides) < 130


def test_a_subset_leaves_out_what_was_shown_most() -> None:
    pairs = regular_pairs(4, 2)
    seen = Exposure({pair.id: 5 for pair in pairs[:2]}, {}, {})
    chosen = balanced_subset(pairs, 2, seen, np.random.default_rng(0))
    assert {pair.id for pair in chosen} == {pair.id for pair in pairs[2:]}


@settings(max_examples=60, deadline=None)
@given(prompts=st.integers(1, 6), count=st.integers(1, 8), listeners=st.integers(1, 6), seed=st.integers(0, 10**6))
def test_rating_pages_are_balanced_over_listeners(prompts: int, count: int, listeners: int, seed: int) -> None:
    pages = [Pair(f"{p}", "page", f"p{p}", f"{p}-a", f"{p}-b", "s0", "anchor") for p in range(prompts)]
    shown: list[Presentation] = []
    for listener in range(listeners):
        plan = page_plan(pages, count, Exposure.of(shown), np.random.default_rng([seed, listener]))
        assert len(plan) == min(count, prompts) == len({one.pair.id for one in plan})
        shown += plan
    times = Exposure.of(shown).pairs
    assert max(times[page.id] for page in pages) - min(times[page.id] for page in pages) <= 1


def test_the_clips_of_a_page_are_in_an_order_of_their_own() -> None:
    stimuli = [f"s{i}" for i in range(5)]
    orders = {tuple(page_order(stimuli, seed)) for seed in range(30)}
    assert all(sorted(order) == stimuli for order in orders)
    assert len(orders) > 20
    assert page_order(stimuli, 3) == page_order(stimuli, 3)
