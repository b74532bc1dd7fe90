"""One user of a `copl.Model` who says one thing after another."""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import final

import numpy as np
from attrs import evolve, frozen

from copl.data.reading.rows import read_comparison_rows
from copl.data.requests import Pair, Prompt, question_pairs
from copl.errors import DataError, quoted
from copl.interfaces import OnlineUser
from copl.records import AdaptedUsers, ComparisonSet


@final
@frozen
class Question:
    """A pair of responses to ask a user about.

    Attributes:
        index: its place among the candidates.
        prompt: what the responses answer.
        first: one response.
        second: the other one.
        information: how much the answer is expected to tell about the user, in bits: from 0 to 1.
    """

    index: int
    prompt: Prompt
    first: str
    second: str
    information: float


@final
class ModelUser:
    """One user of a `Model`, seen in training or not, who says one thing after another; from `Model.online`."""

    def __init__(self, user_id: str, state: OnlineUser, run: str, lock: threading.RLock) -> None:
        self.user_id = user_id
        self._state = state
        self._run = run
        self._lock = lock

    @property
    def adapted(self) -> AdaptedUsers:
        """The user as of now, as `Model.score` takes it."""
        return evolve(self._state.adapted, run=self._run)

    def add(self, prompt: Prompt, *, chosen: str, rejected: str) -> AdaptedUsers:
        """Take one more comparison into account and return the user as of now.

        Raises:
            DataError: the comparison is not a valid one.
        """
        return self._add({"prompt": prompt, "chosen": chosen, "rejected": rejected})

    def tie(self, prompt: Prompt, first: str, second: str, *, both_bad: bool = False) -> AdaptedUsers:
        """Take into account that two responses are alike to the user, or that neither is good enough.

        Raises:
            DataError: these are not two different responses to a prompt.
        """
        winner = "both_bad" if both_bad else "tie"
        return self._add({"prompt": prompt, "response_a": first, "response_b": second, "winner": winner})

    def thumb(self, prompt: Prompt, response: str, *, up: bool) -> AdaptedUsers:
        """Take a thumb up or down into account; of the same response the last one counts.

        Raises:
            DataError: this is no response to a prompt.
        """
        return self._add({"prompt": prompt, "response": response, "thumb": "up" if up else "down"})

    def rate(self, prompt: Prompt, response: str, rating: float) -> AdaptedUsers:
        """Take a rating on the user's own scale into account; of the same response the last one counts.

        Raises:
            DataError: this is no response to a prompt, or no number.
        """
        return self._add({"prompt": prompt, "response": response, "rating": rating})

    def _add(self, row: Mapping[str, object]) -> AdaptedUsers:
        return self.add_rows([{"user_id": self.user_id, **row}])

    def add_rows(self, rows: ComparisonSet | Sequence[Mapping[str, object]]) -> AdaptedUsers:
        """Take comparisons and judgements into account, as rows of every kind or as a set.

        Raises:
            DataError: one fault for each row that is wrong, or something is said by another user.
        """
        said = read_comparison_rows(rows)
        if strangers := sorted(set(said.speakers) - {self.user_id}):
            raise DataError(f"what {', '.join(map(quoted, strangers))} says cannot be added to {quoted(self.user_id)}")
        with self._lock:
            return evolve(self._state.add(said), run=self._run)

    def next_question(self, candidates: Sequence[Pair]) -> Question:
        """Return the candidate whose answer is expected to tell most about this user; the first of equals.

        A candidate of which neither response was annotated, nor, with method `copl`, resembles one that was, tells
        nothing.

        Args:
            candidates: prompts with two responses each, at least one.

        Raises:
            DataError: there is no candidate, or one that is no prompt with two different responses.
        """
        return self.questions(candidates)[0]

    def questions(self, candidates: Sequence[Pair]) -> list[Question]:
        """Return each pair once, the one whose answer is expected to tell most first, as `next_question` judges.

        A pair that is among the candidates twice, either way round, is the first of them.

        Raises:
            DataError: there is no candidate, or one that is no prompt with two different responses.
        """
        pairs = question_pairs(self.user_id, candidates)
        with self._lock:
            bits = self._state.information(pairs)
        order: list[int] = np.argsort(-bits, kind="stable").tolist()
        prompts, texts = pairs.responses.prompts[::2], pairs.responses.texts
        asked = zip(prompts, map(frozenset, zip(texts[::2], texts[1::2], strict=True)), strict=True)
        first: dict[tuple[str, frozenset[str]], int] = {}
        firsts = {first.setdefault(pair, place) for place, pair in enumerate(asked)}
        return [Question(place, *candidates[place], float(bits[place])) for place in order if place in firsts]
