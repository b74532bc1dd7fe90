"""Parts that run side by side: in order, on threads of one processor each, and a fault ends them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import pytest
import torch

from copl.system.abreast import abreast, compute_abreast

T = TypeVar("T")


@pytest.fixture(autouse=True)
def three_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def elsewhere(call: Callable[[], T]) -> T:
    """Call on a thread that computes side by side."""
    with ThreadPoolExecutor(1) as thread:
        thread.submit(compute_abreast).result(60)
        return thread.submit(call).result(60)


def test_a_thread_that_does_not_ask_computes_one_part_after_the_other() -> None:
    assert list(abreast(lambda _: threading.current_thread(), range(3))) == [threading.current_thread()] * 3


def test_parts_run_at_once_each_on_one_thread_and_come_in_order() -> None:
    meeting = threading.Barrier(3, timeout=60)

    def work(part: int) -> tuple[int, int, bool]:
        meeting.wait()  # nobody gets on unless three work at once
        return part, torch.get_num_threads(), torch.is_grad_enabled()

    def call() -> tuple[list[tuple[int, int, bool]], int]:
        return list(abreast(work, range(6))), torch.get_num_threads()

    made, after = elsewhere(call)
    assert made == [(part, 1, False) for part in range(6)]
    assert after == 3


def test_one_part_has_all_processors() -> None:
    assert elsewhere(lambda: list(abreast(lambda _: torch.get_num_threads(), [0]))) == [3]


def test_a_fault_comes_out_and_nothing_goes_on_behind_it() -> None:
    done: list[int] = []

    def work(part: int) -> None:
        if part == 0:
            raise ZeroDivisionError
        done.append(part)

    def call() -> tuple[int, int, int]:
        with pytest.raises(ZeroDivisionError):
            list(abreast(work, range(1000)))
        first = len(done)
        return first, len(done), torch.get_num_threads()

    first, last, after = elsewhere(call)
    assert first == last
    assert after == 3
