"""From events to comparisons: what of all that a user said is in force, and what it says of responses.

An event is about a *subject*: a pair, a rated response, or a completion. The latest event of a kind about a subject is
in force; a withdrawal takes what is in force about its subject back. What is in force becomes comparisons:

- ``comparison``: chosen beats rejected; a tie says nothing.
- ``rating`` of a response: beats every response to the same prompt that the user rated lower.
- ``choice`` among the n candidates of a completion: n - 1 comparisons of weight 2 / n (`copl.evidence.choice_weight`).
- ``edit`` of the answer shown: the edited text beats it.
- ``thumb``, from -1 to 1, on the answer shown: beats the other candidates, or loses to them, all together with weight
  1/2 times its size; nothing where there is a choice, which says more.

A pair that is decided in several ways counts once, as it was decided last. A user who chooses twice, sends a vote again
or takes it back therefore counts once, or not at all.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, Literal, TypeAlias, final

from attrs import frozen

from copl.data.chat import decode_prompt
from copl.evidence import choice_weight
from copl.records import response_key

Kind: TypeAlias = Literal["completion", "comparison", "rating", "choice", "edit", "thumb", "withdrawal"]

FEEDBACK: tuple[Kind, ...] = ("comparison", "rating", "choice", "edit", "thumb")
"""Kinds of events that say something about responses."""

MAX_RATINGS = 32
"""Latest ratings of one prompt that are compared, each with each."""

THUMB_WEIGHT = 0.5
"""A thumb says less than a comparison: the user has seen one response alone."""


@final
@frozen
class Event:
    """Something that a user said, or was shown.

    Attributes:
        id: its place in the log.
        user: the user's id.
        key: idempotency key of the request it came with, unique with `part` for a user.
        part: its place in that request.
        kind: what it is.
        subject: what it is about.
        body: what was said, as plain JSON values.
        created: seconds since 1970.
    """

    id: int
    user: str
    key: str
    part: int
    kind: str
    subject: str
    body: Mapping[str, Any]
    created: float


@final
@frozen
class Judgement:
    """A comparison that follows from an event in force.

    Attributes:
        event: id of the event.
        prompt: the prompt as it stands in tables.
        chosen: the response that is preferred.
        rejected: the other one.
        weight: how much it counts, positive.
    """

    event: int
    prompt: str
    chosen: str
    rejected: str
    weight: float = 1.0

    def row(self, user: str) -> dict[str, Any]:
        """Return the comparison in the row schema."""
        return {
            "user_id": user,
            "prompt": decode_prompt(self.prompt),
            "chosen": self.chosen,
            "rejected": self.rejected,
            "weight": self.weight,
        }


def pair_subject(prompt: str, first: str, second: str) -> str:
    """Return the subject of a comparison, whichever of the two is chosen."""
    return "pair:" + response_key(prompt, json.dumps(sorted([first, second])))


def rating_subject(prompt: str, response: str) -> str:
    """Return the subject of the rating of a response."""
    return "rating:" + response_key(prompt, response)


def in_force(events: Sequence[Event]) -> list[Event]:
    """Return the feedback of one user that is in force, in the order of the log.

    Args:
        events: everything of the user, in the order of the log.
    """
    latest: dict[tuple[str, str], Event] = {}
    for event in events:
        if event.kind in FEEDBACK:
            latest[event.subject, event.kind] = event
        elif event.kind == "withdrawal":
            kind = event.body.get("kind")
            for one in FEEDBACK if kind is None else (kind,):
                latest.pop((event.subject, one), None)
    return sorted(latest.values(), key=lambda event: event.id)


def judgements(events: Sequence[Event]) -> list[Judgement]:
    """Return the comparisons that follow from what one user said.

    Args:
        events: everything of the user, in the order of the log.
    """
    completions = {event.subject: event.body for event in events if event.kind == "completion"}
    standing = in_force(events)
    chosen = {event.subject for event in standing if event.kind == "choice"}
    decided: dict[frozenset[str], Judgement] = {}
    for judgement in sorted(_each(standing, completions, chosen), key=lambda one: one.event):
        pair = frozenset(response_key(judgement.prompt, text) for text in (judgement.chosen, judgement.rejected))
        if len(pair) == 2:
            decided.pop(pair, None)
            decided[pair] = judgement
    return [judgement for judgement in decided.values() if judgement.weight > 0]


def _each(
    standing: Sequence[Event], completions: Mapping[str, Mapping[str, Any]], chosen: set[str]
) -> Iterator[Judgement]:
    rated: dict[str, list[Event]] = {}
    for event in standing:
        body = event.body
        if event.kind == "comparison":
            # a tie leaves the pair undecided, also where a completion had decided it before
            weight = 0.0 if body.get("tie") else 1.0
            yield Judgement(event.id, body["prompt"], body["chosen"], body["rejected"], weight)
        elif event.kind == "rating":
            rated.setdefault(body["prompt"], []).append(event)
        elif event.subject in completions and not (event.kind == "thumb" and event.subject in chosen):
            yield from _of_completion(event, completions[event.subject])
    for prompt, ratings in rated.items():
        for one, other in combinations(ratings[-MAX_RATINGS:], 2):
            low, high = sorted((one, other), key=lambda event: float(event.body["rating"]))
            if low.body["rating"] != high.body["rating"]:
                last = max(one.id, other.id)
                yield Judgement(last, prompt, high.body["response"], low.body["response"])


def _of_completion(event: Event, completion: Mapping[str, Any]) -> Iterator[Judgement]:
    prompt, candidates, shown = completion["prompt"], completion["candidates"], completion["shown"]
    if event.kind == "edit":
        yield Judgement(event.id, prompt, event.body["edit"], candidates[shown])
        return
    place = event.body["chosen"] if event.kind == "choice" else shown
    others = [text for text in dict.fromkeys(candidates) if text != candidates[place]]
    if event.kind == "choice":
        weight = choice_weight(len(others) + 1)
        yield from (Judgement(event.id, prompt, candidates[place], other, weight) for other in others)
        return
    thumb = float(event.body["thumb"])
    weight = THUMB_WEIGHT * abs(thumb) / max(len(others), 1)
    for other in others:
        pair = (candidates[shown], other) if thumb > 0 else (other, candidates[shown])
        yield Judgement(event.id, prompt, *pair, weight)
