"""The dataset source `facets`: options, splits and provenance."""

from __future__ import annotations

from typing import final

import attrs
import numpy as np
from attrs.validators import and_, ge, gt, le, lt

from copl.data.sources.facets.corpus import FACETS, RESPONSES_PER_PROMPT, compose_corpus
from copl.data.sources.facets.users import FacetsTruth, draw_comparisons, draw_group_weights, draw_users, group_names
from copl.data.sources.facets.wording import in_own_words
from copl.options import option, options_to_dict
from copl.plugins import Component
from copl.records import Comparisons, IntArray, PreferenceData, UserTable

FACET_VALUES = (
    ("brief", "detailed"),
    ("plain", "technical"),
    ("cautious", "direct"),
    ("prose", "list"),
    ("no example", "example"),
)

MAX_PROMPTS = 300
MAX_GROUPS = 8  # pairs of opposite groups and the common axis must fit into five facets


@final
@attrs.frozen
class FacetsOptions:
    """Options of the embedded corpus."""

    num_prompts: int = option(
        MAX_PROMPTS, help="prompts, taken evenly from all topics", validator=and_(ge(10), le(MAX_PROMPTS))
    )
    cold_share: float = option(
        0.18, help="share of the prompts that are never trained on", validator=and_(ge(0.0), lt(1.0))
    )
    num_seen_users: int = option(600, help="users to train on", validator=ge(1))
    num_unseen_users: int = option(150, help="users to adapt to", validator=ge(0))
    num_groups: int = option(4, help="groups of users, equal in size", validator=and_(ge(1), le(MAX_GROUPS)))
    num_train: int = option(12, help="mean number of training comparisons of a seen user", validator=ge(1))
    num_validation: int = option(2, help="validation comparisons of a seen user", validator=ge(0))
    num_test: int = option(2, help="held-out comparisons of a seen user on trained prompts", validator=ge(0))
    num_cold: int = option(2, help="comparisons of a seen user on prompts never trained on", validator=ge(0))
    num_support: int = option(8, help="mean number of comparisons an unseen user gives", validator=ge(1))
    num_heldout: int = option(8, help="comparisons an unseen user is judged by, on trained prompts", validator=ge(0))
    spread: float = option(
        0.5,
        help="training and support comparisons of a user: from (1 - spread) to (1 + spread) times the mean",
        validator=and_(ge(0.0), lt(1.0)),
    )
    agreement: float = option(
        0.37, help="weight of what all groups value, where what sets a group apart has weight 1", validator=ge(0.0)
    )
    deviation: float = option(
        0.12, help="standard deviation of a user's own weights, for each facet", validator=ge(0.0)
    )
    temperature: float = option(0.15, help="noise of the choices: 0.1 little, 0.5 much", validator=gt(0.0))
    own_wording: float = option(
        0.0,
        help="share of the comparisons whose prompt is put into words of its own; with 1 no two share a response",
        validator=and_(ge(0.0), le(1.0)),
    )

    def __attrs_post_init__(self) -> None:
        faults = []
        trained = self.num_prompts - self.num_cold_prompts
        # every comparison of a user is on a prompt of its own
        for kind, mean, others in (
            ("seen", self.num_train, self.num_validation + self.num_test),
            ("unseen", self.num_support, self.num_heldout),
        ):
            needed = _highest(mean, self.spread) + others
            if needed > trained:
                faults.append(f"{kind} users need up to {needed} trained prompts each, there are {trained}")
        if self.num_cold > self.num_cold_prompts:
            faults.append(f"num_cold is {self.num_cold}, there are {self.num_cold_prompts} prompts not trained on")
        if faults:
            raise ValueError("; ".join(faults))

    @property
    def num_cold_prompts(self) -> int:
        return round(self.cold_share * self.num_prompts)


def _highest(mean: int, spread: float) -> int:
    return mean + int(mean * spread)


def _counts(mean: int, spread: float, num_users: int, rng: np.random.Generator) -> IntArray:
    highest = _highest(mean, spread)
    return rng.integers(2 * mean - highest, highest + 1, size=num_users)


