"""Who may wait for the writer in this process."""

from __future__ import annotations

from contextlib import ExitStack

import pytest

from copl.serve.faults import ApiError
from copl.serve.writers import WritersLine


def writer_that_takes(seconds: float) -> WritersLine:
    line = WritersLine()
    for _ in range(30):
        line.took(seconds)
    return line


def test_a_quick_writer_has_as_many_wait_as_there_are_clients() -> None:
    line = writer_that_takes(0.05)
    with ExitStack() as stack:
        for _ in range(200):
            stack.enter_context(line.waiting())


def test_a_slow_writer_refuses_the_ninth_and_says_when_to_ask_again() -> None:
    line = writer_that_takes(5.0)
    with ExitStack() as stack:
        for _ in range(8):
            stack.enter_context(line.waiting())
        with pytest.raises(ApiError, match="8 requests wait for the writer already") as refused:
            stack.enter_context(line.waiting())
    assert refused.value.status == 503
    assert refused.value.headers == {"Retry-After": "40"}
    with line.waiting():
        pass
