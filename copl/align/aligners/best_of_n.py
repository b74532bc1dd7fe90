"""Aligner ``best-of-n``: of the candidates, the one with the highest reward for the user."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from copl.align.choosing import best_answer, favourite
from copl.options import NoOptions
from copl.plugins import Component
from copl.records.answers import Answer, AnswerRequests

if TYPE_CHECKING:
    from copl.interfaces import AlignerContext


@final
class BestOfN:
    """Shows the candidate with the highest personal reward; a user nobody knows sees the average user's favourite."""

    def __init__(self, options: NoOptions) -> None:
        self._options = options

    def answers(self, requests: AnswerRequests, context: AlignerContext) -> list[Answer]:
        """Choose among the candidates of the requests."""
        rewards = context.rewards(requests)
        known = [context.knows(user) for user in requests.user_ids]
        answers: list[Answer] = []
        worth = zip(requests.prompts, requests.candidates, rewards.personal, rewards.unpersonalised, strict=True)
        for prompt, candidates, personal, average in worth:
            unpersonalised = candidates[favourite(average)]
            answers += [
                best_answer(user, prompt, candidates, own, unpersonalised, known=is_known)
                for user, own, is_known in zip(requests.user_ids, personal, known, strict=True)
            ]
        return answers


COMPONENTS = [
    Component(
        name="best-of-n",
        options=NoOptions,
        build=BestOfN,
        summary="of the candidates, the one with the highest reward for the user",
        reference="Stiennon et al. 2020, arXiv 2009.01325",
    )
]
