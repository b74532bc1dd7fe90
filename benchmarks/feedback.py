"""How much ties, thumbs and ratings are worth beside comparisons, on users whose tastes are known.

Users have tastes along a few directions, texts a place along them and a quality that all users see; texts are shared.
Users are asked for comparisons, or half of them are replaced by evidence of another kind and equal information; what is
learnt is judged by whom it would choose, without noise, on pairs never asked about. Ratings go from -10 to 10, by users
who differ in mean and in spread.

    python -m benchmarks.feedback --seeds 3 --encoder stacked
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from attrs import frozen

from copl.data.making.opinions import Opinions, draw_pairs
from copl.graph.build import build_graph
from copl.plugins import load
from copl.records import Comparisons, FloatArray, IntArray, PreferenceData, ResponseTable, UserTable
from copl.records.judgements import RATING, THUMB, TIE, Judgements
from copl.system.progress import SilentProgress

NUM_TEXTS, NUM_DIRECTIONS = 100, 2


@frozen(eq=False)
class World:
    """Scores of all texts for all users [U, R], and the generator of what they say."""

    scores: FloatArray
    rng: np.random.Generator

    @classmethod
    def of(cls, num_users: int, seed: int) -> World:
        rng = np.random.default_rng(seed)
        tastes = rng.normal(size=(num_users, NUM_DIRECTIONS))
        places = rng.normal(size=(NUM_TEXTS, NUM_DIRECTIONS))
        return cls(1.2 * tastes @ places.T + 0.7 * rng.normal(size=NUM_TEXTS), rng)

    def pairs(self, per_user: int) -> tuple[IntArray, IntArray, IntArray]:
        """Return user, and two different texts, of so many pairs a user."""
        user = np.repeat(np.arange(len(self.scores)), per_user)
        first = self.rng.integers(NUM_TEXTS, size=len(user))
        return user, first, (first + self.rng.integers(1, NUM_TEXTS, size=len(user))) % NUM_TEXTS

    def noisy(self, margins: FloatArray) -> FloatArray:
        return margins + self.rng.logistic(size=margins.shape)

    def choices(self, per_user: int) -> Comparisons:
        user, first, second = self.pairs(per_user)
        won = self.noisy(self.scores[user, first] - self.scores[user, second]) > 0
        return Comparisons(user, np.where(won, first, second), np.where(won, second, first))

    def with_ties(self, per_user: int, share: float) -> tuple[Comparisons, Judgements]:
        """Return choices and ties, by Rao and Kupper's model with the threshold that makes the share of ties."""
        user, first, second = self.pairs(per_user)
        margin = self.noisy(self.scores[user, first] - self.scores[user, second])
        bound = np.quantile(np.abs(margin), share) if share else 0.0
        tied = np.abs(margin) < bound
        won = margin > 0
        chosen = Comparisons(user, np.where(won, first, second), np.where(won, second, first)).take(~tied)
        count = int(tied.sum())
        return chosen, Judgements([TIE] * count, user[tied], first[tied], second[tied], np.zeros(count))

    def singles(self, per_user: int) -> tuple[IntArray, IntArray]:
        user = np.repeat(np.arange(len(self.scores)), per_user)
        return user, np.concatenate([self.rng.permutation(NUM_TEXTS)[:per_user] for _ in self.scores])

    def thumbs(self, per_user: int) -> Judgements:
        """Return thumbs by users with thresholds of their own."""
        user, text = self.singles(per_user)
        threshold = self.rng.normal(size=len(self.scores))[user]
        up = self.noisy(self.scores[user, text] - threshold) > 0
        return Judgements([THUMB] * len(user), user, text, np.full(len(user), -1), np.where(up, 1.0, -1.0))

    def ratings(self, per_user: int) -> Judgements:
        """Return ratings from -10 to 10, by users who differ in mean and spread."""
        user, text = self.singles(per_user)
        mean, spread = 2 * self.rng.normal(size=len(self.scores)), np.exp(0.5 * self.rng.normal(size=len(self.scores)))
        value = np.rint(mean[user] + 2 * spread[user] * self.noisy(self.scores[user, text])).clip(-10, 10)
        return Judgements([RATING] * len(user), user, text, np.full(len(user), -1), value)


