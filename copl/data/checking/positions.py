"""Users whose choice follows the side a response is shown on rather than the response."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from copl.records import BoolArray, FloatArray, IntArray


def one_sided_users(
    user: IntArray, picked_left: BoolArray, num_users: int, *, false_discovery: float = 0.05, share: float = 2 / 3
) -> BoolArray:
    """Return which users [U] pick one side so often that chance does not explain it.

    Two conditions hold together: the exact two-sided binomial test against 1/2 is significant under the procedure of
    Benjamini and Hochberg (1995) over all users, and the user picks the side in more than `share` of the comparisons,
    so that a slight lean of somebody with many comparisons does not count.

    Args:
        user: row of the user of each decided comparison [N].
        picked_left: whether the response on the left was chosen [N].
        num_users: number of users U.
        false_discovery: expected share of users named by chance among those named.
        share: smallest share of the favoured side.
    """
    from scipy.special import bdtrc

    count = np.bincount(user, minlength=num_users)
    left = np.bincount(user[picked_left], minlength=num_users)
    favoured = np.maximum(left, count - left)
    # Under 1/2 both tails are equal; a tie has both tails overlap, hence the minimum.
    p_value: FloatArray = np.minimum(2 * bdtrc(favoured - 1.0, np.maximum(count, 1), 0.5), 1.0)
    p_value[count == 0] = 1.0
    order = np.argsort(p_value, kind="stable")
    tested = max(int(np.count_nonzero(count)), 1)
    passing = np.flatnonzero(p_value[order] <= false_discovery * np.arange(1, num_users + 1) / tested)
    significant: BoolArray = np.zeros(num_users, dtype=np.bool_)
    if len(passing):
        significant[order[: passing[-1] + 1]] = True
    result: BoolArray = significant & (favoured > share * count)
    return result
