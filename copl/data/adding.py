"""Rows of every kind added to a data set that is there: comparisons are split, judgements are learnt from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from copl.data.living import AddOptions, add_rows, joined_tables, split_options_of, split_seed_of
from copl.data.making.stable import stable_cold, stable_unseen
from copl.data.pairs import compact_all, pair_numbers
from copl.data.reading.rows import Rows
from copl.data.reading.table import Table
from copl.judgements import Judgements
from copl.records import SPLITS, Comparisons, ComparisonSet, PreferenceData
from copl.system.converters import number_rows

if TYPE_CHECKING:
    from copl.records import BoolArray


def add_said(data: PreferenceData, said: ComparisonSet, *, name: str, notes: tuple[str, ...] = ()) -> PreferenceData:
    """Return a data set with more comparisons and judgements; what is there keeps its split.

    What a user says again of the same takes the place of what was said before. New judgements are learnt from: those
    of seen users are added to ``train``, those of unseen ones to ``support``; what is held out of a user's responses,
    and what is on a cold prompt, is left out.

    Args:
        data: the data set.
        said: what is added (`copl.data.making.collected.Collected.as_set`).
        name: what it is called in the notes.
        notes: further remarks.
    """
    given = said.given
    rows = Rows(attrs.evolve(said, comparisons=given), None, Table(name, {}, np.arange(1, len(given) + 1)), notes, ())
    grown = add_rows(_without_old_words(data, rows.data), rows, AddOptions(contradictions="keep"), name=name)
    if not len(said.judgements):
        return grown
    users, responses, new_user, new_response = joined_tables(grown, said.users, said.responses, name)
    fresh = said.judgements.renumbered(new_user, new_response)
    known = dict(grown.judgements)
    options, seed = split_options_of(grown), split_seed_of(grown)
    unseen = stable_unseen(users.ids, options.unseen_fraction, grown.splits, seed=seed)
    for split, part in known.items():
        unseen[part.user] = split == "support"
    by_prompt = options.cold_by == "prompt"
    cold = stable_cold(responses, options.cold_fraction, grown.splits, by_prompt=by_prompt, seed=seed)
    is_cold = cold[fresh.response] | (fresh.is_of_two & cold[fresh.other])
    held = _held_out(grown, fresh, len(responses))
    old = Judgements.concat(list(known.values()))
    again, replaced = _said_again(old, fresh)
    use = ~is_cold & ~held & ~again
    starts = np.cumsum([0, *map(len, known.values())])
    kept = {split: part.take(~replaced[start:][: len(part)])
            for (split, part), start in zip(known.items(), starts, strict=False)}  # fmt: skip
    for split, mask in (("train", use & ~unseen[fresh.user]), ("support", use & unseen[fresh.user])):
        if mask.any():
            kept[split] = Judgements.concat([kept.get(split, Judgements.empty()), fresh.take(mask)])
    tables = compact_all(users, responses, grown.splits, {split: kept[split] for split in SPLITS if split in kept})
    reasons = {"there already": again, "on cold prompts": is_cold & ~again, "held out": held & ~is_cold & ~again}
    if not use.any():
        return grown
    told = [f"{int(use.sum()):,} judgements were added from {name}.",
            *(f"{int(mask.sum()):,} judgements of {name} were left out: {why}." for why, mask in reasons.items()
              if mask.any())]  # fmt: skip
    provenance = {**grown.provenance, "notes": [*grown.provenance.get("notes", ()), *told]}
    return PreferenceData(grown.name, *tables[:3], provenance, tables[3])


def _without_old_words(data: PreferenceData, said: ComparisonSet) -> PreferenceData:
    """Return a data set without comparisons that the same users now decide the other way."""
    users = np.array([data.users.rows.get(user, -1) for user in said.users.ids], dtype=np.int64)
    table = np.array([data.responses.rows.get(key, -1) for key in said.responses.keys], dtype=np.int64)
    rows = said.comparisons.renumbered(users, table) if len(said) else said.comparisons
    rows = rows.take((rows.user >= 0) & (rows.chosen >= 0) & (rows.rejected >= 0))
    splits = {}
    for name, part in data.splits.items():
        both = Comparisons.concat([part, rows])
        pair = pair_numbers(both)
        way = number_rows(both.user, both.chosen, both.rejected)
        turned = np.isin(pair[: len(part)], pair[len(part) :]) & ~np.isin(way[: len(part)], way[len(part) :])
        splits[name] = part.take(~turned)
    return attrs.evolve(data, splits=splits)


def _held_out(data: PreferenceData, fresh: Judgements, num_responses: int) -> BoolArray:
    """Return which judgements [N] are of a response that is held out of its user's."""
    held = np.zeros(0, dtype=np.int64)
    for name in ("validation", "test", "cold", "heldout"):
        part = data.splits.get(name, Comparisons.empty())
        held = np.concatenate([held, *(part.user * num_responses + end for end in (part.chosen, part.rejected))])
    mask: BoolArray = np.isin(fresh.user * num_responses + fresh.response, held)
    mask |= fresh.is_of_two & np.isin(fresh.user * num_responses + fresh.other, held)
    return mask


def _said_again(old: Judgements, fresh: Judgements) -> tuple[BoolArray, BoolArray]:
    """Return which new judgements are there already, and which old ones a new one takes the place of."""
    both = Judgements.concat([old, fresh])
    subject = both.subjects
    start = len(old)
    same = number_rows(subject, both.kind.astype(np.int64), np.unique(both.value, return_inverse=True)[1])
    again = np.isin(same[start:], same[:start])
    return again, np.isin(subject[:start], subject[start:][~again])
