"""From events to rows: what of all that a user said is in force, and what it says of responses.

An event is about a *subject*: a pair, a rated response, or a completion. The latest event of a kind about a subject is
in force; a withdrawal takes what is in force about its subject back. What is in force becomes rows of every kind
(`copl.data.making.mixed`), so that states and data sets have it in the one likelihood of `copl.records.evidence`:

- ``comparison``: chosen beats rejected, or a tie.
- ``rating`` of a response: a rating.
- ``choice`` among the n candidates of a completion: n - 1 comparisons of weight 2 / n
  (`copl.records.evidence.choice_weight`).
- ``edit`` of the answer shown: the edited text beats it.
- ``thumb``, from -1 to 1, on the answer shown: beats the other candidates, or loses to them, all together with weight
  1/2 times its size; nothing where there is a choice, which says more. An answer without others has a thumb.

A pair that is decided in several ways counts once, as it was decided last, and so do the thumb and the rating of a
response. A user who chooses twice, sends a vote again or takes it back therefore counts once, or not at all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeAlias, final

from attrs import frozen

from copl.data.chat import decode_prompt
from copl.records import response_key
from copl.records.evidence import choice_weight

Kind: TypeAlias = Literal["completion", "comparison", "rating", "choice", "edit", "thumb", "withdrawal"]

FEEDBACK: tuple[Kind, ...] = ("comparison", "rating", "choice", "edit", "thumb")
"""Kinds of events that say something about responses."""

THUMB_WEIGHT = 0.5
"""Twice the information of one of as many thumbs up as down, 1/4, as `copl.records.evidence.implied` weighs thumbs; the
other candidates, which are known, take the place of the user's threshold, which a first thumb would say nothing of."""

Claim: TypeAlias = tuple[str, ...]
"""What is said of which responses, equal for equal words."""


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
class Word:
    """Something that follows from an event in force.

    Attributes:
        event: id of the event.
        kind: ``comparison``, ``tie``, ``thumb`` or ``rating``.
        prompt: the prompt as it stands in tables.
        texts: chosen and rejected response, the two of a tie, or the one response.
        value: the rating, or 1 or -1 for a thumb.
        weight: how much it counts, positive.
    """

    event: int
    kind: Literal["comparison", "tie", "thumb", "rating"]
    prompt: str
    texts: tuple[str, ...]
    value: float = 0.0
    weight: float = 1.0

    @property
    def keys(self) -> tuple[str, ...]:
        """Keys of the responses."""
        return tuple(response_key(self.prompt, text) for text in self.texts)

    @property
    def claim(self) -> Claim:
        """What it says."""
        return claim(self.kind, self.keys, self.value)

    def row(self, user: str) -> dict[str, Any]:
        """Return it in the schema of rows of every kind."""
        row = {"user_id": user, "prompt": decode_prompt(self.prompt), "weight": self.weight}
        match self.kind:
            case "comparison":
                return row | dict(zip(("chosen", "rejected"), self.texts, strict=True))
            case "tie":
                return row | dict(zip(("response_a", "response_b"), self.texts, strict=True)) | {"winner": "tie"}
            case "thumb":
                return row | {"response": self.texts[0], "thumb": "up" if self.value > 0 else "down"}
        return row | {"response": self.texts[0], "rating": self.value}


def claim(kind: str, keys: Sequence[str], value: float = 0.0) -> Claim:
    """Return what is said of responses, known by their keys."""
    return (kind, *(sorted(keys) if kind == "tie" else keys), repr(float(value)))


def pair_subject(prompt: str, first: str, second: str) -> str:
    """Return the subject of a comparison, whichever of the two is chosen."""
    return "pair:" + response_key(prompt, json.dumps(sorted([first, second])))


def rating_subject(prompt: str, response: str) -> str:
    """Return the subject of the rating of a response."""
    return "rating:" + response_key(prompt, response)


def says_something(kind: str, body: Mapping[str, Any]) -> bool:
    """Return whether a body holds what an event of its kind is read by; kinds of a later version say nothing here."""
    match kind:
        case "comparison":
            return _are_texts(body, "prompt", "chosen", "rejected")
        case "rating":
            return _are_texts(body, "prompt", "response") and _is_number(body.get("rating"))
        case "edit":
            return _are_texts(body, "edit")
        case "thumb":
            return _is_number(body.get("thumb"))
        case "choice":
            return type(body.get("chosen")) is int
        case "completion":
            candidates, shown = body.get("candidates"), body.get("shown")
            if not isinstance(candidates, list) or type(shown) is not int or not 0 <= shown < len(candidates):
                return False
            return _are_texts(body, "prompt") and all(isinstance(text, str) for text in candidates)
    return True


def _are_texts(body: Mapping[str, Any], *names: str) -> bool:
    return all(isinstance(body.get(name), str) for name in names)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value)


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


def words(events: Sequence[Event]) -> list[Word]:
    """Return what follows from what one user said.

    Args:
        events: everything of the user, in the order of the log.
    """
    completions = {event.subject: event.body for event in events if event.kind == "completion"}
    standing = in_force(events)
    chosen = {event.subject for event in standing if event.kind == "choice"}
    last: dict[tuple[str, frozenset[str]], Word] = {}
    for event in standing:
        body = event.body
        if event.kind == "comparison":
            kind: Literal["comparison", "tie"] = "tie" if body.get("tie") else "comparison"
            following = [Word(event.id, kind, body["prompt"], (body["chosen"], body["rejected"]))]
        elif event.kind == "rating":
            following = [Word(event.id, "rating", body["prompt"], (body["response"],), float(body["rating"]))]
        elif event.subject in completions and not (event.kind == "thumb" and event.subject in chosen):
            following = list(_of_completion(event, completions[event.subject]))
        else:
            following = []
        for word in following:
            sort, keys = ("pair" if len(word.texts) == 2 else word.kind), frozenset(word.keys)
            if len(keys) == len(word.texts):
                last.pop((sort, keys), None)
                last[sort, keys] = word
    return list(last.values())


def _of_completion(event: Event, completion: Mapping[str, Any]) -> Iterator[Word]:
    prompt, candidates, shown = completion["prompt"], completion["candidates"], completion["shown"]
    if event.kind == "edit":
        yield Word(event.id, "comparison", prompt, (event.body["edit"], candidates[shown]))
        return
    place = event.body["chosen"] if event.kind == "choice" else shown
    if not 0 <= place < len(candidates):  # a choice of what is not there
        return
    others = [text for text in dict.fromkeys(candidates) if text != candidates[place]]
    if event.kind == "choice":
        weight = choice_weight(len(others) + 1)
        for other in others:
            yield Word(event.id, "comparison", prompt, (candidates[place], other), weight=weight)
        return
    thumb = float(event.body["thumb"])
    if not thumb:
        return
    if not others:
        yield Word(event.id, "thumb", prompt, (candidates[shown],), math.copysign(1.0, thumb), abs(thumb))
    for other in others:
        pair = (candidates[shown], other) if thumb > 0 else (other, candidates[shown])
        yield Word(event.id, "comparison", prompt, pair, weight=THUMB_WEIGHT * abs(thumb) / len(others))
