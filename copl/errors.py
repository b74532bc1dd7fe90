"""The errors that `copl` raises on purpose.

Every `CoplError` is a user's mistake or a condition a user can mend. It carries one or more *faults*: single lines that
say what is wrong, where, and what to do. The command line prints each fault on a line of its own and exits with 2; any
other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import json
import os
import re
import reprlib
from collections.abc import Iterable
from typing import final

_LONGEST_FAULT = 2000
_LONGEST_VALUE = 200
_LONGEST_WORD = 200
"""Nobody mistypes a longer name, and comparing it with known ones would take long."""

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 80
_SHORT.maxlevel = 3

_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
"""Control characters, line breaks of every kind, changes of writing direction, halves of surrogate pairs."""


class CoplError(Exception):
    """Base of all errors meant for the user.

    Args:
        faults: one line for each thing that is wrong; a single string counts as one fault. Line breaks and other
            control characters, which come from what is quoted, are written as escapes, and what is far too long is
            cut in the middle.
    """

    def __init__(self, faults: str | Iterable[str]) -> None:
        given = (faults,) if isinstance(faults, str) else faults
        self.faults: tuple[str, ...] = tuple(_cut(one_line(fault), _LONGEST_FAULT) for fault in given)
        super().__init__("\n".join(self.faults))

    def __reduce__(self) -> tuple[type[CoplError], tuple[tuple[str, ...]]]:
        # an error that crosses processes keeps its faults apart
        return type(self), (self.faults,)


@final
class OptionsError(CoplError):
    """Options or a recipe that cannot be understood; all faults of one input at once."""


@final
class UnknownComponentError(CoplError):
    """A component was asked for by a name that no package registers."""


@final
class PluginError(CoplError):
    """A plugin package is broken: a duplicate name, a misspelt hook, a wrong signature, a failing import."""


@final
class DataError(CoplError):
    """A data set that cannot be read or that breaks the rules of its format."""


@final
class BackboneError(CoplError):
    """A language model that is missing, damaged or unfit for the role."""


@final
class TrainingError(CoplError):
    """Training stopped for a reason the user can act on: a loss that is not finite, memory exhausted."""


@final
class RunError(CoplError):
    """A run directory that is missing, incomplete, foreign, damaged or from another version."""


def suggest(word: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for the closest known word, or an empty string when none is close."""
    close = difflib.get_close_matches(word[:_LONGEST_WORD], list(known), n=1, cutoff=0.6)
    return f" (did you mean {quoted(close[0])}?)" if close else ""


def one_line(text: str) -> str:
    r"""Return a text that is one line wherever it is printed, and moves no cursor: control characters as escapes.

    >>> print(one_line("a name\nof two lines"), one_line("\x1b[31mred"))
    a name\nof two lines \x1b[31mred
    """
    return _CONTROL.sub(lambda match: ascii(match[0])[1:-1], text)


def quoted(value: object) -> str:
    """Return a value as it is shown in a fault: as Python writes it, with the middle of a long one left out.

    >>> quoted("gcf"), len(quoted("x" * 1_000_000))
    ("'gcf'", 80)
    """
    return _cut(_SHORT.repr(value), _LONGEST_VALUE)


def of_system(error: OSError) -> str:
    """Return an error of the operating system as a fault: the file, where there is one, and what was wrong.

    >>> of_system(FileNotFoundError(2, "No such file or directory", "votes.csv"))
    'votes.csv: no such file or directory'
    """
    reason = error.strerror or str(error) or type(error).__name__
    reason = reason[:1].lower() + reason[1:]
    return one_line(reason if error.filename is None else f"{os.fsdecode(error.filename)}: {reason}")


def of_json(error: ValueError | RecursionError) -> str:
    """Return why a text is not JSON, from what `json.loads` raises; and what other readers of text raise likewise.

    >>> try:
    ...     json.loads("9" * 5000)
    ... except ValueError as error:
    ...     print(of_json(error))
    a whole number of thousands of digits
    """
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, UnicodeError):
        return "not text in UTF-8"
    if isinstance(error, json.JSONDecodeError):
        return f"not JSON: {error.msg[:1].lower()}{error.msg[1:]} at line {error.lineno}, column {error.colno}"
    return "a whole number of thousands of digits" if "int_max_str_digits" in str(error) else str(error)


def in_brief(error: BaseException) -> str:
    r"""Return what an error of somebody else's says on one line of at most 200 characters; its kind where it is silent.

    >>> in_brief(ValueError("two\n  lines")), in_brief(KeyError())
    ('two lines', 'KeyError')
    """
    return " ".join(str(error).split())[:200] or type(error).__name__


def _cut(text: str, length: int) -> str:
    """Return a text of at most `length` characters, its middle left out where it is longer."""
    return text if len(text) <= length else f"{text[: length // 2]} … {text[3 + length // 2 - length :]}"


@final
class UnknownUserWarning(UserWarning):
    """A user of whom nothing is known was scored as the average user."""
