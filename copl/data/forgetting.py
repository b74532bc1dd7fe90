"""Users who are forgotten: no comparison, text or name of theirs stays in a data set, and what stays does not move."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import quote

import numpy as np

from copl.data.pairs import compact_all
from copl.errors import DataError, quoted, suggest
from copl.records import PreferenceData

_WRITTEN = ("options", "subset")
"""Entries of the provenance in which names of files may be those of users."""


def forget_users(data: PreferenceData, users: Sequence[str]) -> PreferenceData:
    """Return a data set without some users and without the texts that only they judged.

    Notes and findings that name them, or that quote an example of anything, are left out as well, and so are options
    that name them, such as the path of a file called after its user.

    Args:
        data: the data set.
        users: ids of those who are to be forgotten.

    Raises:
        DataError: one fault for each id that the data set does not have; or nothing is left to train on.
    """
    unknown = [user for user in users if user not in data.users.rows]
    if unknown:
        raise DataError(
            [f"data set {quoted(data.name)}: no user {quoted(one)}{suggest(one, data.users.ids)}" for one in unknown]
        )
    gone = np.zeros(len(data.users), dtype=np.bool_)
    gone[[data.users.rows[user] for user in users]] = True
    splits = {name: part.take(~gone[part.user]) for name, part in data.splits.items()}
    judged = {name: part.take(~gone[part.user]) for name, part in data.judgements.items()}
    if not len(splits.get("train", ())) + len(judged.get("train", ())):
        raise DataError(f"data set {quoted(data.name)}: without them nothing is left to train on; delete it instead")
    table, responses, kept, judgements = compact_all(data.users, data.responses, splits, judged)
    names = _names(users)
    count = len(set(users))
    forgotten = "1 user was" if count == 1 else f"{count:,} users were"
    provenance = {
        **data.provenance,
        **{key: _unnamed(data.provenance[key], names) for key in _WRITTEN if key in data.provenance},
        "counts": {**data.provenance.get("counts", {}), "kept": sum(map(len, kept.values()))},
        "notes": [
            *(note for note in data.provenance.get("notes", ()) if _is_silent(note, names)),
            f"{forgotten} forgotten; other counts than that of what is kept are of before.",
        ],
        "left_out": [entry for entry in data.provenance.get("left_out", ()) if _is_silent(entry, names)],
        "findings": [entry for entry in data.provenance.get("findings", ()) if _is_silent(entry, names)],
    }
    name = str(provenance.get("source", "data")) if names.search(data.name) else data.name
    return PreferenceData(name, table, responses, kept, provenance, judgements)


def _names(users: Sequence[str]) -> re.Pattern[str]:
    """Return what finds users in texts, however they are written there."""
    written = {
        one
        for user in users
        for form in (user, unicodedata.normalize("NFD", user))
        for one in (form, quoted(form)[1:-1], repr(form)[1:-1], json.dumps(form)[1:-1], quote(form), quote(form, ""))
    }
    return re.compile("|".join(rf"(?<!\w){re.escape(one)}(?!\w)" for one in sorted(written, key=len, reverse=True)))


def _is_silent(entry: object, names: re.Pattern[str]) -> bool:
    return not any("such as" in text or names.search(text) for text in _texts(entry))


def _texts(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from (str(key), *_texts(inner))
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from _texts(inner)
    elif isinstance(value, str):
        yield value


def _unnamed(value: object, names: re.Pattern[str]) -> object:
    """Return plain values without the entries that name a user."""
    if not isinstance(value, Mapping):
        return value
    kept = {key: _unnamed(inner, names) for key, inner in value.items()}
    return {key: inner for key, inner in kept.items() if not any(map(names.search, (str(key), *_texts(inner))))}
