"""Source ``personalllm``: users who weigh the scores of several reward models each in their own way.

Construction, after CoPL (arXiv 2503.01658): of the eight responses to a prompt three are taken, with the scores of four
reward models; pairs on which all four agree are left out. A user is a weighting of the four, drawn from a Dirichlet
distribution with concentration 0.1, and prefers the response of higher weighted score. The published code keeps the
responses without their prompt; here the prompt stands with each.
"""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np

from copl.data.making.lengths import LengthOptions, length_note, too_long
from copl.data.making.notes import left_out
from copl.data.making.origin import Origin
from copl.data.making.rated import Pool, SimulatedUsers, SyntheticUserOptions, hold_out_prompts, synthetic_data
from copl.data.making.splits import generator
from copl.data.pairs import intern_responses
from copl.data.reading.hub import Published, PublishedOptions, read_published
from copl.data.reading.texts import clean
from copl.errors import DataError
from copl.options import option
from copl.plugins import Component
from copl.records import PreferenceData

if TYPE_CHECKING:
    from copl.records import FloatArray

_PUBLISHED = Published("namkoong-lab/PersonalLLM")

ORIGIN = Origin(
    "personalllm",
    "CC BY 4.0; the responses are by language models under their own terms",
    "Zollo et al., PersonalLLM: Tailoring LLMs to Individual Preferences, 2024 (arXiv 2409.20296); Choi et al., CoPL, "
    "2025 (arXiv 2503.01658)",
    "Pairs among three responses to each prompt, without those on which all four reward models agree; a user prefers "
    "the higher score under their own Dirichlet(0.1) weighting of the four.",
)


_REASONS = ("empty or equal", "repeated", "all reward models agree")


@final
@attrs.frozen(kw_only=True)
class PersonalLlmOptions(SyntheticUserOptions, LengthOptions, PublishedOptions):
    """Options of PersonalLLM."""

    num_context: int = option(
        16, help="comparisons of a user, the last for validation", validator=attrs.validators.ge(1)
    )
    responses: tuple[int, ...] = option(
        (5, 6, 7),
        help="numbers of the responses to take, the paper's by default",
        validator=attrs.validators.min_len(2),
    )
    reward_models: tuple[str, ...] = option(
        ("gemma_7b", "mistral_weqweasdas", "llama3_sfairx", "oasst_deberta_v3"),
        help="reward models whose scores users weigh, the paper's four by default",
        validator=attrs.validators.min_len(2),
    )
    concentration: float = option(
        0.1,
        help="concentration of the weightings: small for users who follow one model, large for users alike",
        validator=attrs.validators.gt(0.0),
    )


@final
@attrs.frozen(eq=False)
class _Pairs:
    """Pairs and by how much each reward model scores the left one higher [P, M]."""

    prompts: list[str]
    left: list[str]
    right: list[str]
    ahead: list[FloatArray]
    known: set[tuple[str, frozenset[str]]]


@final
class PersonalLlmSource:
    """Reads responses and scores and asks synthetic users."""

    def __init__(self, options: PersonalLlmOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read the responses and ask the users.

        Raises:
            DataError: the data set cannot be read or has another schema; too few pairs are left.
        """
        options = self._options
        pairs, dropped = _Pairs([], [], [], [], set()), dict.fromkeys(_REASONS, 0)
        self._read("train", pairs, dropped)
        num_trained = len(pairs.prompts)
        self._read("test", pairs, dropped)
        if not num_trained:
            raise DataError(f"{_PUBLISHED.repository}: no pair is left of what was read; is this a copy of it?")
        if len(pairs.prompts) > num_trained:
            known = set(pairs.prompts[:num_trained])
            heldout = np.arange(len(pairs.prompts)) >= num_trained
            stale = heldout & np.array([prompt in known for prompt in pairs.prompts])
        else:  # a copy of the training part alone
            heldout = hold_out_prompts(pairs.prompts, options.heldout_prompts, seed)
            stale = np.zeros(len(heldout), dtype=np.bool_)
        responses, left, right = intern_responses(pairs.prompts, pairs.left, pairs.right)
        long = too_long(responses, options)
        fits = ~(long[left] | long[right])
        keep = fits & ~stale
        dropped |= {"too long": int((~fits).sum()), "held out on a prompt that is trained on": int(stale.sum())}
        ahead = np.array(pairs.ahead)[keep]
        num_users = options.num_users + options.num_unseen_users
        weights = generator(seed, "weightings").dirichlet(
            [options.concentration] * len(options.reward_models), size=num_users
        )
        favourite = [options.reward_models[row] for row in weights.argmax(axis=1).tolist()]
        return synthetic_data(
            f"personalllm-{options.context.lower()}",
            Pool(responses, left[keep], right[keep], heldout[keep], np.ones(len(ahead), dtype=np.int8)),
            SimulatedUsers(options, favourite, lambda user, pair: (ahead[pair] * weights[user]).sum(axis=1) > 0),
            ORIGIN,
            seed=seed,
            counts={f"pairs {why}": count for why, count in dropped.items()},
            notes=[
                *left_out(dropped),
                length_note(options),
                "A user's group is the reward model of greatest weight; there are no groups in the construction.",
                "The published code measures lengths and keeps texts without the prompt; here both include it.",
            ],
        )

    def _read(self, split: str, pairs: _Pairs, dropped: dict[str, int]) -> None:
        options = self._options
        texts = [f"response_{number}" for number in options.responses]
        scores = [[f"{text}_{model}" for model in options.reward_models] for text in texts]
        columns = ["prompt", *texts, *(name for names in scores for name in names)]
        rows = read_published(_PUBLISHED, options, columns=columns, split=split)
        for row in rows or ():
            place = rows.place if rows else ""
            prompt = clean(row["prompt"])
            answers = [clean(row[text]) for text in texts]
            values = [_scores(row, names, place) for names in scores]
            for one, other in combinations(range(len(answers)), 2):
                ahead = values[one] - values[other]
                key = prompt, frozenset((answers[one], answers[other]))
                if not (prompt.strip() and answers[one].strip() and answers[other].strip()) or len(key[1]) < 2:
                    dropped["empty or equal"] += 1
                elif key in pairs.known:
                    dropped["repeated"] += 1
                elif (ahead > 0).all() or (ahead < 0).all():
                    dropped["all reward models agree"] += 1
                else:
                    pairs.known.add(key)
                    pairs.prompts.append(prompt)
                    pairs.left.append(answers[one])
                    pairs.right.append(answers[other])
                    pairs.ahead.append(ahead)


def _scores(row: dict[str, Any], names: list[str], place: str) -> FloatArray:
    try:
        values = np.array([float(row[name]) for name in names], dtype=np.float64)
    except (TypeError, ValueError):
        values = np.array([np.nan])
    if not np.isfinite(values).all():
        raise DataError(f"{place}: expected a number in each of {', '.join(names)}")
    return values


COMPONENTS = [
    Component(
        "personalllm",
        PersonalLlmOptions,
        PersonalLlmSource,
        "users who weigh the scores of four reward models each in their own way",
        reference=ORIGIN.citation,
    )
]
