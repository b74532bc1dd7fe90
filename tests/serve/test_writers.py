"""Who may wait for the writer in this process, and what it says of what it has written."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from pathlib import Path

import pytest

from copl.align.generators.local import LocalGenerator, LocalOptions
from copl.serve.faults import ApiError
from copl.serve.writers import Embedded, WritersLine


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


def test_what_a_model_here_had_to_break_off_is_known(tiny_model: Path) -> None:
    async def write() -> None:
        embedded = Embedded(["local"])
        embedded._generators = [LocalGenerator(LocalOptions(model=str(tiny_model), max_tokens=3))]
        written = await embedded.write("tea?", 2, {"seed": 0})
        assert written.cut == {*written.texts}
        await embedded.close()

    asyncio.run(write())
