"""Source ``ultrafeedback-p``: UltraFeedback-P-2 and P-4, users who each care for one aspect of a completion.

Construction, after VPL (arXiv 2408.10075) and CoPL (arXiv 2503.01658): the pairs are those of the binarised data set;
both completions are looked up in UltraFeedback for their ratings. Users of type 8, 4, 2 and 1 prefer the completion
rated higher on helpfulness, honesty, instruction following and truthfulness; where the two are rated alike, chance
decides once for all users of the type. Pairs with an empty completion or a rating "N/A" are left out, and so are those
on which all four types agree.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

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
from copl.data.making.splits import generator
from copl.data.pairs import intern_responses
from copl.data.reading.hub import Published, PublishedOptions, require_published
from copl.data.reading.texts import clean
from copl.errors import DataError
from copl.options import option
from copl.plugins import Component
from copl.records import PreferenceData

if TYPE_CHECKING:
    from copl.records import BoolArray, IntArray

ASPECTS = ("helpfulness", "honesty", "instruction_following", "truthfulness")
TYPES = ("8", "4", "2", "1")
"""The user types, in the order of the aspects they care for."""

_RATED = Published("openbmb/UltraFeedback")
_BINARISED = Published("argilla/ultrafeedback-binarized-preferences-cleaned")

ORIGIN = Origin(
    "ultrafeedback-p",
    "UltraFeedback and its binarised version: MIT",
    "Cui et al., UltraFeedback: Boosting Language Models with Scaled AI Feedback, 2023 (arXiv 2310.01377); Poddar et "
    "al., Personalizing RLHF with Variational Preference Learning, 2024 (arXiv 2408.10075); Choi et al., CoPL, 2025 "
    "(arXiv 2503.01658)",
    "Pairs of the binarised data set; a user type prefers the completion rated higher on its aspect (8 helpfulness, 4 "
    "honesty, 2 instruction following, 1 truthfulness), ties once for the type at random; empty or N/A left out, and "
    "pairs on which all four types agree.",
)


@final
@attrs.frozen(kw_only=True)
class UltraFeedbackOptions(SyntheticUserOptions, LengthOptions):
    """Options of UltraFeedback-P."""

    variant: Literal["P-2", "P-4"] = option("P-2", help="P-2: user types 8 and 4; P-4: all four")
    num_context: int | None = option(  # type: ignore[assignment]  # none stands for the paper's number
        None,
        help="comparisons of a user, the last for validation; none for the paper's: 8 for P-2, 16 for P-4",
        validator=attrs.validators.optional(attrs.validators.ge(1)),
    )
    path: Path | None = option(
        None, help="a copy of openbmb/UltraFeedback: file, directory or save_to_disk; from the Hub where none is named"
    )
    binarized: Path | None = option(
        None, help="a copy of argilla/ultrafeedback-binarized-preferences-cleaned, likewise"
    )
    controversial_only: bool = option(
        True, help="leave out pairs on which all four types agree, as the paper does; false keeps them"
    )
    revision: str | None = option(None, help="revision of UltraFeedback to take from the Hub")
    binarized_revision: str | None = option(None, help="revision of the binarised data set to take from the Hub")


@final
class UltraFeedbackSource:
    """Joins the two public data sets and asks synthetic users."""

    def __init__(self, options: UltraFeedbackOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read, join and ask.

        Raises:
            DataError: a data set cannot be read or has another schema; too few pairs are left.
        """
        options = self._options
        rated, dropped = _join(options)
        prefers_left = _verdicts(rated.left_ratings, rated.right_ratings, seed)
        types = slice(0, 2 if options.variant == "P-2" else 4)
        among = prefers_left[types]
        responses, left, right = intern_responses(rated.prompts, rated.left, rated.right)
        long = too_long(responses, options)
        fits = ~(long[left] | long[right])
        keep = fits & (_disagree(prefers_left) | (not options.controversial_only))
        prompts = [rated.prompts[pair] for pair in np.flatnonzero(keep).tolist()]
        heldout = hold_out_prompts(prompts, options.heldout_prompts, seed)
        pool = Pool(responses, left[keep], right[keep], heldout, _disagree(among)[keep].astype(np.int8))
        dropped |= {
            "too long": int((~fits).sum()),
            "all four types agree": int((fits & ~keep).sum()),
        }
        groups = [equal_groups(count, len(among)) for count in (options.num_users, options.num_unseen_users)]
        group = np.concatenate(groups)
        verdict = among[:, keep]
        names = [f"{number} {aspect}" for number, aspect in zip(TYPES[types], ASPECTS[types], strict=True)]
        size = options.num_context or {"P-2": 8, "P-4": 16}[options.variant]
        return synthetic_data(
            f"ultrafeedback-{options.variant.lower()}-{options.context.lower()}",
            pool,
            SimulatedUsers(
                attrs.evolve(options, num_context=size),
                [names[row] for row in group.tolist()],
                lambda user, pair: verdict[group[user], pair],
            ),
            ORIGIN,
            seed=seed,
            counts={"pairs joined": len(rated.prompts), **{f"pairs {why}": count for why, count in dropped.items()}},
            notes=[*left_out(dropped), length_note(options)],
        )


