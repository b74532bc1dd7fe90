"""The errors that `copl` raises on purpose.

Every `CoplError` is a user's mistake or a condition a user can mend. It carries one or more *faults*: single lines that
say what is wrong, where, and what to do. The command line prints each fault on a line of its own and exits with 2; any
other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import final


class CoplError(Exception):
    """Base of all errors meant for the user.

    Args:
        faults: one line for each thing that is wrong; a single string counts as one fault.
    """

    def __init__(self, faults: str | Iterable[str]) -> None:
        self.faults: tuple[str, ...] = (faults,) if isinstance(faults, str) else tuple(faults)
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
    close = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
