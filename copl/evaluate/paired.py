"""Whether one method is ahead of another: the difference on the same comparisons, with its interval."""

from __future__ import annotations

from typing import TYPE_CHECKING

from copl.bradley_terry import correct
from copl.evaluate.bootstrap import crossed_mean, sampled_from
from copl.interfaces import EvaluationContext
from copl.records import ComparisonSet, Measurement

if TYPE_CHECKING:
    from copl.records import FloatArray

VERSUS = "versus:"
"""Prefix of the subset of a difference; what follows is the name of the method compared with."""


def accuracy_difference(
    margins: FloatArray,
    baseline: FloatArray,
    pairs: ComparisonSet,
    context: EvaluationContext,
    *,
    versus: str,
    num_resamples: int = 1000,
) -> Measurement:
    """Return by how much the accuracy of `margins` exceeds that of `baseline` on the same comparisons.

    Both methods are judged on the same resamples of users and prompts, so what makes a comparison hard for both
    cancels; the interval is narrower than those of the two accuracies suggest. An interval above zero means: ahead.

    Args:
        margins: margins of the method [N].
        baseline: margins of the method compared with [N].
        pairs: the comparisons of both, at least one.
        context: split and seed.
        versus: name of the baseline; the subset of the measurement is ``versus:<name>``.
        num_resamples: bootstrap resamples behind the 95 % interval.

    Raises:
        ValueError: there are no comparisons, their numbers differ, or a margin is not a number.
    """
    if not len(margins) == len(baseline) == len(pairs) > 0:
        raise ValueError(f"{len(margins)} and {len(baseline)} margins for {len(pairs)} comparisons")
    estimate = crossed_mean(
        correct(margins) - correct(baseline), sampled_from(pairs), seed=context.seed, num_resamples=num_resamples
    )
    return Measurement(context.split, f"{VERSUS}{versus}", "accuracy_difference", *estimate, len(margins))
