"""Texts as published: made fit to be kept, and transcripts taken apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from copl.data.canonical import canonical_text
from copl.data.chat import encode_prompt

ASSISTANT = "\n\nAssistant:"
HUMAN = "\n\nHuman:"


_TEXT = ("text", "input_text", "output_text")
_NO_TEXT = ("image", "picture", "audio", "video", "file", "doc")


def kind_without_text(part: object) -> str | None:
    """Return the type of a part of a message, such as ``image_url``, that a person saw or heard and no text tells.

    Thoughts of the model and calls of tools are none of these: they were not shown.
    """
    kind = part.get("type") if isinstance(part, Mapping) else None
    return kind if isinstance(kind, str) and any(name in kind.lower() for name in _NO_TEXT) else None


def text_of_part(part: object) -> str | None:
    """Return the text of a part of a message, or None where it is no text that was shown, such as a thought."""
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) and part.get("type", "text") in _TEXT else None
    return text if isinstance(text, str) else None


def storable(value: object) -> str:
    """Return a text without NUL bytes and halves of surrogate pairs, which no file can keep; nothing for no text."""
    text = value if isinstance(value, str) else "" if value is None else str(value)
    if "\x00" in text:
        text = text.replace("\x00", "")
    return text if text.isascii() else text.encode("utf-8", "replace").decode("utf-8")


def clean(value: object) -> str:
    """Return a text as published in its one spelling (`copl.data.canonical`), without what no file can keep."""
    return canonical_text(storable(value))


def split_transcript(text: str) -> tuple[str, str] | None:
    """Return prompt and response of a transcript ``Human: ... Assistant: ...``, cut before its last answer.

    Both are in their one form, as in tables.

    The prompt of a single turn is what the human said; that of several turns is chat messages, in the form of
    `copl.data.chat`. None where this is no such transcript.

    >>> split_transcript("\\n\\nHuman: Why?\\n\\nAssistant: Because.")
    ('Why?', 'Because.')
    """
    begin = text.rfind(ASSISTANT)
    if begin < 0:
        return None
    messages = _turns(text[:begin])
    return None if messages is None else (encode_prompt(messages), canonical_text(text[begin + len(ASSISTANT) :]))


def _turns(text: str) -> list[dict[str, str]] | None:
    """Return the turns of the part of a transcript before its last answer, or None where it is none."""
    text = text if text.startswith("\n\n") else "\n\n" + text.lstrip("\n")
    if not text.startswith(HUMAN):
        return None
    turns: list[dict[str, str]] = []
    for part in text.split(HUMAN)[1:]:
        question, *answers = part.split(ASSISTANT)
        for role, content in (("user", question), *(("assistant", answer) for answer in answers)):
            if not content.strip():
                continue
            if turns and turns[-1]["role"] == role:
                turns[-1]["content"] += "\n\n" + content.strip()
            else:
                turns.append({"role": role, "content": content.strip()})
    return turns or None


def common_messages(one: Sequence[Mapping[str, object]], other: Sequence[Mapping[str, object]]) -> int:
    """Return how many messages at the beginning two conversations share, the last of either never counted."""
    shared = 0
    for first, second in zip(one[:-1], other[:-1], strict=False):
        if first != second:
            break
        shared += 1
    return shared


def common_text(one: str, other: str) -> int:
    """Return how many characters at the beginning two texts share, cut back to the end of a word."""
    limit = min(len(one), len(other))
    low, high = 0, limit
    while low < high:  # the longest common beginning, by halving
        middle = (low + high + 1) // 2
        low, high = (middle, high) if one[:middle] == other[:middle] else (low, middle - 1)
    while low and not one[low - 1].isspace():
        low -= 1
    return low