def generate(options: FacetsOptions, seed: int) -> tuple[PreferenceData, FacetsTruth]:
    """Generate the data set and what it was made from.

    The texts depend on the seed and the number of prompts alone, but for prompts in words of their own: who prefers
    what in which split is the same in whatever words. All comparisons a user gives are on different prompts, so no
    response of a held-out comparison is among the user's training or support comparisons.
    """
    streams = [np.random.default_rng([seed, stream]) for stream in range(5)]
    corpus = compose_corpus(options.num_prompts, facets_rng=streams[0], words_rng=streams[3])
    seen, unseen = options.num_seen_users, options.num_unseen_users
    group_weights = draw_group_weights(options.num_groups, len(FACETS), options.agreement, streams[1])
    drawn = [draw_users(n, group_weights, options.deviation, streams[1]) for n in (seen, unseen)]
    truth = FacetsTruth(
        facets=corpus.facets.astype(np.float64),
        group_weights=group_weights,
        user_weights=np.concatenate([weights for _, weights in drawn]),
        user_groups=np.concatenate([groups for groups, _ in drawn]),
        temperature=options.temperature,
    )
    splits = _draw_splits(options, truth, corpus.topics, streams[2])
    names = group_names(group_weights, FACET_VALUES)
    users = UserTable(
        [f"seen-{i:04d}" for i in range(seen)] + [f"unseen-{i:04d}" for i in range(unseen)],
        [names[group] for group in truth.user_groups],
    )
    responses, made_from, splits = in_own_words(corpus.responses, splits, options.own_wording, streams[4])
    truth = attrs.evolve(truth, facets=truth.facets[made_from])
    ceilings = truth.ceilings({**splits, "all": Comparisons.concat(list(splits.values()))})
    overall = ceilings["all"]
    provenance: dict[str, object] = {
        "source": "facets",
        "options": options_to_dict(options),
        "seed": seed,
        "licence": "Apache-2.0",
        "counts": {
            "prompts": corpus.num_prompts,
            "cold_prompts": options.num_cold_prompts,
            "topics": len(set(corpus.topics)),
            **{name: len(rows) for name, rows in splits.items()},
        },
        "group_weights": {
            name: {facet: round(float(w), 4) for facet, w in zip(FACETS, weights, strict=True)}
            for name, weights in zip(names, group_weights, strict=True)
        },
        "ceilings": ceilings,
        "notes": [
            "The texts are composed of hand-written advice; the users and their choices are simulated.",
            f"Knowing no user but all facets is right on {overall['unpersonalised']:.1%} of the comparisons, "
            f"knowing the groups on {overall['group_oracle']:.1%}, "
            f"knowing every user on {overall['individual_oracle']:.1%}.",
        ],
        "split": "response",
    }
    return PreferenceData("facets", users, responses, splits, provenance), truth


def _draw_splits(
    options: FacetsOptions, truth: FacetsTruth, prompt_topics: tuple[str, ...], rng: np.random.Generator
) -> dict[str, Comparisons]:
    cold, trained = _cold_and_trained(prompt_topics, options.num_cold_prompts, rng)
    seen, unseen = options.num_seen_users, options.num_unseen_users
    plan = (  # users, prompts, and the splits that share the prompts
        (
            np.arange(seen),
            trained,
            {
                "train": _counts(options.num_train, options.spread, seen, rng),
                "validation": np.full(seen, options.num_validation),
                "test": np.full(seen, options.num_test),
            },
        ),
        (np.arange(seen), cold, {"cold": np.full(seen, options.num_cold)}),
        (
            np.arange(seen, seen + unseen),
            trained,
            {
                "support": _counts(options.num_support, options.spread, unseen, rng),
                "heldout": np.full(unseen, options.num_heldout),
            },
        ),
    )
    splits: dict[str, Comparisons] = {}
    for users, prompts, counts_by_split in plan:
        own = [rng.permutation(prompts) for _ in users]
        for name, counts in counts_by_split.items():
            splits[name] = draw_comparisons(truth, users, counts, own, RESPONSES_PER_PROMPT, rng)
            own = [order[n:] for order, n in zip(own, counts, strict=True)]
    return {name: rows for name, rows in splits.items() if len(rows)}


def _cold_and_trained(
    prompt_topics: tuple[str, ...], num_cold: int, rng: np.random.Generator
) -> tuple[IntArray, IntArray]:
    """Divide the prompts, the cold ones spread evenly over the topics."""
    order = rng.permutation(len(prompt_topics))
    taken: dict[str, int] = {}
    rank = []
    for prompt in order:
        topic = prompt_topics[prompt]
        taken[topic] = taken.get(topic, 0) + 1
        rank.append(taken[topic])
    order = order[np.argsort(rank, kind="stable")]
    return np.sort(order[:num_cold]), np.sort(order[num_cold:])


@final
class FacetsSource:
    """Generates the embedded corpus."""

    def __init__(self, options: FacetsOptions) -> None:
        self.options = options

    def load(self, *, seed: int) -> PreferenceData:
        return generate(self.options, seed)[0]


COMPONENTS = [
    Component(
        name="facets",
        options=FacetsOptions,
        build=FacetsSource,
        summary=f"embedded corpus: {MAX_PROMPTS} prompts answered in five style facets, users who weigh them by group",
    )
]
