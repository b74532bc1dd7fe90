"""The simulated users of `facets`: what they value, and what they choose."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen

from copl.bradley_terry import correct
from copl.records import BoolArray, Comparisons, FloatArray, IntArray

if TYPE_CHECKING:
    from numpy.typing import NDArray


@final
@frozen(eq=False)
class FacetsTruth:
    """What made the data, for oracles and tests; no method may see it.

    A user u prefers a to b with probability sigmoid(w_u . (f_a - f_b) / temperature).

    Attributes:
        facets: style facets of each response, 0 or 1 [R, 5].
        group_weights: what each group values [G, 5].
        user_weights: what each user values: its group's weights and its own deviation [U, 5].
        user_groups: the group of each user, a row of `group_weights` [U].
        temperature: the noise of the choices.
    """

    facets: FloatArray
    group_weights: FloatArray
    user_weights: FloatArray
    user_groups: IntArray
    temperature: float

    def margins(self, comparisons: Comparisons, weights: FloatArray) -> FloatArray:
        """Return the margin [N] of each comparison under `weights`, one row for each user [U, 5] or for all [5]."""
        difference = self.facets[comparisons.chosen] - self.facets[comparisons.rejected]
        of_user = np.broadcast_to(weights, self.user_weights.shape)[comparisons.user]
        margins: FloatArray = np.sum(of_user * difference, axis=1)
        return margins

    def individual_margins(self, comparisons: Comparisons) -> FloatArray:
        """Return the margins [N] of an oracle that knows each user's weights."""
        return self.margins(comparisons, self.user_weights)

    def group_margins(self, comparisons: Comparisons) -> FloatArray:
        """Return the margins [N] of an oracle that knows each user's group and the weights of the groups."""
        return self.margins(comparisons, self.group_weights[self.user_groups])

    def unpersonalised_weights(self, comparisons: Comparisons) -> FloatArray:
        """Fit the one weighting [5] of the true facets that explains the choices of all users best (Bradley-Terry)."""
        difference = self.facets[comparisons.chosen] - self.facets[comparisons.rejected]
        weights = np.zeros(difference.shape[1])
        for _ in range(50):  # Newton steps on the concave log-likelihood, kept finite by a slight ridge
            missed = 1 / (1 + np.exp(difference @ weights))
            curvature = (difference * (missed * (1 - missed))[:, None]).T @ difference + np.eye(len(weights))
            step = np.linalg.solve(curvature, difference.T @ missed - weights)
            weights = weights + step
            if np.abs(step).max() < 1e-9:
                break
        return weights

    def ceilings(self, splits: Mapping[str, Comparisons]) -> dict[str, dict[str, float]]:
        """Return for each split the accuracy of the unpersonalised fit and of the two oracles.

        Args:
            splits: comparisons by split, none of them empty; the fit is on ``train``.
        """
        shared = self.unpersonalised_weights(splits["train"])
        return {
            name: {
                "unpersonalised": _accuracy(self.margins(rows, shared)),
                "group_oracle": _accuracy(self.group_margins(rows)),
                "individual_oracle": _accuracy(self.individual_margins(rows)),
            }
            for name, rows in splits.items()
        }


def _accuracy(margins: FloatArray) -> float:
    # rounding makes a tie of what differs only by the order of summation
    return round(float(correct(np.round(margins, 9)).mean()), 4)


def draw_group_weights(num_groups: int, num_facets: int, agreement: float, rng: np.random.Generator) -> FloatArray:
    """Draw the weights [G, F] of the groups.

    In a random orthonormal basis the groups come in opposite pairs, one axis a pair, the last three of an odd number
    at 120 degrees in a plane. So they cancel out, and `agreement` times one more axis, common to all, is what an
    unpersonalised model can learn.
    """
    basis = np.linalg.qr(rng.normal(size=(num_facets, num_facets)))[0].T
    rows: list[FloatArray] = []
    while num_groups - len(rows) not in (0, 1, 3):
        axis = basis[len(rows) // 2]
        rows += [axis, -axis]
    if num_groups - len(rows) == 3:
        plane = basis[len(rows) // 2 : len(rows) // 2 + 2]
        angles = np.arange(3) * 2 * np.pi / 3
        rows += list(np.stack([np.cos(angles), np.sin(angles)], axis=1) @ plane)
    elif num_groups - len(rows) == 1:  # a single group agrees with itself alone
        rows.append(basis[0])
    weights: FloatArray = np.array(rows) + agreement * basis[-1]
    return weights


def draw_users(
    num_users: int, group_weights: FloatArray, deviation: float, rng: np.random.Generator
) -> tuple[IntArray, FloatArray]:
    """Draw the group [U] and the weights [U, F] of users; groups are of equal size up to one."""
    groups = rng.permutation(np.arange(num_users) % len(group_weights))
    weights = group_weights[groups] + deviation * rng.normal(size=(num_users, group_weights.shape[1]))
    return groups, weights


def group_names(group_weights: FloatArray, facet_names: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    """Name each group by the two facet values that set it apart most, such as ``brief+example``.

    Args:
        group_weights: weights of the groups [G, F].
        facet_names: for each facet the names of its values 0 and 1.
    """
    names: list[str] = []
    apart = group_weights - group_weights.mean(axis=0) if len(group_weights) > 1 else group_weights
    for weights in np.round(apart, 9):
        strongest = np.argsort(-np.abs(weights), kind="stable")[:2]
        name = "+".join(facet_names[i][int(weights[i] > 0)] for i in strongest)
        names.append(name if name not in names else f"{name} ({len(names) + 1})")
    return tuple(names)


def draw_comparisons(
    truth: FacetsTruth,
    users: IntArray,
    counts: IntArray,
    prompts: list[IntArray],
    responses_per_prompt: int,
    rng: np.random.Generator,
) -> Comparisons:
    """Let each user choose between two responses to each of its prompts.

    Args:
        truth: what the users value.
        users: rows of the users [n].
        counts: how many comparisons each gives [n].
        prompts: for each user its prompts, at least as many as `counts`; the first ones are used.
        responses_per_prompt: the responses of prompt p are the rows starting at p times this.
        rng: source of the pairs and of the choices.
    """
    user = np.repeat(users, counts)
    if not len(user):  # an option of 0 leaves a split out
        return Comparisons.empty()
    prompt = np.concatenate([p[:n] for p, n in zip(prompts, counts, strict=True)])
    first = rng.integers(responses_per_prompt, size=len(user))
    second = (first + rng.integers(1, responses_per_prompt, size=len(user))) % responses_per_prompt
    a, b = prompt * responses_per_prompt + first, prompt * responses_per_prompt + second
    pairs = Comparisons(user, a, b)
    likes_first: BoolArray = rng.random(len(user)) < _sigmoid(truth.individual_margins(pairs) / truth.temperature)
    return Comparisons(
        user, np.where(likes_first, a, b), np.where(likes_first, b, a), controversial=_controversial(truth, pairs)
    )


def _controversial(truth: FacetsTruth, pairs: Comparisons) -> NDArray[np.int8]:
    """Return 1 where two groups lean to different sides of a pair."""
    difference = truth.facets[pairs.chosen] - truth.facets[pairs.rejected]
    leans = np.round(difference @ truth.group_weights.T, 9)
    flags: NDArray[np.int8] = ((leans.max(axis=1) > 0) & (leans.min(axis=1) < 0)).astype(np.int8)
    return flags


def _sigmoid(x: FloatArray) -> FloatArray:
    return 1 / (1 + np.exp(-np.clip(x, -500, 500)))
