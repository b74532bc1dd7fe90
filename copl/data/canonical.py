"""The one spelling of user ids and texts: what reads the same is the same, wherever it comes in.

Rows to learn from, rows to be scored and arguments of `copl.Model` all pass through here, so that equal input has equal
keys. What is levelled out is what nobody sees: composed and decomposed Unicode (NFC), spaces and invisible characters
around a text, kinds of spaces and line breaks within it, invisible characters within it. An id is one line as well, its
words a single space apart. Case, punctuation, indentation and everything else that can be seen stays.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from numbers import Integral
from typing import final

from attrs import frozen

_INVISIBLE = "\u00ad\u200b\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2060\u2066\u2067\u2068\u2069\ufeff"
_SPACES = "\u00a0\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000"
_BREAKS = "\u0085\u2028\u2029"
_LEVEL = str.maketrans({**dict.fromkeys(_INVISIBLE), **dict.fromkeys(_SPACES, " "), **dict.fromkeys(_BREAKS, "\n")})

# joiners shape the letters they stand between, and nothing at the ends
_ENDS = " \t\n\r\f\v\x1c\x1d\x1e\x1f\u200c\u200d"


@final
class ValueFaultError(Exception):
    """What is wrong with one value."""


def canonical_text(text: str) -> str:
    """Return a text in its one spelling.

    >>> canonical_text("  Cafe\\u0301\\u00a0noir.\\r\\n")
    'Café noir.'
    """
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        text = unicodedata.normalize("NFC", text.translate(_LEVEL))
    return text.strip(_ENDS)


def canonical_id(value: object) -> str:
    """Return the id of a user in its one spelling; a whole number is known by its digits.

    >>> canonical_id(" ann\\u200b"), canonical_id(7)
    ('ann', '7')

    Raises:
        ValueFaultError: the value is neither text nor a whole number.
    """
    if isinstance(value, str):
        return " ".join(canonical_text(value).split())
    if not isinstance(value, bool) and isinstance(value, Integral):
        return str(int(value))
    # a column of whole numbers, some of which are missing, is often kept as fractions
    given = str(value) if isinstance(value, float) else kind_of(value)
    raise ValueFaultError(f"expected text or a whole number, got {given}")


def text_fault(text: str) -> str | None:
    """Return what keeps a text from being kept and read, or None."""
    if not canonical_text(text):
        return "empty text"
    if "\x00" in text:
        return "the text holds a NUL byte; remove it"
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "the text holds half of a surrogate pair, which is no character; remove it"
    return None


def alike(text: str) -> str:
    """Return what texts have in common that a person might take for the same: no case, no spaces, one width."""
    if text.isascii():
        return "".join(text.casefold().split())
    folded = unicodedata.normalize("NFKC", canonical_text(text)).casefold()
    return "".join(c for c in folded if not c.isspace() and unicodedata.category(c) != "Cf")


_KINDS: Mapping[type, str] = {
    str: "text",
    list: "a list",
    dict: "an object",
    bool: "a truth value",
    int: "a number",
    float: "a number",
    bytes: "bytes",
    type(None): "nothing",
}


@final
@frozen
class Foreign:
    """A value that Python has no type for, such as a time in nanoseconds.

    Attributes:
        kind: its type where it comes from.
        text: how it is written there.
    """

    kind: str
    text: str

    def __str__(self) -> str:
        return self.text


def kind_of(value: object) -> str:
    """Return what a value is, in words for a message."""
    if isinstance(value, Foreign):
        return value.kind
    return _KINDS.get(type(value), type(value).__name__)
