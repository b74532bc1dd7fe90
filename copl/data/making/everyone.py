"""A data set to learn from everyone: no user is unseen and nothing is held out but for validation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from copl.data.hashing import fractions, hashes, mix
from copl.data.pairs import openings
from copl.records import SPLITS, Comparisons, PreferenceData
from copl.records.judgements import Judgements

if TYPE_CHECKING:
    from copl.records import BoolArray

VALIDATION_SHARE = 0.1


def for_everyone(data: PreferenceData) -> PreferenceData:
    """Return a data set whose comparisons are all trained on, those of unseen users and of new prompts too.

    Those that choose options and stop training stay with that. Where there are none, it is a tenth of the comparisons
    of users who have said more than one thing, by a hash of user and pair: rows that are added move none of them.
    """
    validation = data.splits.get("validation", Comparisons.empty())
    learned = [split for split in SPLITS if split != "validation"]
    train = Comparisons.concat([data.splits[split] for split in learned if split in data.splits])
    if not len(validation):
        held = _held(data, train)
        train, validation = train.take(~held), train.take(held)
    judgements = {"train": Judgements.concat([data.judgements[s] for s in learned if s in data.judgements])}
    if "validation" in data.judgements:
        judgements["validation"] = data.judgements["validation"]
    return attrs.evolve(data, splits={"train": train, "validation": validation}, judgements=judgements)


def _held(data: PreferenceData, rows: Comparisons) -> BoolArray:
    """Return which comparisons [N] choose and stop; the first one of a user is trained on."""
    users, responses = hashes(data.users.ids, "everyone"), hashes(data.responses.keys)
    value = fractions(mix(users[rows.user] + mix(responses[rows.chosen] + responses[rows.rejected])))
    held: BoolArray = value < VALIDATION_SHARE
    held[openings(rows.user)] = False
    return held
