"""What a person should know of how a data set was made: sentences, and records of what was left out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias, final

import attrs


@final
@attrs.frozen
class Omission:
    """What was left out for one reason.

    Attributes:
        count: how many.
        what: of what, in the plural.
        reason: why.
    """

    count: int
    what: str
    reason: str

    def __str__(self) -> str:
        return f"{self.count:,} {self.what} were left out: {self.reason}."


Note: TypeAlias = str | Omission


def left_out(counts: Mapping[str, int], what: str = "pairs") -> list[Omission]:
    """Return a record for each reason for which something was left out."""
    return [Omission(count, what, reason) for reason, count in counts.items() if count]


def noted(before: Mapping[str, Any], notes: Iterable[Note]) -> dict[str, Any]:
    """Return the entries ``notes`` and ``left_out`` of a provenance, with more notes after those that are there.

    Args:
        before: the provenance; nothing for a new one.
        notes: the notes; empty ones are left out.
    """
    remarks = list(notes)
    sentences = [note for note in remarks if isinstance(note, str) and note]
    records = [attrs.asdict(note) for note in remarks if isinstance(note, Omission)]
    return {
        "notes": [*before.get("notes", ()), *sentences],
        "left_out": [*before.get("left_out", ()), *records],
    }


def omissions(provenance: Mapping[str, Any]) -> Sequence[Omission]:
    """Return what was left out on the way to a data set; earlier versions have sentences alone."""
    return [Omission(int(one["count"]), str(one["what"]), str(one["reason"])) for one in provenance.get("left_out", ())]
