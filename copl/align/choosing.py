"""What aligners share: candidates, the favourite among them, how sure it is, and what is said of users nobody knows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

import numpy as np

from copl.errors import BackboneError, PluginError, quoted
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


@final
class WithText:
    """Candidates that have a text, one prompt's after the other's; how many came to nothing is told in the end."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, ...]] = []
        self._count = 0
        self._faults: list[BackboneError] = []

    def add(self, written: Sequence[str | BackboneError]) -> None:
        """Take the candidates to a prompt, with faults in place of those that came to nothing.

        Raises:
            BackboneError: none has a text.
        """
        texts = tuple(text for text in written if isinstance(text, str))
        faults = [fault for fault in written if isinstance(fault, BackboneError)]
        if faults and not texts:
            raise faults[0]
        self.texts.append(texts)
        self._count += len(written)
        self._faults += faults

    def tell(self, progress: Progress) -> None:
        """Tell how many candidates are left out, and why the first of them."""
        if self._faults:
            lost = f"{len(self._faults)} of {self._count} candidates are left out: {self._faults[0]}"
            progress.log("write candidates", finding=lost)


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
