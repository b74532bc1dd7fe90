"""What a data set holds, as plain values for a script and as rows for a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from copl.records import Comparisons, PreferenceData

if TYPE_CHECKING:
    from copl.records import IntArray

_QUANTILES = {"min": 0.0, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "max": 1.0}
_GROUPS_SHOWN = 12


def describe_data(data: PreferenceData) -> dict[str, Any]:
    """Return what a data set holds, as plain JSON values.

    Keys: ``name``, ``source``, ``licence``, ``attribution``, ``users``, ``responses``, ``prompts``, ``groups`` (users
    by group), ``splits`` (by name: comparisons, users, responses, comparisons per user, shares known to be
    controversial and common), ``lengths`` (characters of prompts and responses) and ``notes``.
    """
    provenance = data.provenance
    prompts = set(data.responses.prompts)
    return {
        "name": data.name,
        "source": provenance.get("source", ""),
        "licence": provenance.get("licence", ""),
        "attribution": provenance.get("attribution", ""),
        "users": len(data.users),
        "responses": len(data.responses),
        "prompts": len(prompts),
        "groups": dict(Counter(group for group in data.users.groups if group is not None).most_common()),
        "splits": {name: _describe_split(data.splits[name]) for name in data.present()},
        "lengths": {"prompt": _quantiles(map(len, prompts)), "response": _quantiles(map(len, data.responses.texts))},
        "notes": list(provenance.get("notes", ())),
    }


def _describe_split(part: Comparisons) -> dict[str, Any]:
    counts = np.bincount(part.user)
    return {
        "comparisons": len(part),
        "users": int((counts > 0).sum()),
        "responses": len(np.union1d(part.chosen, part.rejected)),
        "per_user": _quantiles(counts[counts > 0]),
        "controversial": round(float((part.controversial == 1).mean()), 4),
        "common": round(float((part.controversial == 0).mean()), 4),
    }


def _quantiles(values: Iterable[int] | IntArray) -> dict[str, float]:
    array = np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype=np.float64)
    if not len(array):
        return {}
    return {name: float(np.quantile(array, level)) for name, level in _QUANTILES.items()}


def description_rows(description: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a description as rows of a name and a value, for a table."""
    rows = [
        (name, str(description[key]))
        for name, key in (("source", "source"), ("licence", "licence"), ("attribution", "attribution"))
        if description[key]
    ]
    rows += [(name, f"{description[name]:,}") for name in ("users", "responses", "prompts")]
    if description["groups"]:
        groups = list(description["groups"].items())
        shown = ", ".join(f"{group}: {count:,}" for group, count in groups[:_GROUPS_SHOWN])
        rows.append(("users by group", shown + (" …" if len(groups) > _GROUPS_SHOWN else "")))
    for name, part in description["splits"].items():
        text = f"{part['comparisons']:,} comparisons, {part['users']:,} users, {part['responses']:,} responses"
        spread = part["per_user"]
        text += f"; a user has {spread['median']:,.0f} ({spread['min']:,.0f} to {spread['max']:,.0f})"
        if part["controversial"] or part["common"]:
            text += f"; {part['controversial']:.0%} controversial"
        rows.append((name, text))
    rows += [(f"{name} length, characters", _spread(spread)) for name, spread in description["lengths"].items()]
    rows += [("note", note) for note in description["notes"]]
    return rows


def _spread(quantiles: Mapping[str, float]) -> str:
    if not quantiles:
        return "none"
    q = {name: f"{value:,.0f}" for name, value in quantiles.items()}
    return f"median {q['median']}, half in {q['quarter']} to {q['three_quarters']}, all in {q['min']} to {q['max']}"
