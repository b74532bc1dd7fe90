"""Aligner ``in-context``: the user's most telling own comparisons stand in the prompt, and the model writes anew."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np
from attrs.validators import and_, ge, le

from copl.align.choosing import best_answer, candidates_of, favourite
from copl.bradley_terry import log_loss
from copl.data.chat import decode_prompt, encode_prompt
from copl.errors import OptionsError
from copl.interfaces import CountsTokens
from copl.options import option
from copl.plugins import Component
from copl.records import ResponseTable
from copl.records.answers import Answer, AnswerRequests

if TYPE_CHECKING:
    from copl.interfaces import AlignerContext, Generator
    from copl.records import ComparisonSet, FloatArray

OPENING = (
    "You answer for one person in particular. Here is what this person was asked to compare before, which answer they "
    "preferred and which they rejected."
)
REQUEST = "Now answer the question below the way this person prefers. Write the answer alone."

WITHOUT = "no comparisons of this user are at hand to show the writer: this is the best of the given candidates"

_CHARACTERS = 4
"""So many to a token, where the writer cannot count."""


@final
@attrs.frozen
class InContextOptions:
    """Options of the aligner that shows the writer what the user has said."""

    budget: int = option(768, help="tokens that the comparisons may take in the prompt", validator=ge(1))
    information: float = option(
        0.5,
        help="what a comparison is chosen by: 0 its likeness to the question, 1 what it tells of the user",
        validator=and_(ge(0.0), le(1.0)),
    )
    num_written: int = option(
        1, help="answers to write for the user; of several, the one with the highest reward is shown", validator=ge(1)
    )


@final
class InContext:
    """Puts comparisons of the user before the question and has the generator write an answer for this user.

    A comparison is worth a place by its likeness to the question, the cosine of frozen features, and by what it tells
    of the user: how many bits the personal reward explains it better than that of the average user. The best ones that
    fit into the budget are shown, the best one last; the writer reads them, also where they tell the rewards nothing.
    Who has said nothing sees the best of the given candidates, and one nobody knows the average user's favourite.
    Published comparisons find this ahead of choosing by rewards where the writer has more than 3 billion parameters
    (arXiv 2512.23067).
    """

    def __init__(self, options: InContextOptions) -> None:
        self._options = options

    def answers(self, requests: AnswerRequests, context: AlignerContext) -> list[Answer]:
        """Write an answer for each prompt and user.

        Raises:
            OptionsError: the generator does not follow prompts.
        """
        if not context.generator.follows_prompts:
            raise OptionsError(
                "aligner in-context puts comparisons into the prompt, and this generator does not read prompts; "
                "choose --generator local or openai"
            )
        average = context.rewards(_for_nobody(requests)).unpersonalised
        usual = [texts[favourite(rewards)] for texts, rewards in zip(requests.candidates, average, strict=True)]
        by_user = [self._for_user(user, requests, usual, context) for user in requests.user_ids]
        return [answers[row] for row in range(len(requests.prompts)) for answers in by_user]

    def _for_user(
        self, user_id: str, requests: AnswerRequests, usual: list[str], context: AlignerContext
    ) -> list[Answer]:
        if not requests.prompts:
            return []
        said = context.comparisons(user_id)
        said = said.take(said.told_apart)
        if not len(said):
            return _chosen(user_id, requests, usual, context, known=context.knows(user_id))
        worth = self._worth(user_id, said, requests, context)
        prompts = [
            self._prompt(prompt, said, order, context.generator)
            for prompt, order in zip(requests.prompts, np.argsort(-worth, axis=1, kind="stable"), strict=True)
        ]
        written = candidates_of(
            context.generator, prompts, num=self._options.num_written, seed=context.seed, progress=context.progress
        )
        own = AnswerRequests([user_id], requests.prompts, written)
        rows = zip(requests.prompts, own.candidates, context.rewards(own).personal, usual, strict=True)
        return [
            best_answer(user_id, prompt, texts, rewards[0], unpersonalised, known=True)
            for prompt, texts, rewards, unpersonalised in rows
        ]

    def _worth(
        self, user_id: str, said: ComparisonSet, requests: AnswerRequests, context: AlignerContext
    ) -> FloatArray:
        """Return what each comparison is worth a place before each prompt [P, N], between 0 and 1."""
        share = self._options.information
        worth: FloatArray = share * _telling(user_id, said, context) + (1 - share) * _likeness(said, requests, context)
        return worth

    def _prompt(self, prompt: str, said: ComparisonSet, order: Any, generator: Generator) -> str:
        """Return a prompt with the first comparisons of an order that fit, the first one last."""
        kept: list[str] = []
        left = self._options.budget
        for row in order.tolist():
            shown = _shown(said, row)
            cost = _num_tokens(shown, generator)
            if cost <= left:
                kept.append(shown)
                left -= cost
        if not kept:
            return prompt
        before = "\n\n".join([OPENING, *kept[::-1], REQUEST])
        content = decode_prompt(prompt)
        if isinstance(content, str):
            return encode_prompt(f"{before}\n\nQuestion: {content}")
        last = max((n for n, message in enumerate(content) if message["role"] == "user"), default=len(content) - 1)
        question = {**content[last], "content": f"{before}\n\n{content[last]['content']}"}
        return encode_prompt([*content[:last], question, *content[last + 1 :]])


def _chosen(
    user_id: str, requests: AnswerRequests, usual: list[str], context: AlignerContext, *, known: bool
) -> list[Answer]:
    """Return the best of the given candidates, for a user of whom there are no comparisons to show."""
    rewards = context.rewards(attrs.evolve(requests, user_ids=(user_id,))).personal
    rows = zip(requests.prompts, requests.candidates, rewards, usual, strict=True)
    answers = [best_answer(user_id, p, texts, own[0], text, known=known) for p, texts, own, text in rows]
    return [attrs.evolve(answer, note=WITHOUT) for answer in answers] if known else answers


def _for_nobody(requests: AnswerRequests) -> AnswerRequests:
    return attrs.evolve(requests, user_ids=())


def _telling(user_id: str, said: ComparisonSet, context: AlignerContext) -> FloatArray:
    """Return the bits by which a user's reward explains each comparison better than the average one, over the most.

    What the average user would have said as well tells nothing [N].
    """
    prompts, texts = said.responses.prompts, said.responses.texts
    pairs = list(zip(said.comparisons.chosen.tolist(), said.comparisons.rejected.tolist(), strict=True))
    asked = AnswerRequests([user_id], [prompts[a] for a, _ in pairs], [(texts[a], texts[b]) for a, b in pairs])
    rewards = context.rewards(asked)
    own = np.array([row[0, 0] - row[0, 1] for row in rewards.personal])
    usual = np.array([row[0] - row[1] for row in rewards.unpersonalised])
    bits = np.maximum((log_loss(usual) - log_loss(own)) / np.log(2), 0)
    share: FloatArray = bits / max(float(bits.max(initial=0)), 1e-12)
    return share


def _likeness(said: ComparisonSet, requests: AnswerRequests, context: AlignerContext) -> FloatArray:
    """Return how like the candidates of each prompt the texts of each comparison are, by cosine, from 0 to 1 [P, N]."""
    rows = said.comparisons
    of_said = context.features(said.responses.take(np.concatenate([rows.chosen, rows.rejected])))
    compared = of_said.reshape(2, len(rows), -1).mean(axis=0)
    counts = [len(texts) for texts in requests.candidates]
    table = ResponseTable(
        [prompt for prompt, count in zip(requests.prompts, counts, strict=True) for _ in range(count)],
        [text for texts in requests.candidates for text in texts],
    )
    asked = np.add.reduceat(context.features(table), np.cumsum([0, *counts[:-1]]), axis=0)
    cosine: FloatArray = _unit(asked) @ _unit(compared).T
    return (1 + cosine) / 2


def _unit(rows: FloatArray) -> FloatArray:
    unit: FloatArray = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return unit


def _shown(said: ComparisonSet, row: int) -> str:
    chosen, rejected = int(said.comparisons.chosen[row]), int(said.comparisons.rejected[row])
    content = decode_prompt(said.responses.prompts[chosen])
    asked = content if isinstance(content, str) else "\n".join(f"{m['role']}: {m['content']}" for m in content)
    texts = said.responses.texts
    return f"Question: {asked}\nPreferred: {texts[chosen]}\nRejected: {texts[rejected]}"


def _num_tokens(text: str, generator: Generator) -> int:
    return generator.num_tokens(text) if isinstance(generator, CountsTokens) else -(-len(text) // _CHARACTERS)


COMPONENTS = [
    Component(
        name="in-context",
        options=InContextOptions,
        build=InContext,
        summary="an answer written anew, the user's most telling own comparisons in the prompt",
        reference="arXiv 2512.23067",
    )
]
