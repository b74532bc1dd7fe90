"""Source ``open-webui``: the feedback export of Open WebUI, with the conversations it was given in.

A rated answer is set against its siblings, the other answers to the same message (of other models, or made again):
rated 1 it is better than all of them, -1 worse, 0 as good; a sibling that was rated by then, as the conversation says,
is better or worse by the two ratings, or alike. Without a sibling it is a thumb. An answer that the user has edited
beats what it was. The prompt is the conversation up to the message that was answered. Of answers, what the model
has thought beforehand is left out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import final

from copl.data.chat import encode_prompt
from copl.data.making.collected import Collected, CollectedOptions, Said
from copl.data.making.exported import ExportSource
from copl.data.reading.exports import Export, missing, text_of
from copl.data.reading.texts import clean
from copl.data.thinking import answer_in
from copl.plugins import Component

_ROLES = ("system", "user", "assistant")
_DEPTH = 10_000
_RATINGS = {"1": 1, "0": 0, "-1": -1, "1.0": 1, "0.0": 0, "-1.0": -1}
_HIDDEN = re.compile(r'<details type="(?:reasoning|code_interpreter|tool_calls)".*?(?:</details>\n?|\Z)', re.DOTALL)
"""What a model thinks and runs, and which tools it calls, is kept with its answer, folded away."""


@final
class OpenWebUiSource(ExportSource[CollectedOptions]):
    """Reads feedback entry by entry."""

    name = "open-webui"
    construction = "A rated answer against the other answers to the same message, by user; a thumb where there is none."

    def _read(self, export: Export, number: int, entry: Mapping[str, object], collected: Collected) -> None:
        _read(export, number, entry, collected)


def _read(export: Export, number: int, entry: Mapping[str, object], collected: Collected) -> None:
    user, kind, data = export.user(entry.get("user_id")), entry.get("type", "rating"), entry.get("data")
    if user is None:
        export.fault(number, missing("user_id", entry.get("user_id") or None, "who gave the feedback"))
        return
    if kind != "rating":
        collected.drop("not of type rating")
        return
    if not isinstance(data, Mapping):
        export.fault(number, missing("data", data, "an object with the rating"))
        return
    rating = data.get("rating")
    if rating is None or rating == "":
        collected.drop("without a rating")
        return
    sign = _sign(rating)
    if sign is None:
        export.fault(number, missing("data.rating", rating, "1, 0 or -1"))
        return
    messages = _history(entry)
    if messages is None:
        collected.drop("without its conversation")
        return
    meta = entry.get("meta")
    wanted = meta.get("message_id") if isinstance(meta, Mapping) else None
    rated = messages.get(str(wanted))
    if rated is None or rated.get("role") != "assistant":
        collected.drop("on a message that was deleted")
        return
    time = collected.time(entry.get("updated_at"), entry.get("created_at"))
    parent = rated.get("parentId")
    turns = _turns(messages, parent)
    if turns is None:
        collected.drop("whose prompt was deleted")
        return
    answers = (message for message in messages.values() if message.get("parentId") == parent)
    for message in (*turns, *answers):
        export.see(number, message.get("content"))
        export.see(number, message.get("files"))
    prompt = _prompt(turns)
    if prompt is None:
        collected.drop("whose prompt has no text")
        return
    _judge(Said(user, prompt, time), sign, str(wanted), messages, collected)


def _judge(
    said: Said, rating: int, wanted: str, messages: Mapping[str, Mapping[str, object]], collected: Collected
) -> None:
    rated = messages[wanted]
    answer = _answer(rated.get("content"))
    if not answer.strip():
        collected.drop("with an empty text")
        return
    parent = rated.get("parentId")
    others = {
        _answer(message.get("content")).strip(): _own_rating(message)
        for key, message in messages.items()
        if key != wanted and message.get("parentId") == parent and message.get("role") == "assistant"
    }
    others.pop(answer.strip(), None)
    others.pop("", None)
    original = _answer(rated.get("originalContent"))
    if original.strip() and original.strip() != answer.strip():
        collected.compare(said, answer, original)
    if others:
        _set_against(said, answer, rating, others, collected)
    elif rating:
        collected.thumb(said, answer, up=rating > 0)
    else:
        collected.drop("rated 0, without another answer")


def _set_against(said: Said, answer: str, rating: int, others: Mapping[str, int], collected: Collected) -> None:
    """Compare an answer with its siblings by the ratings of both; 0 is the rating of one that has none."""
    margins = {other: rating - own for other, own in others.items()}
    worse, better = ([other for other, margin in margins.items() if sign * margin > 0] for sign in (1, -1))
    collected.choose(said, answer, worse)
    collected.choose(said, answer, better, best=False)
    for other, margin in margins.items():
        if margin == 0:
            collected.tie(said, answer, other, both_bad=rating < 0)


def _sign(rating: object) -> int | None:
    return None if isinstance(rating, bool) else _RATINGS.get(str(rating).strip())


def _own_rating(message: Mapping[str, object]) -> int:
    """Return how the user had rated a message by the time of the snapshot, 0 where not."""
    annotation = message.get("annotation")
    return (_sign(annotation.get("rating")) or 0) if isinstance(annotation, Mapping) else 0


def _history(entry: Mapping[str, object]) -> dict[str, Mapping[str, object]] | None:
    """Return the messages of the conversation by id; in old exports they are a list, one after the other."""
    chat: object = entry.get("snapshot")
    for _ in range(3):
        if not isinstance(chat, Mapping):
            return None
        if isinstance(chat.get("history"), Mapping) or isinstance(chat.get("messages"), Sequence):
            break
        chat = chat.get("chat")
    if not isinstance(chat, Mapping):
        return None
    history = chat.get("history")
    tree = history.get("messages") if isinstance(history, Mapping) else None
    if isinstance(tree, Mapping) and tree:
        return {str(key): message for key, message in tree.items() if isinstance(message, Mapping)}
    listed = chat.get("messages")
    if not isinstance(listed, Sequence) or isinstance(listed, str):
        return None
    messages: dict[str, Mapping[str, object]] = {}
    before: str | None = None
    for place, message in enumerate(listed):
        if isinstance(message, Mapping):
            key = str(message.get("id", place))
            messages[key] = {"parentId": before, **message}
            before = key
    return messages


def _answer(content: object) -> str:
    return clean(answer_in(_HIDDEN.sub("", text_of(content))))


def _turns(messages: Mapping[str, Mapping[str, object]], last: object) -> list[Mapping[str, object]] | None:
    """Return the conversation from its beginning to the message `last`, or None where a part of it is not there."""
    turns: list[Mapping[str, object]] = []
    for _ in range(_DEPTH):
        if last is None:
            break
        message = messages.get(str(last))
        if message is None or message.get("role") not in _ROLES:
            return None
        turns.append(message)
        last = message.get("parentId")
    else:
        return None
    return turns[::-1] or None


def _text_of(message: Mapping[str, object]) -> str:
    content = message.get("content")
    return _answer(content) if message["role"] == "assistant" else text_of(content)


def _prompt(turns: Sequence[Mapping[str, object]]) -> str | None:
    texts = ((str(message["role"]), _text_of(message)) for message in turns)
    written = [{"role": role, "content": text} for role, text in texts if text.strip()]
    return encode_prompt(written) if written else None


COMPONENTS = [
    Component(
        "open-webui",
        CollectedOptions,
        OpenWebUiSource,
        "feedback exported from Open WebUI: rated answers against their siblings, or thumbs",
        reference="github.com/open-webui/open-webui",
    )
]
