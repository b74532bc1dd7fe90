"""What can be known of a planted graph: consensus by pair, a mixture told the number of groups, the statistical limit.

All three see the training comparisons alone and answer held-out comparisons of the same users on pairs that others have
judged. A tie is half right.
"""

from __future__ import annotations

from typing import final

import attrs
import numpy as np

from copl.records import BoolArray, Comparisons, FloatArray, IntArray, PreferenceData

MAX_GROUPS = 8
"""`posterior` sums over all labellings of a pair, 2 to the number of groups."""

_STRENGTHS = (0.1, 0.3, 1.0, 3.0)


@final
@attrs.frozen(eq=False)
class Answers:
    """Comparisons as answers to numbered pairs: user [N], pair [N], and whether the lower response row won [N]."""

    user: IntArray
    pair: IntArray
    won: BoolArray


def answers(data: PreferenceData, splits: tuple[str, ...]) -> tuple[dict[str, Answers], int]:
    """Return the comparisons of some splits as answers, and the number of pairs."""
    parts = [data.split(name).comparisons for name in splits]
    rows = Comparisons.concat(parts)
    low, high = np.minimum(rows.chosen, rows.rejected), np.maximum(rows.chosen, rows.rejected)
    pair = np.unique(low * max(len(data.responses), 1) + high, return_inverse=True)[1].reshape(-1)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    columns = (np.split(column, ends) for column in (rows.user, pair, rows.chosen < rows.rejected))
    return dict(zip(splits, map(Answers, *columns), strict=True)), int(pair.max(initial=-1)) + 1


def share_right(probability: FloatArray, won: BoolArray) -> float:
    """Return the share of answers on the side of 1/2 that the probability of `won` is; at 1/2 it is half right."""
    leaning = np.round(probability - 0.5, 9)
    return float(np.mean(np.where(leaning == 0, 0.5, (leaning > 0) == won)))


def consensus(train: Answers, asked: Answers, num_pairs: int) -> FloatArray:
    """Return the share of training answers in which the lower response won, of each asked pair; 1/2 where unknown."""
    won = np.bincount(train.pair, train.won, num_pairs)
    num = np.bincount(train.pair, minlength=num_pairs)
    shares: FloatArray = ((won + 0.5) / (num + 1))[asked.pair]
    return shares


def mixture(
    train: Answers, held: Answers, asked: Answers, num_users: int, num_pairs: int, num_groups: int, *, seed: int
) -> FloatArray:
    """Return what a mixture of groups expects: each user of one group, each pair with a win rate in each group.

    Fitted by expectation maximisation in which a user's own answers never count as evidence about that user
    (leave-one-out). The rates are drawn to the consensus on the pair by pseudo-answers; their number is chosen, with
    two random starts each, by the likelihood of the held answers.
    """
    best, result = -np.inf, np.full(len(asked.pair), 0.5)
    for start in range(2):
        for strength in _STRENGTHS:
            share, rate = _expectation_maximisation(train, num_users, num_pairs, num_groups, strength, seed + start)
            chance = np.clip((share[held.user] * rate[held.pair]).sum(axis=1), 1e-3, 1 - 1e-3)
            likelihood = float(np.log(np.where(held.won, chance, 1 - chance)).mean())
            if likelihood > best:
                best, result = likelihood, (share[asked.user] * rate[asked.pair]).sum(axis=1)
    return result


def _sums(values: FloatArray, rows: IntArray, size: int) -> FloatArray:
    """Return the sums [size, K] of values [N, K] by row."""
    return np.stack([np.bincount(rows, column, size) for column in values.T], axis=1)


def _distributions(logs: FloatArray) -> FloatArray:
    values = np.exp(logs - logs.max(axis=1, keepdims=True))
    normal: FloatArray = values / values.sum(axis=1, keepdims=True)
    return normal


def _expectation_maximisation(
    train: Answers, num_users: int, num_pairs: int, num_groups: int, strength: float, seed: int
) -> tuple[FloatArray, FloatArray]:
    """Return the group shares of each user [U, G] and the win rates of each pair [P, G]."""
    share = np.random.default_rng(seed).dirichlet(np.ones(num_groups), size=num_users)
    won, num = np.bincount(train.pair, train.won, num_pairs), np.bincount(train.pair, minlength=num_pairs)
    of_others = (np.where(train.won, won[train.pair], (num - won)[train.pair]) - 0.5) / num[train.pair]
    won_by, lost_by = np.empty((num_pairs, num_groups)), np.empty((num_pairs, num_groups))
    for _ in range(200):
        own = share[train.user]
        won_by = _sums(own * train.won[:, None], train.pair, num_pairs)
        lost_by = _sums(own * ~train.won[:, None], train.pair, num_pairs)
        same = np.where(train.won[:, None], won_by[train.pair], lost_by[train.pair]) - own
        all_ = (won_by + lost_by)[train.pair] - own
        evidence = np.log((same + strength * of_others[:, None]) / (all_ + strength))
        logs = _sums(evidence, train.user, num_users) + np.log(share.mean(axis=0) + 1e-9)
        before, share = share, _distributions(logs)
        if np.abs(share - before).mean() < 1e-5:
            break
    rate = (won_by + strength * ((won + 0.5) / (num + 1))[:, None]) / (won_by + lost_by + strength)
    return share, rate


def posterior(
    train: Answers,
    asked: Answers,
    num_users: int,
    num_pairs: int,
    num_groups: int,
    controversial_share: float,
    label_noise: float,
    *,
    seed: int,
) -> FloatArray:
    """Return the posterior probability that the lower response wins, told how the graph was made but for the labels.

    Belief propagation between users, of which group they are, and pairs, which of the 2^G labellings they have, whose
    prior is that of the source `planted`. On a sparse random graph this is the statistical limit of any method.
    """
    codes = np.arange(2**num_groups)
    labels = ((codes[:, None] >> np.arange(num_groups)) & 1).astype(np.float64)
    mixed = controversial_share / max(len(codes) - 2, 1)
    prior = np.full(len(codes), mixed)
    prior[[0, -1]] = (1 - controversial_share) / 2
    noise = min(max(label_noise, 1e-3), 1 - 1e-3)  # certainty would make one wrong guess at the start final
    chance = np.where(labels.T > 0, 1 - noise, noise)  # [G, 2^G]
    won = train.won[:, None]
    belief = np.random.default_rng(seed).dirichlet(np.ones(num_groups), size=len(train.user))
    of_users, of_pairs = np.zeros((num_users, num_groups)), np.zeros((num_pairs, len(codes)))
    for _ in range(100):
        told = np.log(np.where(won, belief @ chance, belief @ (1 - chance)))
        of_pairs = _sums(told, train.pair, num_pairs) + np.log(np.maximum(prior, 1e-300))
        labelling = _distributions(of_pairs[train.pair] - told)
        heard = np.log(np.where(won, labelling @ chance.T, labelling @ (1 - chance.T)))
        of_users = _sums(heard, train.user, num_users)
        before, belief = belief, _distributions(of_users[train.user] - heard)
        if np.abs(belief - before).mean() < 1e-4:
            break
    group, labelling = _distributions(of_users), _distributions(of_pairs)
    expected: FloatArray = ((group[asked.user] @ chance) * labelling[asked.pair]).sum(axis=1)
    return expected
