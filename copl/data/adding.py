"""Rows of every kind added to a data set that is there: dealt as the first ones were, and moving none of them."""

from __future__ import annotations

import attrs
import numpy as np

from copl.data.living import (
    AddOptions,
    add_rows,
    joined_tables,
    split_options_of,
    split_seed_of,
    training_ends,
)
from copl.data.making.dealing import (
    LEFT,
    Dealer,
    beside,
    deal_all,
    held_out,
    speaking,
    unseen_users,
    with_something_learnt,
)
from copl.data.making.notes import Note, noted
from copl.data.making.notes import left_out as notes_of_left_out
from copl.data.making.stable import stable_cold
from copl.data.pairs import compact_all
from copl.data.reading.rows import Rows
from copl.data.reading.table import Table
from copl.data.requests import Tell, do_not_tell
from copl.errors import DataError
from copl.records import Comparisons, ComparisonSet, PreferenceData
from copl.records.judgements import COMPARISON, Judgements
from copl.records.said import as_words, words_of
from copl.system.converters import latest_of, number_rows

_EVAL_PAIRS = 10


def add_said(
    data: PreferenceData, said: ComparisonSet, *, name: str, notes: tuple[Note, ...] = (), tell: Tell = do_not_tell
) -> PreferenceData:
    """Return a data set with more comparisons and judgements; what is there keeps its split.

    What a user says again of the same takes the place of what was said before, unless that was said at a later time.
    New thumbs and ratings are dealt as the first ones were (`copl.data.making.dealing`), ties are learnt from. What is
    said of responses that are held out of the same user's is left out, and so are ties on cold prompts.

    Args:
        data: the data set.
        said: what is added (`copl.data.making.collected.Collected.as_set`).
        name: what it is called in the notes.
        notes: further remarks.
        tell: is told what was left out, and why.

    Raises:
        DataError: a user is in another group than before, or a time is missing where the data set is split by time.
    """
    times = np.concatenate([said.given.time, said.judgements.time])
    if training_ends(data) is not None and (missing := int(np.isnan(times).sum())):
        raise DataError(f"{name}: the data set is split by time, and {missing:,} rows have none; add a timestamp")
    kept, given, judged, left_out = _sifted(data, said, name)
    grown = kept
    if len(given):
        table = Table(name, {}, np.arange(1, len(given) + 1))
        rows = Rows(ComparisonSet(said.users, said.responses, given), None, table, (), ())
        grown = add_rows(kept, rows, AddOptions(contradictions="keep"), name=name, tell=tell)
    if not len(judged):
        for note in notes_of_left_out(left_out, f"judgements of {name}"):
            tell(str(note))
        if grown is kept:
            return grown if len(given) else data
        return attrs.evolve(grown, provenance={**grown.provenance, **noted(grown.provenance, notes)})
    added = attrs.evolve(said, judgements=judged)
    whole = _with_judgements(grown, added, name, left_out, notes, has_grown=bool(len(given)))
    for note in notes_of_left_out(left_out, f"judgements of {name}"):
        tell(str(note))
    return whole


def _sifted(
    data: PreferenceData, said: ComparisonSet, name: str
) -> tuple[PreferenceData, Comparisons, Judgements, dict[str, int]]:
    """Return the data set without what is said otherwise now, and of what is said that which is new."""
    _, _, user, response = joined_tables(data, said.users, said.responses, name)
    before = [*data.splits.values()], [*data.judgements.values()]
    old = Judgements.concat([*map(as_words, before[0]), *before[1]])
    start, num_given = len(old), len(said.given)
    both = Judgements.concat([old, words_of(said).renumbered(user, response)])
    subject = both.subjects
    # a tie is the same whichever response is named first
    first = np.where(both.is_of_two & (both.kind != COMPARISON), np.minimum(both.response, both.other), both.response)
    values = (np.unique(column, return_inverse=True)[1] for column in (both.value, both.weight))
    content = number_rows(subject, both.kind.astype(np.int64), *values, first)
    latest = latest_of(subject[:start], old.time, int(subject.max(initial=-1)) + 1)
    # said again at a later time it counts from then on
    again = np.isin(content[start:], content[:start]) & ~(both.time[start:] > latest[subject[start:]])
    stale = ~again & (both.time[start:] < latest[subject[start:]])
    use = ~again & ~stale
    holds = ~np.isin(subject[:start], subject[start:][use])
    masks = iter(np.split(holds, np.cumsum([len(part) for parts in before for part in parts])[:-1]))
    splits = {split: part.take(next(masks)) for split, part in data.splits.items()}
    judgements = {split: part.take(next(masks)) for split, part in data.judgements.items()}
    left_out = {"there already": int(again[num_given:].sum()), "said again later": int(stale[num_given:].sum())}
    kept = attrs.evolve(data, splits=splits, judgements=judgements)
    return kept, said.given.take(use[:num_given]), said.judgements.take(use[num_given:]), left_out


