"""From a data set to the preference graph its encoder learns from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from copl.errors import DataError
from copl.records import Comparisons, PreferenceData, PreferenceGraph
from copl.records.evidence import LEVEL_KEYS, learnt_from
from copl.system.converters import renumbering

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import BoolArray


def build_graph(data: PreferenceData, *, response_features: Tensor | None = None) -> PreferenceGraph:
    """Return the preference graph of a data set.

    Users are those with training evidence, in the order of the data set. Responses are those that it touches, so that
    every response of the graph is a trained one; with `response_features` all responses of the data set are kept, since
    features carry over to responses nobody has judged. Ties are comparisons both ways; thumbs and ratings are set
    against levels (`copl.records.evidence.on_levels`), which are responses as well. A comparison of weight 0, or of a
    response with itself, says nothing and is left out. Validation comparisons that refer to users or responses outside
    the graph are left out.

    Args:
        data: the data set; its splits ``train`` and ``validation`` are used.
        response_features: text embeddings of the data set's responses [R, F].

    Raises:
        DataError: there is nothing to learn from.
    """
    train = _telling(learnt_from(data.split("train")))
    if not len(train):
        raise DataError(f"{data.name}: no comparisons to train on; a preference graph needs some in the split 'train'")
    users = np.unique(train.user)
    keys = (*data.responses.keys, *LEVEL_KEYS)
    responses = np.unique(np.concatenate([train.chosen, train.rejected]))
    if response_features is not None:
        levels = responses[responses >= len(data.responses)]
        responses = np.concatenate([np.arange(len(data.responses)), levels])
        if len(levels):
            response_features = with_levels(response_features, len(levels))
    user_rows = renumbering(users, len(data.users))
    response_rows = renumbering(responses, len(keys))
    return PreferenceGraph(
        user_ids=tuple(data.users.ids[row] for row in users.tolist()),
        response_keys=tuple(keys[row] for row in responses.tolist()),
        comparisons=train.within(user_rows, response_rows),
        validation=_telling(data.split("validation").comparisons).within(user_rows, response_rows),
        response_features=response_features,
    )


def with_levels(features: Tensor, num_levels: int) -> Tensor:
    """Return features of texts [R, F] and, for levels, which have no text, those of the average one."""
    import torch

    return torch.cat([features, features.mean(dim=0, keepdim=True).expand(num_levels, -1)])


def _telling(comparisons: Comparisons) -> Comparisons:
    keep: BoolArray = (comparisons.weight > 0) & (comparisons.chosen != comparisons.rejected)
    return comparisons.take(keep)
