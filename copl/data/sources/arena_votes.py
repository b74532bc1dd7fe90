"""Source ``arena-votes``: the logs of a FastChat arena, and the battles that are cleaned out of them.

A line of a log is a vote on the last answers of two conversations (``leftvote``, ``rightvote``, ``tievote``,
``bothbad_vote``), or a thumb for a single one (``upvote``, ``downvote``). Battles have ``winner``, ``conversation_a``
and ``conversation_b`` instead, and so have votes that are published in Parquet. Longer conversations go apart after the
first answers; what follows the first prompt is then compared as a whole, or left out.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Literal, final

import attrs

from copl.data.chat import encode_prompt
from copl.data.making.collected import Collected, CollectedOptions, Said
from copl.data.making.exported import ExportSource
from copl.data.reading.exports import Export, missing
from copl.data.thinking import answer_in
from copl.errors import quoted
from copl.options import option
from copl.plugins import Component

Turns = list[tuple[str, str]]
Read = Callable[[object], str]
"""Reads the content of a message."""

_VOTES = {
    "leftvote": "a", "rightvote": "b", "tievote": "tie", "bothbad_vote": "bad",
    "model_a": "a", "model_b": "b", "tie": "tie", "tie (bothbad)": "bad", "both_bad": "bad",
}  # fmt: skip
_THUMBS = {"upvote": True, "downvote": False}
_VOTERS = ("judge", "judge_hash")
"""What published battles call who voted."""
_IGNORED = ("chat", "share", "flag")


@final
@attrs.frozen(kw_only=True)
class ArenaOptions(CollectedOptions):
    """Options of arena logs."""

    user: str = option(
        "",
        help="field that says who voted; ip in logs, judge or judge_hash in battles where none is named",
        validator=None,
    )
    conversations: Literal["single", "all"] = option(
        "single",
        help="single: votes after one turn; all: later ones, too, each side's transcript after the first prompt as one "
        "response where the sides have gone apart",
    )


@final
class ArenaVotesSource(ExportSource[ArenaOptions]):
    """Reads votes line by line."""

    name = "arena-votes"
    construction = "Votes between two answers, by voter."

    def _read(self, export: Export, number: int, entry: Mapping[str, object], collected: Collected) -> None:
        kind = entry.get("type", entry.get("winner"))
        if kind in _IGNORED:
            collected.drop("no votes, but other lines of the log")
            return
        if not isinstance(kind, str) or kind not in (*_VOTES, *_THUMBS):
            export.fault(number, missing("type or winner", kind, "a vote such as leftvote or tie"))
            return
        usual = ("ip",) if "type" in entry else _VOTERS
        field = self._options.user or next((name for name in usual if name in entry), usual[0])
        user = export.user(entry.get(field))
        if user is None:
            problem = missing(field, entry.get(field) or None, "text or a whole number")
            fields = "" if field in entry else f"; there are {', '.join(entry)}"
            export.fault(number, f"{problem}; name the field that says who voted with user={fields}")
            return
        count = 1 if kind in _THUMBS else 2
        sides = _sides(entry, count, partial(export.text, number))
        if isinstance(sides, str):
            export.fault(number, sides)
            return
        if not all(sides) or any(side[-1][0] != "assistant" or not side[-1][1].strip() for side in sides):
            collected.drop("without an answer to judge")
            return
        said = Said(user, "", collected.time(entry.get("tstamp"), entry.get("timestamp")))
        if count == 1:
            prompt, answer = _prompt(sides[0][:-1]), sides[0][-1][1]
            collected.thumb(attrs.evolve(said, prompt=prompt), answer, up=_THUMBS[kind])
            return
        self._vote(said, _VOTES[kind], sides, collected)

    def _vote(self, said: Said, vote: str, sides: list[Turns], collected: Collected) -> None:
        one, other = sides
        if one[:-1] == other[:-1]:
            prompt, answers = _prompt(one[:-1]), (one[-1][1], other[-1][1])
        elif self._options.conversations == "single" or one[0] != other[0]:
            several = "after several turns, where the two conversations differ"
            collected.drop(several if one[0] == other[0] else "between answers to different prompts")
            return
        else:
            prompt = _prompt(one[:1])
            answers = _transcript(one[1:]), _transcript(other[1:])
        said = attrs.evolve(said, prompt=prompt)
        if vote in ("a", "b"):
            collected.compare(said, *(answers if vote == "a" else answers[::-1]))
        else:
            collected.tie(said, *answers, both_bad=vote == "bad")


def _sides(entry: Mapping[str, object], count: int, read: Read) -> list[Turns] | str:
    """Return the turns of each conversation, or what is wrong."""
    if "conversation_a" in entry:
        given = [entry.get("conversation_a"), entry.get("conversation_b")]
        sides = [_messages(side, read) for side in given]
    else:
        states = entry.get("states") if count == 2 else [entry.get("state")]
        if not isinstance(states, list) or len(states) != count or not all(isinstance(s, Mapping) for s in states):
            return missing("states" if count == 2 else "state", states, f"{count} conversations")
        sides = [_logged(state, read) for state in states]
    faults = [side for side in sides if isinstance(side, str)]
    return faults[0] if faults else [side for side in sides if not isinstance(side, str)]


def _messages(conversation: object, read: Read) -> Turns | str:
    if isinstance(conversation, str):  # tables keep lists as text
        with suppress(ValueError, RecursionError):
            conversation = json.loads(conversation)
    if not isinstance(conversation, list) or not all(isinstance(message, Mapping) for message in conversation):
        return missing("conversation_a or conversation_b", conversation, "a list of messages")
    return [_turn(str(message.get("role")), read(message.get("content"))) for message in conversation]


def _logged(state: Mapping[str, object], read: Read) -> Turns | str:
    """Return the turns of a conversation as FastChat keeps it, without those of its template."""
    messages, offset = state.get("messages"), state.get("offset", 0)
    if not isinstance(messages, list):
        return missing("states: messages", messages, "a list")
    if not isinstance(offset, int | None) or isinstance(offset, bool):
        return missing("states: offset", offset, "a number of messages")
    turns: Turns = []
    system = read(state.get("system_message", state.get("system")))
    roles = state.get("roles")
    named = roles if isinstance(roles, list | tuple) and len(roles) == 2 else ("USER", "ASSISTANT")
    for message in messages[max(offset or 0, 0) :]:
        if not isinstance(message, list | tuple) or len(message) < 2 or not isinstance(message[0], str):
            return f"states: messages: expected pairs of a role and a text, got {quoted(message)}"
        content = message[1]
        if isinstance(content, list):  # a text with its pictures
            pictures = content[1] if len(content) > 1 else ()
            read([{"type": "image"} for _ in pictures or ()])
            content = content[:1]
        turns.append(_turn("assistant" if message[0] == named[1] else "user", read(content)))
    return [("system", system), *turns] if system.strip() and turns else turns


def _turn(role: str, text: str) -> tuple[str, str]:
    """A turn, without what a model thought before it."""
    return role, answer_in(text) if role == "assistant" else text


def _prompt(turns: Turns) -> str:
    kept = [{"role": role, "content": text} for role, text in turns if text.strip()]
    return encode_prompt(kept) if kept else ""


def _transcript(turns: Turns) -> str:
    return "\n\n".join(f"{role}: {text}" for role, text in turns)


COMPONENTS = [
    Component(
        "arena-votes",
        ArenaOptions,
        ArenaVotesSource,
        "votes of a FastChat arena: its logs, or battles cleaned out of them",
        reference="Zheng et al., Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena, 2023 (arXiv 2306.05685)",
    )
]
