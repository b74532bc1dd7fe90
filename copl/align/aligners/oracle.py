"""Aligner ``oracle``: of the candidates, the one truly worth most to the user, where the truth is known."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np

from copl.align.choosing import UNKNOWN, favourite, first_choice
from copl.options import NoOptions
from copl.plugins import Component
from copl.records.answers import Answer, AnswerRequests

if TYPE_CHECKING:
    from copl.interfaces import AlignerContext


@final
class Oracle:
    """Shows the candidate of the highest true utility, for runs on simulated users: the most that choosing can reach.

    The rewards of its answers are the utilities. A user nobody knows sees the average user's favourite.
    """

    def __init__(self, options: NoOptions) -> None:
        self._options = options

    def answers(self, requests: AnswerRequests, context: AlignerContext) -> list[Answer]:
        """Choose among the candidates of the requests.

        Raises:
            CoplError: the truth is not known of these users or texts.
        """
        known = [context.knows(user) for user in requests.user_ids]
        places = np.flatnonzero(known)
        of_known = AnswerRequests(
            [requests.user_ids[place] for place in places.tolist()], requests.prompts, requests.candidates
        )
        utilities = context.utilities(of_known)
        rewards = context.rewards(requests)
        answers: list[Answer] = []
        worth = zip(requests.prompts, requests.candidates, utilities, rewards.unpersonalised, strict=True)
        for prompt, candidates, true, average in worth:
            values = np.tile(average, (len(known), 1))
            values[places] = true
            best = favourite(average)
            for user, own, is_known in zip(requests.user_ids, values, known, strict=True):
                choice = favourite(own) if is_known else best
                answers.append(
                    Answer(
                        user,
                        prompt,
                        candidates,
                        choice,
                        candidates[best],
                        tuple(own.tolist()),
                        1.0 if is_known else float(first_choice(own)[choice]),
                        user_known=is_known,
                        note="" if is_known else UNKNOWN,
                    )
                )
        return answers


COMPONENTS = [
    Component(
        name="oracle",
        options=NoOptions,
        build=Oracle,
        summary="of the candidates, the one truly worth most to the user; for runs on simulated users",
    )
]
