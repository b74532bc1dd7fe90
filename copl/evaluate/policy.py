r"""Whether people get better answers: what is shown, by its true utility, from a random candidate to the best one.

With u_{ps} the utility to user u of the answer shown to prompt p, and the mean and the highest utility of the
candidates,

.. math::
    \mathrm{gain} = \frac{\sum_{u, p} (u_{ps} - \bar u_p)}{\sum_{u, p} (\max_c u_{pc} - \bar u_p)}

is 0 for a random candidate and 1 for the best; an answer that was written for the user may lie beyond. Controlled for
length, utilities are what a straight line over the length of the candidates, one for each user, leaves unexplained,
and the answer of the oracle is 1. Users and prompts were both drawn, so intervals are over both
(`copl.evaluate.bootstrap`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import numpy as np
from attrs import frozen

from copl.evaluate.bootstrap import share_interval, spread, unanimous_interval
from copl.evaluate.tables import Table, cell, split_order, split_title
from copl.records import Measurement

if TYPE_CHECKING:
    from copl.records import BoolArray, FloatArray

GAIN = "utility_gain"
CONTROLLED = "length_controlled_gain"
WORST = "worst_group_gain"
BETTER_OFF = "better_off"
UNREAD = "unread"
POLICY_METRICS = (GAIN, CONTROLLED, WORST, BETTER_OFF, UNREAD)
"""What is measured of answers, in the order of tables."""

ANSWERS = "answers:"
"""Subset of newcomers who have given so many answers."""

_RESAMPLES = 1000


@final
@frozen(eq=False)
class ShownAnswers:
    """What users were shown in answer to prompts, and what it was truly worth to them.

    Attributes:
        shown: utility of the answer shown, NaN where it cannot be read off the text [U, P].
        unpersonalised: utility of the answer that anybody would be shown [U, P].
        candidates: utilities of the candidates, NaN where a prompt has fewer; at least one each [U, P, n].
        length: length of the answer shown [U, P].
        lengths: lengths of the candidates, NaN as above [P, n].
        groups: the group of each user, None where it is unknown [U].
    """

    shown: FloatArray
    unpersonalised: FloatArray
    candidates: FloatArray
    length: FloatArray
    lengths: FloatArray
    groups: tuple[str | None, ...]

    def take(self, users: BoolArray) -> ShownAnswers:
        """Return those of some users, by a mask [U]."""
        groups = tuple(group for group, kept in zip(self.groups, users.tolist(), strict=True) if kept)
        parts = (self.shown[users], self.unpersonalised[users], self.candidates[users], self.length[users])
        return ShownAnswers(*parts, self.lengths, groups)


def measure_answers(answers: ShownAnswers, split: str, subset: str, *, seed: int) -> list[Measurement]:
    """Return all measurements of `POLICY_METRICS` that can be made; none where no candidate is better than another.

    Args:
        answers: what was shown.
        split: name of the split that the users and prompts belong to.
        subset: which part of it this is.
        seed: the same seed draws the same resamples.
    """
    read = np.isfinite(answers.shown)
    unread = Measurement(split, subset, UNREAD, *_share(~read), read.size) if read.size else None
    measured = [] if unread is None or not unread.value else [unread]
    won, room = gains(answers)
    if not room[read].sum() > 0:
        return measured
    controlled = _controlled(answers)
    measured = [
        Measurement(split, subset, GAIN, *gain_ratio(won, room, read), int(read.sum())),
        Measurement(split, subset, CONTROLLED, *gain_ratio(*controlled, read), int(read.sum())),
        *measured,
    ]
    worst = [
        gain_ratio(won[mask], room[mask], read[mask]) for mask in _groups(answers) if room[mask][read[mask]].sum() > 0
    ]
    if len(worst) > 1:
        measured.append(Measurement(split, subset, WORST, *min(worst), int(read.sum())))
    measured.append(Measurement(split, subset, BETTER_OFF, *_better_off(answers, read, seed), len(read)))
    return sorted(measured, key=lambda m: POLICY_METRICS.index(m.metric))


def gains(answers: ShownAnswers) -> tuple[FloatArray, FloatArray]:
    """Return how much the answer shown is better than a random one, and how much the best one is [U, P]."""
    mean = np.nanmean(answers.candidates, axis=2)
    return answers.shown - mean, np.nanmax(answers.candidates, axis=2) - mean


def _controlled(answers: ShownAnswers) -> tuple[FloatArray, FloatArray]:
    """Return the same, of utilities that no longer depend on length."""
    longer = np.nan_to_num(answers.lengths - np.nanmean(answers.lengths, axis=1, keepdims=True))
    better = np.nan_to_num(answers.candidates - np.nanmean(answers.candidates, axis=2, keepdims=True))
    slope = (better * longer).sum(axis=(1, 2)) / max(float(np.square(longer).sum()), 1e-12)
    won, room = gains(answers)
    best = np.nanargmax(answers.candidates, axis=2)
    best_longer = np.take_along_axis(np.broadcast_to(longer, better.shape), best[..., None], axis=2)[..., 0]
    own_longer = answers.length - np.nanmean(answers.lengths, axis=1)
    return won - slope[:, None] * own_longer, room - slope[:, None] * best_longer


def gain_ratio(won: FloatArray, room: FloatArray, read: BoolArray) -> tuple[float, float, float]:
    """Return the ratio of sums over the cells that were read [U, P], with its interval over users and prompts.

    Args:
        won: what is gained [U, P].
        room: what there is to gain [U, P].
        read: which of them count [U, P].
    """
    users, prompts = np.nonzero(read)
    total = float(room[read].sum())
    if total == 0:
        return 0.0, 0.0, 0.0
    value = float(won[read].sum()) / total
    reach = spread((won[read] - value * room[read]) / total, [users, prompts]).reach
    return value, value - reach, value + reach


def _share(marks: BoolArray) -> tuple[float, float, float]:
    users, prompts = np.nonzero(np.ones_like(marks))
    value = float(marks.mean())
    if value in (0, 1):
        return value, *unanimous_interval(value, [users, prompts])
    reach = spread((marks.ravel() - value) / marks.size, [users, prompts]).reach
    return value, max(value - reach, 0.0), min(value + reach, 1.0)


def _groups(answers: ShownAnswers) -> list[BoolArray]:
    names = sorted({group for group in answers.groups if group is not None})
    return [np.array([group == name for group in answers.groups]) for name in names]


def _better_off(answers: ShownAnswers, read: BoolArray, seed: int) -> tuple[float, float, float]:
    """Return the share of users to whom what they are shown is worth more than what anybody would be shown.

    Users and prompts are drawn anew together, so that a user who is better off by one prompt alone is not always. Where
    all are shown what anybody would be shown nobody is better off, and that is no sample of anything.
    """
    difference = np.where(read, answers.shown - answers.unpersonalised, 0.0)
    difference = np.where(np.abs(difference) < 1e-9, 0.0, difference)  # the order of a sum is no difference
    num_users, num_prompts = difference.shape
    generator = np.random.default_rng(seed)
    users = generator.multinomial(num_users, np.full(num_users, 1 / num_users), size=_RESAMPLES)
    prompts = generator.multinomial(num_prompts, np.full(num_prompts, 1 / num_prompts), size=_RESAMPLES)
    better = difference @ prompts.T > 1e-9
    resampled = (users.T * better).sum(axis=0) / num_users
    value = float((difference.sum(axis=1) > 1e-9).mean())
    if not difference.any():
        return value, value, value
    return value, *share_interval(value, resampled, [np.arange(num_users)])


def policy_table(results: Mapping[str, Sequence[Measurement]], *, title: str = "") -> Table:
    """Return who chooses as rows, and gain and share of users better off on each split as columns.

    Args:
        results: measurements by name of what chooses.
        title: title of the table.
    """
    measured = {(name, m.split, m.metric): m for name, ms in results.items() for m in ms if m.subset == "all"}
    splits = split_order([split for _, split, _ in measured])
    columns = [
        (split, metric)
        for split in splits
        for metric in (GAIN, BETTER_OFF)
        if any((name, split, metric) in measured for name in results)
    ]
    header = tuple(f"{split_title(split)}: {metric.replace('_', ' ')}" for split, metric in columns)
    rows = tuple(
        (name, *(cell(measured[name, *column]) if (name, *column) in measured else "" for column in columns))
        for name in results
    )
    return Table(title, ("what is shown", *header), rows)


def newcomers_table(results: Mapping[str, Sequence[Measurement]], *, title: str = "") -> Table:
    """Return who chooses as rows, and the gain of newcomers after so many answers as columns; maybe without rows."""
    measured = {
        name: {m.subset.removeprefix(ANSWERS): m for m in ms if m.metric == GAIN and m.subset.startswith(ANSWERS)}
        for name, ms in results.items()
    }
    counts = sorted({count for by_count in measured.values() for count in by_count}, key=int)
    rows = tuple(
        (name, *(cell(by_count[count]) if count in by_count else "" for count in counts))
        for name, by_count in measured.items()
        if by_count
    )
    return Table(title, ("answers given", *counts), rows)
