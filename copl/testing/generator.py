"""Checks of generators."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, final

import attrs

from copl.errors import CoplError
from copl.system.progress import SilentProgress
from copl.testing.alignment import PROMPTS
from copl.testing.check import (
    Check,
    CheckResult,
    CheckSkipped,
    Once,
    global_randomness_untouched,
    require,
    run_checks,
)
from copl.testing.common import Described

_NUM = 3


@final
@attrs.frozen(eq=False)
class _Subject:
    described: Described

    @cached_property
    def generator(self) -> Any:
        return self.described.component.build(self.described.options())

    def write(self, prompts: Sequence[str], num: int = _NUM, seed: int = 0) -> list[tuple[str, ...]]:
        """Return the candidates, after a look at each.

        Raises:
            CheckSkipped: the generator says that it cannot write here, for whatever reason.
        """
        try:
            with global_randomness_untouched():
                written = self.generator.candidates(list(prompts), num=num, seed=seed, progress=SilentProgress())
        except CoplError as error:
            raise CheckSkipped(str(error)) from error
        written = [texts if isinstance(texts, str) else tuple(texts) for texts in written]
        require(len(written) == len(prompts), f"candidates to {len(written)} prompts; {len(prompts)} were asked")
        for prompt, texts in zip(prompts, written, strict=True):
            require(not isinstance(texts, str), f"one text for {prompt!r}; give a list of texts, whatever its length")
            require(0 < len(texts) <= num, f"{len(texts)} candidates to {prompt!r}; {num} were asked for")
            wrong = [text for text in texts if not isinstance(text, str) or not text.strip()]
            require(not wrong, f"a candidate is {wrong[:1]}; candidates are texts that are not empty")
        return written

    @cached_property
    def _once(self) -> Once[list[tuple[str, ...]]]:
        return Once(lambda: self.write(PROMPTS))

    @property
    def written(self) -> list[tuple[str, ...]]:
        return self._once.get()


def says_what_it_is(subject: _Subject) -> None:
    """fingerprint is the same text each time, and follows_prompts is True or False"""
    try:
        first, second = subject.generator.fingerprint(), subject.generator.fingerprint()
    except CoplError as error:
        raise CheckSkipped(str(error)) from error
    require(isinstance(first, str) and bool(first), f"the fingerprint is {first!r}; it must be a text")
    require(first == second, f"the fingerprint changes from {first!r} to {second!r}")
    follows = subject.generator.follows_prompts
    require(isinstance(follows, bool), f"follows_prompts is {follows!r}; it must be True or False")


def writes(subject: _Subject) -> None:
    """candidates gives each prompt up to as many texts as asked for, and touches no global random state"""
    require(len(subject.written) == len(PROMPTS), "no candidates")


def repeats_itself(subject: _Subject) -> None:
    """the same seed gives the same candidates"""
    require(subject.write(PROMPTS) == subject.written, "two calls with the same seed differ")


def depends_on_the_prompt_alone(subject: _Subject) -> None:
    """a candidate depends neither on the prompts beside its own nor on their order nor on how many are asked for"""
    backwards = subject.write(PROMPTS[::-1])[::-1]
    require(backwards == subject.written, "prompts in another order get other candidates; seed each candidate alone")
    alone = subject.write(PROMPTS[1:2])
    require(alone == subject.written[1:2], "a prompt asked alone gets other candidates; seed each candidate alone")
    fewer = subject.write(PROMPTS, num=1)
    first = [texts[:1] for texts in subject.written]
    require(fewer == first, "with fewer candidates asked for, the first ones differ; seed each candidate alone")


def nothing_asked(subject: _Subject) -> None:
    """no prompts get no candidates"""
    require(subject.write([]) == [], "no prompts, but candidates")


_CHECKS: list[Check[_Subject]] = [says_what_it_is, writes, repeats_itself, depends_on_the_prompt_alone, nothing_asked]


def check_generator(described: Described) -> list[CheckResult]:
    """Check a generator on a few prompts; what needs a service or weights that are not here is skipped."""
    return run_checks(_CHECKS, _Subject(described))