def accuracy(world: World, train: Comparisons, judgements: Judgements | None, encoder: str, seed: int) -> float:
    """Learn, and return how often the sign of true margins is met on pairs of all users."""
    users = UserTable.ungrouped([f"u{n}" for n in range(len(world.scores))])
    responses = ResponseTable([""] * NUM_TEXTS, [f"text {n}" for n in range(NUM_TEXTS)])
    judged = {} if judgements is None else {"train": judgements}
    data = PreferenceData("simulated", users, responses, {"train": train, "validation": world.choices(2)}, {}, judged)
    fitted = load().registry("encoder").create(encoder).fit(build_graph(data), seed=seed, progress=SilentProgress())
    rng = np.random.default_rng(1000 + seed)
    user, first = rng.integers(len(users), size=20_000), rng.integers(NUM_TEXTS, size=20_000)
    second = (first + rng.integers(1, NUM_TEXTS, size=20_000)) % NUM_TEXTS
    rows = np.array([fitted.response_rows.get(key, -1) for key in responses.keys])
    table = fitted.responses.double().numpy()
    at = np.array([fitted.user_rows.get(one, -1) for one in users.ids])
    people = fitted.users.double().numpy()
    bias = fitted.response_bias.double().numpy()
    scores = people[at] @ table[rows].T + bias[rows]
    scores[at < 0] = 0
    true = world.scores[user, first] - world.scores[user, second]
    return float(((scores[user, first] - scores[user, second] > 0) == (true > 0)).mean())


def by_margin(ratings: Judgements, margin: float, num_users: int, limit: int = 120) -> Comparisons:
    """Return what the source `ratings` draws: pairs whose ratings differ by the margin."""
    rng = np.random.default_rng(0)
    prompt = np.zeros(len(ratings), dtype=np.int64)
    opinions = Opinions.of(
        ratings.user, ratings.response, ratings.value, prompt, num_users=num_users, num_responses=NUM_TEXTS,
        margin=margin,
    )  # fmt: skip
    return draw_pairs(opinions, limit, lambda total, most, ends: rng.choice(total, min(most, total), replace=False))


def main() -> None:
    """Print a table of accuracies."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--users", type=int, default=300)
    parser.add_argument("--encoder", default="stacked")
    parser.add_argument("--cases", default="", help="only those whose name has this in it")
    asked = parser.parse_args()
    num_users, encoder = asked.users, asked.encoder
    half, whole = 10, 20

    def tied(world: World, share: float, keep: bool) -> tuple[Comparisons, Judgements | None]:
        chosen, ties = world.with_ties(whole, share)
        return chosen, ties if keep else None

    cases: dict[str, Callable[[World], tuple[Comparisons, Judgements | None]]] = {
        "20 comparisons": lambda w: (w.choices(whole), None),
        "10 comparisons": lambda w: (w.choices(half), None),
        "20 pairs, half of them ties": lambda w: tied(w, 0.5, keep=True),
        "10 comparisons, 20 thumbs": lambda w: (w.choices(half), w.thumbs(2 * half)),
        "10 comparisons, 15 ratings": lambda w: (w.choices(half), w.ratings(3 * half // 2)),
        "20 pairs, 30 % ties used": lambda w: tied(w, 0.3, keep=True),
        "20 pairs, 30 % ties dropped": lambda w: tied(w, 0.3, keep=False),
        "20 ratings, as ratings": lambda w: (Comparisons.empty(), w.ratings(whole)),
        "20 ratings, pairs by margin 1": lambda w: (by_margin(w.ratings(whole), 1.0, num_users), None),
        "20 ratings, pairs by margin 4": lambda w: (by_margin(w.ratings(whole), 4.0, num_users), None),
        "40 thumbs": lambda w: (Comparisons.empty(), w.thumbs(2 * whole)),
    }
    print(f"{encoder}, {num_users} users, {NUM_TEXTS} texts")
    for name, ask in cases.items():
        if asked.cases not in name:
            continue
        values = []
        for seed in range(asked.seeds):
            world = World.of(num_users, seed)
            values.append(accuracy(world, *ask(world), encoder, seed))
        print(f"{name:32s} {np.mean(values):.3f}  " + " ".join(f"{value:.3f}" for value in values), flush=True)


if __name__ == "__main__":
    main()
