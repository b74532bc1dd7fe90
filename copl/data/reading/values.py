"""From one value of a row to what it means; what is wrong with one is raised as a `ValueFaultError`."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from decimal import Decimal
from numbers import Real
from typing import Any, Literal, TypeAlias

from copl.data.canonical import Foreign, ValueFaultError, canonical_id, canonical_text, kind_of, text_fault
from copl.data.chat import encode_prompt, message_fault
from copl.errors import quoted, suggest
from copl.records import SPLITS

Convert = Callable[[Any], Any]


def _text(value: str) -> str:
    text = canonical_text(value)
    if fault := text_fault(text):
        raise ValueFaultError(fault)
    return text


def user_id(value: Any) -> str:
    """Return the id of a user, given as text or as a whole number."""
    return _text(canonical_id(value))


def prompt(value: Any) -> str:
    """Return a prompt, given as text or as chat messages, in the form of `copl.data.chat`."""
    if isinstance(value, str):
        return encode_prompt(_text(value))
    fault = message_fault(value) if isinstance(value, list) else f"expected text or chat messages, got {kind_of(value)}"
    if fault:
        raise ValueFaultError(fault)
    return encode_prompt(value)


def response(value: Any) -> str:
    """Return a response, given as text or as a list of one message of the assistant."""
    if isinstance(value, str):
        return _text(value)
    if not isinstance(value, list):
        raise ValueFaultError(f"expected text, got {kind_of(value)}")
    if not value or not all(isinstance(message, Mapping) for message in value):
        raise ValueFaultError("a list where text belongs; a response is text or a list of one assistant message")
    if len(value) != 1:
        raise ValueFaultError(
            f"a list of {len(value)} messages; a response is one assistant message, the others belong to the prompt"
        )
    if fault := message_fault(value):
        raise ValueFaultError(fault)
    if value[0]["role"] != "assistant":
        raise ValueFaultError(f"a message of role {quoted(value[0]['role'])}; a response is by the 'assistant'")
    return _text(value[0]["content"])


TEXTS: Mapping[str, Convert] = {
    "user_id": user_id,
    "prompt": prompt,
    "chosen": response,
    "rejected": response,
    "response": response,
    "first": response,
    "second": response,
}
"""Converter of each column of text, by its name in the schema."""


def is_nothing(value: Any) -> bool:
    """Return whether a cell is empty: blank text, or what tables of numbers write for no value."""
    return (
        value is None or (isinstance(value, str) and not value.strip()) or (isinstance(value, float) and value != value)
    )


def split(value: Any) -> str:
    """Return the name of a split."""
    if is_nothing(value):
        raise ValueFaultError("empty; where the table has a split column every row needs one")
    if not isinstance(value, str):
        raise ValueFaultError(f"expected the name of a split, got {kind_of(value)}")
    name = canonical_id(value)
    if name not in SPLITS:
        raise ValueFaultError(f"unknown split {quoted(value)}{suggest(name, SPLITS)}; there are {', '.join(SPLITS)}")
    return name


def group(value: Any) -> str | None:
    """Return the name of a group, or None."""
    return None if is_nothing(value) else user_id(value)


def number(value: Any) -> float:
    """Return a finite number, given as one or as text."""
    is_number = isinstance(value, Real | Decimal) and not isinstance(value, bool)
    try:
        # Python also reads 1_000
        if not is_number and not (isinstance(value, str) and "_" not in value):
            raise ValueError
        converted = float(value)
    except (ValueError, OverflowError):
        raise ValueFaultError(f"expected a number, got {quoted(value)}") from None
    if not math.isfinite(converted):
        raise ValueFaultError(f"expected a finite number, got {quoted(value)}")
    return converted


_TRUTH = {"true": 1, "yes": 1, "false": 0, "no": 0}
_MARKS: Mapping[float, int | None] = {1.0: 1, 0.0: 0, -1.0: None}


def controversial(value: Any) -> int | None:
    """Return 1, 0, or None for unknown; -1 stands for unknown, too."""
    if is_nothing(value):
        return None
    spelt = str(value).strip().lower()
    if spelt in _TRUTH:
        return _TRUTH[spelt]
    try:
        return _MARKS[number(value)]
    except (ValueFaultError, KeyError):
        raise ValueFaultError(f"expected 1, 0 or nothing, got {quoted(value)}") from None


LEAST_WEIGHT, MOST_WEIGHT = 1e-30, 1e30
"""Weights beyond these are no numbers of single precision."""


def weight(value: Any) -> float | None:
    """Return a weight, or None where the cell is empty; NaN is no weight."""
    if is_nothing(value) and not isinstance(value, float):
        return None
    converted = value if isinstance(value, float) else number(value)
    if not (math.isfinite(converted) and converted > 0):
        raise ValueFaultError(f"a weight must be positive and finite, got {quoted(value)}")
    if not LEAST_WEIGHT <= converted <= MOST_WEIGHT:
        raise ValueFaultError(f"a weight from {LEAST_WEIGHT:g} to {MOST_WEIGHT:g} is expected, got {quoted(value)}")
    return converted


TimeKind: TypeAlias = Literal["a date with its time zone", "seconds", "milliseconds"]
"""How a time may be written; all of one file are written in the same way."""

_ISO = "2026-01-31T09:30:00Z"
_MILLISECONDS = 1e11  # in seconds this is the year 5138, in milliseconds 1973
_LAST = 4e12  # milliseconds, the year 2096
_FIRST_DAY, _LAST_DAY = 19700101, 20961231
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(value: Any) -> tuple[float, TimeKind] | None:
    """Return a time in seconds since 1970 (UTC) and how it is written, or None where the cell is empty.

    >>> timestamp("1970-01-01T01:00:10+01:00"), timestamp("1500")
    ((10.0, 'a date with its time zone'), (1500.0, 'seconds'))
    """
    if is_nothing(value):
        return None
    if isinstance(value, Foreign) and value.kind.startswith("timestamp"):
        value = value.text
    if isinstance(value, date) and not isinstance(value, datetime):
        raise ValueFaultError(f"a day without a time, {value}; write a time such as {_ISO}")
    if isinstance(value, str) and any(mark in value.strip()[1:] for mark in "-:T"):
        try:
            value = datetime.fromisoformat(value.strip())
        except ValueError:
            raise ValueFaultError(f"expected a time such as {_ISO}, got {quoted(value)}") from None
    if isinstance(value, datetime):
        if value.utcoffset() is None:
            raise ValueFaultError(f"a time without its zone, {value}; write Z or +02:00 at its end")
        since = (value - _EPOCH).total_seconds()
        if not 0 <= since <= _LAST / 1000:  # such as 9999-12-31 for never, by which all else would be old
            raise ValueFaultError(f"{quoted(str(value))} is no time from 1970 to 2096")
        return since, "a date with its time zone"
    return _since_epoch(value)


def _since_epoch(value: Any) -> tuple[float, TimeKind]:
    """Return a time that is written as a number, in seconds, and which of the two it is written in."""
    try:
        seconds = number(value)
    except ValueFaultError:
        raise ValueFaultError(f"expected a time such as {_ISO} or in seconds since 1970, got {quoted(value)}") from None
    if not 0 <= seconds <= _LAST:
        raise ValueFaultError(f"{quoted(value)} is no time in seconds or milliseconds since 1970")
    if _is_day(seconds):
        raise ValueFaultError(f"{quoted(value)} is a day without a time; write a time such as {_ISO}")
    if seconds < _MILLISECONDS:
        return seconds, "seconds"
    return seconds / 1000, "milliseconds"


def _is_day(seconds: float) -> bool:
    """Return whether a number is a day of the calendar, such as 20260131, which in seconds would be in 1970."""
    if not _FIRST_DAY <= seconds <= _LAST_DAY:
        return False
    try:
        return bool(datetime.strptime(str(seconds), "%Y%m%d.0"))
    except ValueError:
        return False


def messages_in_text(value: Any) -> Any:
    """Return the chat messages that stand in a text as JSON, in whatever spacing, or the value as it is."""
    if not isinstance(value, str) or not value.startswith(("[{", "[ {")):
        return value
    try:
        messages = json.loads(value)
    except (ValueError, RecursionError):
        return value
    return messages if message_fault(messages) is None else value


def in_text(convert: Convert) -> Convert:
    """Return a converter for a file that does not tell text from lists, where chat messages stand as JSON text.

    A response is taken for a message where it is one of the assistant and no more, for an answer may well be JSON.
    """
    if convert is prompt:
        return lambda value: prompt(messages_in_text(value))
    return (lambda value: response(_answer_in_text(value))) if convert is response else convert


def _answer_in_text(value: Any) -> Any:
    messages = messages_in_text(value)
    if messages is value:
        return value
    return messages if [message["role"] for message in messages] == ["assistant"] else value


def fault_of(convert: Convert, value: Any) -> str | None:
    """Return what is wrong with a value, or None."""
    try:
        convert(value)
    except ValueFaultError as fault:
        return str(fault)
    return None
