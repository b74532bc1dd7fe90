"""Text embeddings of responses for encoders that take them as node features."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from copl.errors import OptionsError
from copl.interfaces import Backbone, Progress
from copl.recipe import Stages
from copl.records import PreferenceData
from copl.reward.features import pooled_features
from copl.reward.options import RewardOptions

if TYPE_CHECKING:
    from torch import Tensor


def wants_response_features(stages: Stages) -> bool:
    """Return whether the encoder's options ask for features: whether it has an option ``response_features`` that is on.

    Raises:
        OptionsError: it does, and the method has no backbone to make features with.
    """
    encoder = stages.parts["encoder"]
    wanted = bool(getattr(encoder.options, "response_features", False))
    if wanted and "backbone" not in stages.parts:
        raise OptionsError(
            f"encoder.{encoder.name}.response_features: this method has no backbone that could read the responses; "
            "choose a method with one, such as copl"
        )
    return wanted


def features_key(stages: Stages) -> dict[str, Any]:
    """Return what the features depend on beside the texts."""
    backbone: Backbone = stages.build("backbone")
    return {**stages.key("backbone"), "weights": backbone.fingerprint(), "max_length": _max_length(stages)}


def response_features(data: PreferenceData, stages: Stages, progress: Progress) -> Tensor:
    """Return the frozen features [R, F] of all responses of a data set, from the recipe's backbone."""
    backbone: Backbone = stages.build("backbone")
    rows = np.arange(len(data.responses))
    return pooled_features(backbone.load(), data.responses, rows, max_length=_max_length(stages), progress=progress)


def _max_length(stages: Stages) -> int:
    reward = stages.sections.get("reward")
    options = reward if isinstance(reward, RewardOptions) else RewardOptions()
    return options.max_length
