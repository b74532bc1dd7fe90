"""Source ``tldr``: summaries of Reddit posts, one group of users for the shorter and one for the longer.

Construction, after PAL (arXiv 2406.08469) and CoPL (arXiv 2503.01658): of the human comparisons of "Learning to
summarize from human feedback" those by the ten most active workers, where both summaries come from supervised policies;
the human label is not used. One group of synthetic users prefers the shorter of the two, the other the longer.
"""

from __future__ import annotations

from collections import Counter
from typing import Any, final

import attrs
import numpy as np

from copl.data.making.lengths import LengthOptions, length_note, too_long
from copl.data.making.notes import left_out
from copl.data.making.origin import Origin
from copl.data.making.rated import (
    Pool,
    SimulatedUsers,
    SyntheticUserOptions,
    equal_groups,
    hold_out_prompts,
    synthetic_data,
)
from copl.data.pairs import intern_responses
from copl.data.reading.hub import Published, PublishedOptions, PublishedRows, read_published
from copl.data.reading.texts import clean
from copl.errors import DataError
from copl.options import option
from copl.plugins import Component
from copl.records import PreferenceData

_PUBLISHED = Published("openai/summarize_from_feedback", directory="comparisons")

ORIGIN = Origin(
    "tldr",
    "see the card of openai/summarize_from_feedback; the posts are by their authors on Reddit",
    "Stiennon et al., Learning to summarize from human feedback, 2020 (arXiv 2009.01325); Chen et al., PAL, 2024 "
    "(arXiv 2406.08469); Choi et al., CoPL, 2025 (arXiv 2503.01658)",
    "Pairs of summaries by supervised policies that the ten most active workers were shown; one group of users prefers "
    "the shorter in characters, one the longer. Pairs of equal length say nothing here and are left out, where the "
    "published code keeps them in the order shown.",
)

GROUPS = ("shorter", "longer")


@final
@attrs.frozen(kw_only=True)
class TldrOptions(SyntheticUserOptions, LengthOptions, PublishedOptions):
    """Options of TL;DR."""

    revision: str | None = option(
        "refs/convert/parquet",
        help="revision to take from the Hub: its conversion to Parquet, for the original needs a script to be run",
    )
    num_workers: int = option(10, help="most active workers whose pairs are taken", validator=attrs.validators.ge(1))


@final
@attrs.frozen
class _Shown:
    """A pair that a worker was shown."""

    worker: str
    prompt: str
    first: str
    second: str


@final
class TldrSource:
    """Reads the comparisons and asks synthetic users."""

    def __init__(self, options: TldrOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read the comparisons and ask the users.

        Raises:
            DataError: the data set cannot be read or has another schema; too few pairs are left.
        """
        options = self._options
        pairs, heldout, dropped = self._pairs(seed)
        shorter = [min(pair.first, pair.second, key=len) for pair in pairs]
        longer = [max(pair.first, pair.second, key=len) for pair in pairs]
        responses, left, right = intern_responses([pair.prompt for pair in pairs], shorter, longer)
        long = too_long(responses, options)
        fits = ~(long[left] | long[right])
        dropped["too long"] = int((~fits).sum())
        pool = Pool(responses, left[fits], right[fits], heldout[fits], np.ones(int(fits.sum()), dtype=np.int8))
        counts = (options.num_users, options.num_unseen_users)
        group = np.concatenate([equal_groups(count, len(GROUPS)) for count in counts])
        return synthetic_data(
            f"tldr-{options.context.lower()}",
            pool,
            SimulatedUsers(options, [GROUPS[row] for row in group.tolist()], lambda user, pair: group[user] == 0),
            ORIGIN,
            seed=seed,
            counts={f"pairs {why}": count for why, count in dropped.items()},
            notes=[
                *left_out(dropped),
                length_note(options),
                "The label follows from length alone: a rule that knows a user's group is always right.",
            ],
        )

    def _pairs(self, seed: int) -> tuple[list[_Shown], Any, dict[str, int]]:
        """Return the distinct pairs, which are held out, and how many were left out for each reason."""
        options = self._options
        dropped = dict.fromkeys(
            ("not by supervised policies", "by less active workers", "empty", "of equal length", "repeated"), 0
        )
        parts = [self._read(split, dropped) for split in ("train", "validation")]
        active = {worker for worker, _ in Counter(pair.worker for pair in parts[0]).most_common(options.num_workers)}
        distinct: list[dict[tuple[str, frozenset[str]], _Shown]] = [{}, {}]
        for part, pairs in zip(parts, distinct, strict=True):
            for pair in part:
                key = pair.prompt, frozenset((pair.first, pair.second))
                if pair.worker not in active:
                    dropped["by less active workers"] += 1
                elif key in pairs:
                    dropped["repeated"] += 1
                else:
                    pairs[key] = pair
        trained, heldout = (list(pairs.values()) for pairs in distinct)
        if not trained:
            raise DataError(f"{_PUBLISHED.repository}: no pair is left of what was read; is this a copy of it?")
        if not heldout:  # a copy of the training part alone
            mask = hold_out_prompts([pair.prompt for pair in trained], options.heldout_prompts, seed)
            return trained, mask, dropped
        known = {pair.prompt for pair in trained}
        fresh = [pair for pair in heldout if pair.prompt not in known]
        dropped["held out on a post that is trained on"] = len(heldout) - len(fresh)
        return [*trained, *fresh], np.arange(len(trained) + len(fresh)) >= len(trained), dropped

    def _read(self, split: str, dropped: dict[str, int]) -> list[_Shown]:
        rows = read_published(
            _PUBLISHED, self._options, columns=("info", "summaries", "worker"), split=split, ids=("worker",)
        )
        pairs = []
        for row in rows or ():
            shown, policies = _shown(row, rows)
            if not all("sup" in policy and "ppo" not in policy for policy in policies):
                dropped["not by supervised policies"] += 1
            elif not (shown.prompt.strip() and shown.first.strip() and shown.second.strip()):
                dropped["empty"] += 1
            elif len(shown.first) == len(shown.second):
                dropped["of equal length"] += 1
            else:
                pairs.append(shown)
        return pairs


def _shown(row: dict[str, Any], rows: PublishedRows | None) -> tuple[_Shown, list[str]]:
    try:
        first, second = row["summaries"]
        texts = [clean(summary["text"]) for summary in (first, second)]
        policies = [str(summary["policy"]) for summary in (first, second)]
        return _Shown(str(row["worker"]), clean(row["info"]["post"]), *texts), policies
    except (TypeError, ValueError, LookupError) as error:
        place = rows.place if rows else ""
        raise DataError(f"{place}: expected info.post and two summaries with text and policy") from error


COMPONENTS = [
    Component(
        "tldr",
        TldrOptions,
        TldrSource,
        "summaries of Reddit posts: users who prefer the shorter, users who prefer the longer",
        reference=ORIGIN.citation,
    )
]
