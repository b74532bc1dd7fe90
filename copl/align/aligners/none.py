"""Aligner ``none``: what the generator wrote first, the same for everybody; what others are measured against."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from copl.align.choosing import UNKNOWN
from copl.options import NoOptions
from copl.plugins import Component
from copl.records.answers import Answer, AnswerRequests

if TYPE_CHECKING:
    from copl.interfaces import AlignerContext


@final
class NoAligner:
    """Shows everybody the first candidate; where candidates are drawn, that is a random one. Nothing is scored."""

    def __init__(self, options: NoOptions) -> None:
        self._options = options

    def answers(self, requests: AnswerRequests, context: AlignerContext) -> list[Answer]:
        """Take the first candidate of each prompt."""
        known = [context.knows(user) for user in requests.user_ids]
        return [
            Answer(
                user,
                prompt,
                candidates,
                0,
                candidates[0],
                confidence=1 / len(candidates),
                user_known=is_known,
                note="" if is_known else UNKNOWN,
            )
            for prompt, candidates in zip(requests.prompts, requests.candidates, strict=True)
            for user, is_known in zip(requests.user_ids, known, strict=True)
        ]


COMPONENTS = [
    Component(
        name="none",
        options=NoOptions,
        build=NoAligner,
        summary="the first candidate, the same for everybody",
    )
]