def _with_judgements(
    data: PreferenceData,
    said: ComparisonSet,
    name: str,
    left_out: dict[str, int],
    remarks: tuple[Note, ...],
    *,
    has_grown: bool,
) -> PreferenceData:
    """Return a data set with judgements, none of which is there already; as it is where nothing comes of them.

    Args:
        data: the data set, with the comparisons that were said beside them.
        said: what is added.
        name: what it is called in the notes.
        left_out: how much of it was left out before, by reason.
        remarks: further remarks.
        has_grown: whether the data set has changed already.
    """
    users, responses, user, response = joined_tables(data, said.users, said.responses, name)
    whole = attrs.evolve(data, users=users, responses=responses)
    learnt, judged = _dealt(whole, said.judgements.renumbered(user, response), left_out)
    judgements = beside(data.judgements, {split: part for split, part in learnt.items() if len(part)})
    judged = with_something_learnt(judged, speaking(len(users), data.splits, judgements))
    splits = beside(data.splits, {split: part for split, part in judged.items() if len(part)})
    num_learnt, num_judged = (sum(map(len, parts.values())) for parts in (learnt, judged))
    if not num_learnt + num_judged and not has_grown:
        return data
    notes = [
        *([f"{num_learnt:,} judgements were added from {name}."] if num_learnt else []),
        *remarks,
        *([f"{num_judged:,} comparisons to judge by were drawn from others."] if num_judged else []),
        *notes_of_left_out(left_out, f"judgements of {name}"),
    ]
    tables = compact_all(users, responses, splits, judgements)
    counts = {**data.provenance.get("counts", {}), "kept": sum(map(len, splits.values()))}
    return PreferenceData(
        data.name, *tables[:3], {**data.provenance, "counts": counts, **noted(data.provenance, notes)}, tables[3]
    )


def _dealt(
    data: PreferenceData, fresh: Judgements, left_out: dict[str, int]
) -> tuple[dict[str, Judgements], dict[str, Comparisons]]:
    """Return what is learnt from by split, and comparisons to judge by; what is left out is counted by reason."""
    users, responses = data.users, data.responses
    options, seed, ends = split_options_of(data), split_seed_of(data), training_ends(data)
    held = held_out({} if ends else data.splits, fresh, len(responses))
    held &= fresh.is_of_two & (options.strategy == "response")
    by_prompt = options.cold_by == "prompt"
    cold = stable_cold(responses, options.cold_fraction, data.splits, by_prompt=by_prompt, seed=seed)
    of_two = fresh.is_of_two & ~held
    is_cold = of_two & (cold[fresh.response] | cold[fresh.other])
    is_late = of_two & ~is_cold & (fresh.time > (ends[0] if ends else np.inf))
    left_out |= {"held out": int(held.sum()), "ties on cold prompts": int(is_cold.sum()),
                 "ties of after training": int(is_late.sum())}  # fmt: skip
    ties = of_two & ~is_cold & ~is_late
    unseen = unseen_users(users, options, data.splits, data.judgements, seed=seed)[fresh.user]
    of_two_learnt = {"train": fresh.take(ties & ~unseen), "support": fresh.take(ties & unseen)}
    limit = data.provenance.get("options", {}).get("eval_pairs_per_user", _EVAL_PAIRS)
    judged, learnt, num_held, num_left = deal_all(
        fresh.take(~fresh.is_of_two),
        lambda splits, judgements: Dealer(users, responses, options, limit, seed, splits, judgements, ends),
        data.splits,
        beside(data.judgements, of_two_learnt),
    )
    left_out |= {"held out": left_out["held out"] + num_held, LEFT: left_out.get(LEFT, 0) + num_left}
    return beside(of_two_learnt, learnt), judged
