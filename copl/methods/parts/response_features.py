"""Text embeddings of responses for encoders that take them as node features."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from copl.errors import OptionsError
from copl.interfaces import GraphEncoder, Workspace
from copl.records import PreferenceData
from copl.reward.options import RewardOptions
from copl.reward.reading.frozen_texts import FrozenTexts, features_key
from copl.runs.recipe import Stages

if TYPE_CHECKING:
    from torch import Tensor


def wants_response_features(stages: Stages) -> bool:
    """Return whether the encoder takes text embeddings of the responses (`GraphEncoder.reads_texts`).

    Raises:
        OptionsError: it does, and the method has no backbone to make them with.
    """
    encoder: GraphEncoder = stages.build("encoder")
    if encoder.reads_texts and "backbone" not in stages.parts:
        raise OptionsError(
            f"encoder.{stages.parts['encoder'].name}: as it is set, it takes text embeddings of the responses "
            "(response_features), but this method has no backbone that could read them; choose a method with one, such "
            "as copl"
        )
    return encoder.reads_texts


def response_features_key(stages: Stages) -> Mapping[str, Any]:
    """Return what the features depend on beside the texts."""
    return features_key(stages, _max_length(stages))


def response_features(data: PreferenceData, stages: Stages, *, workspace: Workspace) -> Tensor:
    """Return the frozen features [R, F] of all responses of a data set, from the recipe's backbone."""
    texts = FrozenTexts.fit(data.responses, stages, max_length=_max_length(stages), workspace=workspace)
    return texts.of(data.responses, np.arange(len(data.responses)))


def _max_length(stages: Stages) -> int:
    reward = stages.sections.get("reward")
    options = reward if isinstance(reward, RewardOptions) else RewardOptions()
    return options.max_length
