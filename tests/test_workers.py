"""Threads that share work: how they divide the processors, the order of results, and what they leave as it was."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from plaudit import workers as module
from plaudit.workers import MOST, cpu_workers, division, even_slices, shared_threads, thread_count


@pytest.fixture(autouse=True)
def four_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    before = torch.get_num_threads()
    monkeypatch.setenv("OMP_NUM_THREADS", "4")  # as if the user had set it
    torch.set_num_threads(4)
    yield
    torch.set_num_threads(before)


@given(st.integers(1, 300), st.integers(1, 300), st.integers(1, 64))
def test_a_division_fits_the_threads_and_the_items(threads: int, items: int, most: int) -> None:
    count, each = division(threads, items, most)
    possible = min(threads, items, most)
    assert possible / 2 < count <= possible and each >= 1
    assert threads / 2 < count * each <= threads or count == items  # few are left idle
    if threads <= min(items, most):
        assert (count, each) == (threads, 1)


def test_divisions_known_by_hand() -> None:
    assert [division(threads, 32) for threads in (1, 2, 8, 12, 16, 64)] == [
        (1, 1), (2, 1), (8, 1), (6, 2), (8, 2), (8, 8),
    ]  # fmt: skip
    assert division(2, 1) == (1, 2) and division(4, 0) == (1, 4)


def test_the_number_of_threads_is_the_users_or_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "processors", lambda: 3)
    assert thread_count() == 4  # OMP_NUM_THREADS is set
    monkeypatch.delenv("OMP_NUM_THREADS")
    assert thread_count() == 3
    torch.set_num_threads(2)
    assert thread_count() == 2


def test_results_are_in_order_and_each_thread_computes_alone() -> None:
    meeting = threading.Barrier(4)

    def work(item: int) -> tuple[int, int, str]:
        meeting.wait(10)  # all four work at once
        return item * item, torch.get_num_threads(), threading.current_thread().name

    with cpu_workers(100) as workers:
        assert workers.count == 4
        results = workers.map(work, range(4))
        with workers.resting():
            assert torch.get_num_threads() == 4
        assert torch.get_num_threads() == 1
    assert [square for square, _, _ in results] == [0, 1, 4, 9]
    assert {threads for _, threads, _ in results} == {1} and len({name for _, _, name in results}) == 4
    assert torch.get_num_threads() == 4


def test_an_error_is_raised_when_all_have_ended() -> None:
    ended = threading.Event()

    def work(item: int) -> None:
        if item == 0:
            raise ValueError("item 0")
        ended.wait(0.2)
        ended.set()

    with pytest.raises(ValueError, match="item 0"), cpu_workers(2) as workers:
        try:
            workers.map(work, [0, 1])
        finally:
            assert ended.is_set()
    assert torch.get_num_threads() == 4


def test_one_worker_has_all_threads_and_no_thread_of_its_own() -> None:
    with cpu_workers(1) as workers:
        assert workers.count == 1 and torch.get_num_threads() == 4
        assert workers.map(lambda item: threading.current_thread(), [1, 2]) == [threading.current_thread()] * 2


def test_threads_are_shared_by_as_many_as_are_allowed() -> None:
    torch.set_num_threads(20)
    with shared_threads(100, most=20) as count:
        assert (count, torch.get_num_threads()) == (20, 1)
    with shared_threads(100) as count:
        assert count <= MOST and count * torch.get_num_threads() == 20 - 20 % count
    assert torch.get_num_threads() == 20


@given(st.integers(0, 50), st.integers(1, 20))
def test_even_slices_cover_all_items_once(items: int, parts: int) -> None:
    slices = even_slices(items, parts)
    lengths = {part.stop - part.start for part in slices}
    assert [item for part in slices for item in range(items)[part]] == list(range(items))
    assert len(slices) == parts and max(lengths) - min(lengths) <= 1
