"""Source ``reference-pickle``: data files of the published CoPL code (github:ml-postech/CoPL).

Its generators write a pair: the responses by number, each a dict with ``full_text`` (or ``text``), and a list of users,
each a dict with ``user``, ``context``, ``context_unseen``, ``target`` (pairs of numbers, the preferred response first)
and mostly ``user_type``. ``context`` becomes split ``train``, ``context_unseen`` ``validation``, ``target`` ``cold``.
Files of unseen users, which that code reads but has no generator for, hold the list of users alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import attrs
import numpy as np

from copl.data.canonical import canonical_id, canonical_text
from copl.data.making.notes import Note, left_out
from copl.data.making.origin import Origin
from copl.data.making.splits import drop_stranded
from copl.data.pairs import compact
from copl.data.reading.plain_pickle import read_plain_pickle
from copl.data.reading.texts import storable
from copl.errors import DataError, quoted
from copl.options import option
from copl.plugins import Component
from copl.records import SPLITS, Comparisons, PreferenceData, ResponseTable, UserTable

ORIGIN = Origin(
    "reference-pickle",
    "that of the data set the file was made from",
    "Choi et al., CoPL: Collaborative Preference Learning for Personalizing LLMs, 2025 (arXiv 2503.01658)",
    "As in the file: context is train, context_unseen validation, target cold; texts are taken apart into prompt and "
    "response where they have both.",
)

_MARKERS = ("\n\nAssistant: ", " Assistant: ")


@final
@attrs.frozen(kw_only=True)
class ReferencePickleOptions:
    """Options of the reference implementation's files."""

    path: Path = option(help="a .pkl file that the published code has written")
    unseen_path: Path | None = option(
        None, help="a .pkl file of unseen users over the same responses: their context is support, target heldout"
    )


@final
class ReferencePickleSource:
    """Reads the files with an unpickler that can build plain values only."""

    def __init__(self, options: ReferencePickleOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read the file; the seed changes nothing, for the splits are the file's.

        Raises:
            DataError: the pickle asks for more than plain values, is damaged, or has another structure.
        """
        options = self._options
        held = read_plain_pickle(options.path)
        if not isinstance(held, tuple | list) or len(held) != 2:
            raise DataError(f"{options.path}: expected a pair: responses by number, and a list of users")
        texts = _texts(held[0], options.path)
        rows = {number: row for row, number in enumerate(texts)}
        users = _users(held[1], rows, options.path, ("train", "validation", "cold"), "")
        if options.unseen_path is not None:
            held = read_plain_pickle(options.unseen_path)
            entries = held[1] if isinstance(held, tuple) and len(held) == 2 else held
            unseen = _users(entries, rows, options.unseen_path, ("support", "support", "heldout"), "unseen-")
            users = users.joined(unseen)
        prompts = [_apart(text) for text in texts.values()]
        responses, merged = _merge(prompts)
        dropped: dict[str, int] = {}
        splits = {name: _comparisons(users.rows.get(name, []), merged, dropped) for name in SPLITS}
        sound = drop_stranded(splits, {})
        table, kept, splits = compact(UserTable(users.ids, users.groups), responses, sound.splits)
        bare = sum(not prompt for prompt, _ in prompts)
        notes: list[Note] = [
            *left_out(dropped, "comparisons"),
            *sound.notes,
            f"{bare:,} of {len(prompts):,} texts come without their prompt, as the published code writes PersonalLLM; "
            "source personalllm makes the set with prompts."
            if bare
            else "",
        ]
        counts = {"users": len(users.ids), "texts": len(texts)}
        provenance = ORIGIN.provenance(options, seed=seed, split="given", counts=counts, notes=notes)
        return PreferenceData(options.path.stem, table, kept, splits, provenance)


@final
@attrs.frozen(eq=False)
class _Users:
    """Users, and by split the comparisons: rows of the user, of the chosen and of the rejected text."""

    ids: list[str]
    groups: list[str | None]
    rows: dict[str, list[tuple[int, int, int]]]

    def joined(self, other: _Users) -> _Users:
        moved = {
            name: [(user + len(self.ids), chosen, rejected) for user, chosen, rejected in rows]
            for name, rows in other.rows.items()
        }
        return _Users([*self.ids, *other.ids], [*self.groups, *other.groups], {**self.rows, **moved})


def _texts(held: object, path: Path) -> dict[int, str]:
    if not isinstance(held, dict) or not held:
        raise DataError(f"{path}: expected responses by number first, got {type(held).__name__}")
    texts: dict[int, str] = {}
    for number, entry in held.items():
        text = entry.get("full_text", entry.get("text")) if isinstance(entry, dict) else None
        if not isinstance(number, int) or not isinstance(text, str):
            name = quoted(number)
            raise DataError(f"{path}: response {name}: expected a number and a dict with text under 'full_text'")
        texts[number] = storable(text)
    return texts


def _users(held: object, rows: Mapping[int, int], path: Path, splits: Sequence[str], prefix: str) -> _Users:
    if not isinstance(held, list) or not all(isinstance(entry, dict) for entry in held):
        raise DataError(f"{path}: expected a list of users, each a dict, got {type(held).__name__}")
    users = _Users([], [], {name: [] for name in splits})
    for place, entry in enumerate(held):
        if not isinstance(entry.get("user"), int | str):
            raise DataError(f"{path}: user {place + 1} of the list: expected a number or text under 'user'")
        users.ids.append(f"{prefix}{canonical_id(entry['user'])}")
        kind = entry.get("user_type")
        users.groups.append(None if kind is None else str(kind))
        for key, split in zip(("context", "context_unseen", "target"), splits, strict=True):
            try:
                pairs = [(rows[chosen], rows[rejected]) for chosen, rejected in entry.get(key, [])]
            except (TypeError, ValueError, KeyError) as error:
                raise DataError(
                    f"{path}: user {quoted(entry.get('user'))}: {key}: expected pairs of numbers of responses in it"
                ) from error
            users.rows[split] += [(place, chosen, rejected) for chosen, rejected in pairs]
    if len(set(users.ids)) != len(users.ids):
        raise DataError(f"{path}: a user stands there twice")
    return users


def _apart(text: str) -> tuple[str, str]:
    """Return prompt and response of a text; the prompt is empty where the text is a response alone."""
    if text.startswith("Human: "):
        for marker in _MARKERS:
            before, divider, after = text.partition(marker)
            if divider:
                return canonical_text(before.removeprefix("Human: ")), canonical_text(after)
    return "", canonical_text(text)


def _merge(texts: Sequence[tuple[str, str]]) -> tuple[ResponseTable, object]:
    """Return the distinct responses in order of prompt and text, and the row of each text given."""
    distinct = sorted(set(texts))
    row = {text: place for place, text in enumerate(distinct)}
    table = ResponseTable((prompt for prompt, _ in distinct), (text for _, text in distinct))
    return table, np.array([row[text] for text in texts], dtype=np.int64)


def _comparisons(rows: list[tuple[int, int, int]], merged: Any, dropped: dict[str, int]) -> Comparisons:
    array = np.array(rows, dtype=np.int64).reshape(-1, 3)
    user, chosen, rejected = array[:, 0], merged[array[:, 1]], merged[array[:, 2]]
    same = chosen == rejected
    dropped["between equal texts"] = dropped.get("between equal texts", 0) + int(same.sum())
    return Comparisons(user[~same], chosen[~same], rejected[~same])


COMPONENTS = [
    Component(
        "reference-pickle",
        ReferencePickleOptions,
        ReferencePickleSource,
        "data files of the published CoPL code, opened without running what they name",
        reference=ORIGIN.citation,
    )
]
