"""What a data set holds, as plain values for a script and as rows for a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from copl.data.checking.checks import omission_findings
from copl.data.checking.findings import Finding
from copl.data.checking.shortcuts import trivial_rules
from copl.data.checking.split_ids import split_digests
from copl.data.making.notes import omissions
from copl.data.pairs import occurring
from copl.records import Comparisons, PreferenceData

if TYPE_CHECKING:
    from copl.records import IntArray

_QUANTILES = {"min": 0.0, "quarter": 0.25, "median": 0.5, "three_quarters": 0.75, "max": 1.0}
_GROUPS_SHOWN = 12


def describe_data(data: PreferenceData, findings: Iterable[Finding] = ()) -> dict[str, Any]:
    """Return what a data set holds, as plain JSON values, and what `copl.data.checking.checks.check` found in it.

    Keys: ``name``, ``source``, ``licence``, ``attribution``, ``construction``, ``users``, ``responses``, ``prompts``,
    ``groups`` (users by group), ``splits`` (by name: comparisons, users, responses, comparisons per user, shares known
    to be controversial and common, and a digest of user ids and response keys), ``judgements`` (by split, how many of
    each kind), ``lengths`` (characters of prompts and responses), ``rules`` (how often trivial rules are right),
    ``findings``, ``left_out`` (how many of what, and why) and ``notes``.
    """
    provenance = data.provenance
    prompts = set(data.responses.prompts)
    digests = split_digests(data)
    left_out = set(omission_findings(data))
    return {
        "name": data.name,
        "source": provenance.get("source", ""),
        "licence": provenance.get("licence", ""),
        "attribution": provenance.get("attribution", ""),
        "users": len(data.users),
        "responses": len(data.responses),
        "prompts": len(prompts),
        "groups": dict(Counter(group for group in data.users.groups if group is not None).most_common()),
        "judgements": {name: part.counts() for name, part in data.judgements.items()},
        "splits": {
            name: _describe_split(data.splits[name], len(data.responses), digests[name]) for name in data.present()
        },
        "lengths": {"prompt": _quantiles(map(len, prompts)), "response": _quantiles(map(len, data.responses.texts))},
        "construction": provenance.get("construction", ""),
        "rules": [attrs.asdict(rule) for rule in trivial_rules(data)],
        "findings": [attrs.asdict(finding) for finding in findings if finding not in left_out],
        "left_out": [attrs.asdict(one) for one in omissions(provenance)],
        "notes": [str(note) for note in provenance.get("notes", ())],
    }


def _describe_split(part: Comparisons, num_responses: int, digest: str) -> dict[str, object]:
    counts = np.bincount(part.user)
    return {
        "comparisons": len(part),
        "users": int((counts > 0).sum()),
        "responses": int(occurring(num_responses, part.chosen, part.rejected).sum()),
        "per_user": _quantiles(counts[counts > 0]),
        "controversial": round(float((part.controversial == 1).mean()), 4),
        "common": round(float((part.controversial == 0).mean()), 4),
        "digest": digest,
    }


def _quantiles(values: Iterable[int] | IntArray) -> dict[str, float]:
    array = np.asarray(values if isinstance(values, np.ndarray) else list(values), dtype=np.float64)
    if not len(array):
        return {}
    return {name: float(np.quantile(array, level)) for name, level in _QUANTILES.items()}


def description_rows(description: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a description as rows of a name and a value, for a table."""
    rows = [
        (name, str(description[name]))
        for name in ("source", "licence", "attribution", "construction")
        if description[name]
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
    for name, kinds in description["judgements"].items():
        rows.append((f"{name}, judgements", ", ".join(f"{kind}: {count:,}" for kind, count in kinds.items())))
    digests = ", ".join(f"{name} {part['digest'][:8]}" for name, part in description["splits"].items())
    rows += [("digests of the splits", digests)] if digests else []
    rows += [(f"{name} length, characters", _spread(spread)) for name, spread in description["lengths"].items()]
    rows += [
        (f"{rule['rule']} wins", f"{rule['accuracy']:.1%} of {rule['count']:,} comparisons")
        for rule in description["rules"]
    ]
    rows += _omission_rows(description["left_out"])
    rows += [("note", note) for note in description["notes"]]
    rows += [
        (finding["severity"], f"{finding['what']}: {finding['count']:,} ({finding['where']}); {finding['advice']}")
        for finding in description["findings"]
    ]
    return rows


def _omission_rows(records: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Return for each kind of what was left out their sum, and a row for each reason, the most first."""
    rows: list[tuple[str, str]] = []
    for what in dict.fromkeys(record["what"] for record in records):
        own = sorted((one for one in records if one["what"] == what), key=lambda one: -one["count"])
        rows.append((f"{what} left out", f"{sum(one['count'] for one in own):,}"))
        rows += [("", f"{one['count']:,}: {one['reason']}") for one in own]
    return rows


def _spread(quantiles: Mapping[str, float]) -> str:
    if not quantiles:
        return "none"
    q = {name: f"{value:,.0f}" for name, value in quantiles.items()}
    return f"median {q['median']}, half in {q['quarter']} to {q['three_quarters']}, all in {q['min']} to {q['max']}"
