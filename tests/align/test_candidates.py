"""What generators hand over is looked at before anybody is shown it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from copl.align.choosing import candidates_of
from copl.errors import PluginError
from copl.interfaces import Progress
from copl.system.progress import SilentProgress


class Writing:
    """A generator of another package."""

    follows_prompts = True

    def __init__(self, written: Any) -> None:
        self._written = written

    def fingerprint(self) -> str:
        return "theirs"

    def candidates(self, prompts: Sequence[str], *, num: int, seed: int, progress: Progress) -> Any:
        return self._written


@pytest.mark.parametrize(
    ("written", "fault"),
    [
        ([("a",)], "gave candidates to 1 prompts of 2"),
        ([("a",), ()], "gave no texts to 'q'"),
        (["ab", ("c",)], "gave no texts to 'p'"),
        ([("a",), ("b", " ")], "gave no texts to 'q'"),
        ([("a",), (None,)], "gave no texts to 'q'"),
    ],
)
def test_what_are_no_candidates_is_a_fault_of_the_generator(written: Any, fault: str) -> None:
    with pytest.raises(PluginError, match=fault):
        candidates_of(Writing(written), ["p", "q"], num=2, seed=0, progress=SilentProgress())


def test_candidates_may_be_lists() -> None:
    written = candidates_of(Writing([["a"], ["b", "c"]]), ["p", "q"], num=2, seed=0, progress=SilentProgress())
    assert written == [("a",), ("b", "c")]
