"""A quality reward beside the personal one, as the command line names it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from copl.commands.parts.display import say

if TYPE_CHECKING:
    from copl.model import Model
    from copl.reward.quality import QualityReward


def quality_reward(
    model: Model, name: str | None, weight: float | None, *, calibrated: bool = False
) -> QualityReward | None:
    """Return the quality reward with the weight given, or else the one that the run's validation split speaks for.

    Args:
        model: the run.
        name: the classifier; None for no quality reward.
        weight: its weight, None to choose it.
        calibrated: whether it stands beside calibrated rewards.

    Raises:
        CoplError: there is a weight but no name, the classifier will not do, or there is nothing to choose a weight by.
    """
    from copl.errors import OptionsError

    if name is None:
        if weight is not None:
            raise OptionsError("--quality-weight belongs to a quality reward; name one with --quality")
        return None
    from copl.reward.quality import QualityReward

    if weight is not None:
        return QualityReward(name, weight=weight)
    from copl.runs.pipeline import load_data

    data, _ = load_data(model.run)
    chosen = model.weigh(QualityReward(name), data.split("validation"), calibrated=calibrated)
    say(f"quality counts {chosen.weight:.3g}, by the validation split")
    return chosen
