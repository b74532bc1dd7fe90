"""What aligners share: candidates, the favourite among them, how sure it is, and what is said of users nobody knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from copl.errors import PluginError, quoted
from copl.records.answers import Answer

if TYPE_CHECKING:
    from copl.interfaces import Generator, Progress
    from copl.records import FloatArray

UNKNOWN = "nothing is known of this user: this is the unpersonalised answer"


def candidates_of(
    generator: Generator, prompts: Sequence[str], *, num: int, seed: int, progress: Progress
) -> list[tuple[str, ...]]:
    """Have candidates written to each prompt, at least one [P][n].

    Raises:
        PluginError: the generator gave something else.
    """
    written: list[Any] = list(generator.candidates(prompts, num=num, seed=seed, progress=progress))
    if len(written) != len(prompts):
        raise PluginError(f"the generator gave candidates to {len(written)} prompts of {len(prompts)}")
    for prompt, texts in zip(prompts, written, strict=True):
        if isinstance(texts, str) or not texts or not all(isinstance(text, str) and text.strip() for text in texts):
            raise PluginError(f"the generator gave no texts to {quoted(prompt)}")
    return [tuple(texts) for texts in written]


def favourite(rewards: FloatArray) -> int:
    """Return which of some rewards [n] is the highest; the first of equals.

    >>> favourite(np.array([0.5, 2.0, 2.0]))
    1
    """
    return int(np.argmax(rewards))


def first_choice(rewards: FloatArray) -> FloatArray:
    """Return how likely each candidate is a user's favourite [n], by Plackett and Luce: softmax of the rewards [n].

    >>> first_choice(np.array([1.0, 1.0])).tolist()
    [0.5, 0.5]
    """
    raised = np.exp(rewards - rewards.max())
    shares: FloatArray = raised / raised.sum()
    return shares


def best_answer(
    user_id: str, prompt: str, candidates: tuple[str, ...], rewards: FloatArray, unpersonalised: str, *, known: bool
) -> Answer:
    """Return the candidate with the highest reward as a user's answer.

    Args:
        user_id: id of the user.
        prompt: the prompt.
        candidates: the texts to choose from [n].
        rewards: what they are worth to the user [n]; to the average user where nothing is known of this one.
        unpersonalised: the text that a user nobody knows is shown; so is this user, where nothing is known.
        known: whether anything is known of the user.
    """
    choice = favourite(rewards) if known else candidates.index(unpersonalised)
    return Answer(
        user_id,
        prompt,
        candidates,
        choice,
        unpersonalised,
        tuple(rewards.tolist()),
        float(first_choice(rewards)[choice]),
        user_known=known,
        note="" if known else UNKNOWN,
    )