def _disagree(prefers_left: BoolArray) -> BoolArray:
    """Return on which pairs [P] the types [T, P] do not all agree."""
    votes = prefers_left.sum(axis=0)
    disagree: BoolArray = (votes > 0) & (votes < len(prefers_left))
    return disagree


def _verdicts(left: IntArray, right: IntArray, seed: int) -> BoolArray:
    """Return for each type and pair [4, P] whether the left completion is preferred; ties are decided by chance."""
    coin = generator(seed, "ties").random(left.shape) < 0.5
    verdicts: BoolArray = np.where(left == right, coin, left > right).astype(np.bool_)
    return verdicts


@final
@attrs.frozen(eq=False)
class _Rated:
    """Pairs with the ratings of both sides on each aspect [4, P]."""

    prompts: list[str]
    left: list[str]
    right: list[str]
    left_ratings: IntArray
    right_ratings: IntArray


def _join(options: UltraFeedbackOptions) -> tuple[_Rated, dict[str, int]]:
    pairs, dropped = _pairs(options)
    waiting: dict[str, list[tuple[str, str]]] = {}
    for prompt, first, second in pairs:
        waiting.setdefault(prompt, []).append((first, second))
    ratings = _ratings(options, waiting)
    joined: list[tuple[str, str, str]] = []
    left: list[tuple[int, ...]] = []
    right: list[tuple[int, ...]] = []
    for prompt, first, second in pairs:
        sides = ratings.get((prompt, first)), ratings.get((prompt, second))
        if None in sides:
            dropped["not found in UltraFeedback"] += 1
        elif not sides[0] or not sides[1]:
            dropped["rated N/A"] += 1
        else:
            joined.append((prompt, first, second))
            left.append(sides[0])
            right.append(sides[1])
    if not joined:
        raise DataError(
            "no pair of the binarised data set was found in UltraFeedback; are they copies of the two sets?"
        )
    prompts, first_texts, second_texts = (list(column) for column in zip(*joined, strict=True))
    return _Rated(prompts, first_texts, second_texts, np.array(left).T, np.array(right).T), dropped


def _pairs(options: UltraFeedbackOptions) -> tuple[list[tuple[str, str, str]], dict[str, int]]:
    """Return the distinct pairs of the binarised data set: prompt and two responses."""
    where = PublishedOptions(path=options.binarized, revision=options.binarized_revision)
    rows = require_published(_BINARISED, where, columns=("prompt", "chosen", "rejected"))
    pairs: dict[tuple[str, str, str], None] = {}
    dropped = {"with an empty completion": 0, "between equal completions": 0, "repeated": 0}
    dropped |= {"not found in UltraFeedback": 0, "rated N/A": 0}
    for row in rows:
        sides = [_answer(row[name], f"{rows.place}: {name}") for name in ("chosen", "rejected")]
        pair = (clean(row["prompt"]), sides[0], sides[1])
        if not all(text.strip() for text in pair):
            dropped["with an empty completion"] += 1
        elif sides[0] == sides[1]:
            dropped["between equal completions"] += 1
        elif pair in pairs or (pair[0], pair[2], pair[1]) in pairs:
            dropped["repeated"] += 1
        else:
            pairs[pair] = None
    return list(pairs), dropped


def _answer(messages: Any, place: str) -> str:
    try:
        return clean(messages[1]["content"])
    except (TypeError, LookupError) as error:
        raise DataError(f"{place}: expected two messages, the second with the answer under 'content'") from error


def _ratings(
    options: UltraFeedbackOptions, wanted: Mapping[str, list[tuple[str, str]]]
) -> dict[tuple[str, str], tuple[int, ...]]:
    """Return the ratings of the completions wanted by prompt and text; empty where one of them is N/A."""
    where = PublishedOptions(path=options.path, revision=options.revision)
    rows = require_published(_RATED, where, columns=("instruction", "completions"))
    ratings: dict[tuple[str, str], tuple[int, ...]] = {}
    for row in rows:
        prompt = clean(row["instruction"])
        texts = {text for pair in wanted.get(prompt, ()) for text in pair}
        if not texts:
            continue
        try:
            for completion in row["completions"]:
                text = clean(completion["response"])
                if text in texts and not ratings.get((prompt, text)):
                    ratings[prompt, text] = _aspects(completion["annotations"])
        except (TypeError, LookupError) as error:
            raise DataError(f"{rows.place}: completions: expected 'response' and 'annotations' in each") from error
    return ratings


def _aspects(annotations: Any) -> tuple[int, ...]:
    """Return the ratings in the order of the aspects, or nothing where one is not a number."""
    values = [str((annotations.get(aspect) or {}).get("Rating", "N/A")).strip() for aspect in ASPECTS]
    return tuple(map(int, values)) if all(value.isdecimal() for value in values) else ()


COMPONENTS = [
    Component(
        "ultrafeedback-p",
        UltraFeedbackOptions,
        UltraFeedbackSource,
        "UltraFeedback-P-2 and P-4: users who each care for one aspect of a completion",
        reference=ORIGIN.citation,
    )
]
