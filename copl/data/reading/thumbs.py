"""Thumbs as files write them."""

from __future__ import annotations

from collections.abc import Iterable

from copl.data.canonical import ValueFaultError
from copl.data.reading.values import is_nothing
from copl.errors import quoted

_UP = ("up", "thumbs_up", "thumbsup", "like", "liked", "good", "positive", "yes", "true", "1", "1.0", "👍")
_DOWN = (
    "down",
    "thumbs_down",
    "thumbsdown",
    "dislike",
    "disliked",
    "bad",
    "negative",
    "no",
    "false",
    "-1",
    "-1.0",
    "👎",
)


def thumb_sign(value: object) -> int | None:
    """Return 1 for a thumb up, -1 for one down, 0 where it says 0, and None where there is none.

    Raises:
        ValueFaultError: it is none of these.
    """
    if is_nothing(value):
        return None
    spelt = str(value).strip().lower()
    if spelt in _UP or spelt in _DOWN:
        return 1 if spelt in _UP else -1
    if spelt in ("0", "0.0"):
        return 0
    raise ValueFaultError(f"expected up or down, true or false, 1 or 0, or 1 or -1, got {quoted(value)}")


def sign_of_zero(thumbs: Iterable[object]) -> int:
    """Return what a thumb of 0 says in a column: nothing (0) where it has -1 for down, else down (-1)."""
    return 0 if any(str(value).strip() in ("-1", "-1.0") for value in thumbs) else -1


def zeros_read_as_down(column: str, thumbs: Iterable[object]) -> str:
    """Return a remark on a column whose 0 is down for want of a -1, which rows that are added may have, or nothing."""
    given = list(thumbs)
    zeros = sum(str(value).strip() in ("0", "0.0") for value in given)
    if not zeros or sign_of_zero(given) == 0:
        return ""
    return f"{zeros:,} values of column {quoted(column)} are 0 and were read as down, since none is -1."
