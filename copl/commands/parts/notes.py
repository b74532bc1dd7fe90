"""Notes of a data set for a person: what was left out stands together, by reason."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

_LEFT_OUT = re.compile(r"([\d,]+) (.+?) were (left out|dropped): (.+)\.")


def by_reason(rows: Iterable[Sequence[str]]) -> list[tuple[str, str]]:
    """Return rows of a name and a value in which notes of what was left out are one sum, and a line for each reason.

    >>> rows = [("users", "3"), ("note", "2 rows were left out: empty."), ("note", "1,900 rows were left out: twice.")]
    >>> by_reason([*rows, ("note", "Ids are hashed."), ("info", "few users")])
    [('users', '3'), ('rows left out', '1,902'), ('', '1,900: twice'), ('', '2: empty'), ('note', 'Ids are hashed.'), \
('info', 'few users')]
    """
    shown: list[tuple[str, str]] = []
    reasons: dict[str, list[tuple[int, str]]] = {}
    for name, value in rows:
        found = _LEFT_OUT.fullmatch(value) if name == "note" else None
        if found is None:
            shown.append((name, value))
            continue
        count, what, verb, reason = found.groups()
        group = f"{what} {verb}"
        if group not in reasons:
            shown.append((group, ""))
        reasons.setdefault(group, []).append((int(count.replace(",", "")), reason))
    return [row for one in shown for row in (_summed(one[0], reasons[one[0]]) if one[0] in reasons else [one])]


def _summed(name: str, reasons: Sequence[tuple[int, str]]) -> list[tuple[str, str]]:
    most_first = sorted(reasons, key=lambda one: -one[0])
    lines = [("", f"{count:,}: {reason}") for count, reason in most_first]
    return [(name, f"{sum(count for count, _ in reasons):,}"), *lines]
