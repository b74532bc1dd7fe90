"""Prompts in their one form: text, or chat messages as canonical JSON text.

A prompt is either text or a list of messages ``{"role": ..., "content": ...}``. Tables and files hold both as text;
`encode_prompt` writes a prompt in one fixed way, so that equal prompts are equal text, and `decode_prompt` gives the
messages back. A single message of the user is the same prompt as its text, and is kept as that. Text that only
resembles JSON stays text.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from copl.data.canonical import canonical_text, text_fault
from copl.errors import quoted

_OPENING = '[{"role":"'


def message_fault(value: object) -> str | None:
    """Return what keeps `value` from being a list of chat messages, or None where it is one."""
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        return f"expected a list of messages, got {type(value).__name__}"
    if not value:
        return "the list of messages is empty"
    for place, message in enumerate(value, start=1):
        if not isinstance(message, Mapping):
            return f"message {place} is {type(message).__name__}, not an object with 'role' and 'content'"
        if isinstance(message.get("content"), list):
            return f"message {place} has a list of parts under 'content'; only text is understood: give the text itself"
        for key in ("role", "content"):
            if not isinstance(message.get(key), str) or not canonical_text(message[key]):
                return f"message {place} has no text under {key!r}"
            if fault := text_fault(message[key]):
                return f"message {place}: {fault}"
        others = [key for key, held in message.items() if key not in ("role", "content") and held is not None]
        if others:
            return f"message {place} has {', '.join(map(quoted, others))}; only 'role' and 'content' are understood"
    return None


def encode_messages(messages: Sequence[Mapping[str, str]]) -> str:
    """Return a conversation as canonical JSON text, each content in its one spelling.

    Args:
        messages: objects with ``role`` and ``content``, in order; other keys may be there when they hold None.

    Raises:
        ValueError: this is not a list of chat messages.

    >>> encode_messages([{"content": "Hello", "role": "user"}])
    '[{"role":"user","content":"Hello"}]'
    """
    fault = message_fault(messages)
    if fault:
        raise ValueError(fault)
    return _written([{**message, "content": canonical_text(message["content"])} for message in messages])


def _written(messages: Sequence[Mapping[str, str]]) -> str:
    plain = [{"role": message["role"], "content": message["content"]} for message in messages]
    return json.dumps(plain, ensure_ascii=False, separators=(",", ":"))


def encode_prompt(prompt: str | Sequence[Mapping[str, str]]) -> str:
    """Return a prompt as it stands in tables: text in its one spelling, several chat messages as canonical JSON text.

    >>> encode_prompt([{"role": "user", "content": "Hello"}])
    'Hello'

    Raises:
        ValueError: this is neither text nor a list of chat messages.
    """
    messages = decode_prompt(prompt) if isinstance(prompt, str) else prompt
    if isinstance(messages, str):
        return canonical_text(messages)
    encoded = encode_messages(messages)
    if len(messages) == 1 and messages[0]["role"] == "user":
        return encode_prompt(messages[0]["content"])
    return encoded


def decode_prompt(prompt: str) -> str | list[dict[str, str]]:
    """Return the chat messages of a prompt, or the prompt itself where it is plain text.

    >>> decode_prompt('[{"role":"user","content":"Hello"}]')
    [{'role': 'user', 'content': 'Hello'}]
    >>> decode_prompt("[1] Hello")
    '[1] Hello'
    """
    if not prompt.startswith(_OPENING):
        return prompt
    try:
        messages = json.loads(prompt)
    except (ValueError, RecursionError):
        return prompt
    return messages if message_fault(messages) is None and _written(messages) == prompt else prompt


def messages_of(prompt: str) -> list[dict[str, str]]:
    """Return a prompt as chat messages; text is what the user says.

    >>> messages_of("Tea?")
    [{'role': 'user', 'content': 'Tea?'}]
    """
    content = decode_prompt(prompt)
    return [{"role": "user", "content": content}] if isinstance(content, str) else content
