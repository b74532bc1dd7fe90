"""Mean adaptation: a newcomer becomes the plain mean of the seen users nearby in the graph."""

from __future__ import annotations

from typing import final

import numpy as np
import torch

from copl.adapt.estimates import Estimates
from copl.adapt.neighbours import confidence, neighbour_blocks, unit
from copl.adapt.support import match
from copl.options import NoOptions
from copl.records import AdaptedUsers, ComparisonSet, NodeEmbeddings


@final
class Mean:
    """The mean of the seen users who share a chosen response with the newcomer: a baseline of CoPL (arXiv 2503.01658).

    A newcomer without such neighbours gets the mean of all seen users (``population``).
    """

    def __init__(self, options: NoOptions) -> None:
        self._options = options

    def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
        matched = match(support, trained)
        estimates = Estimates(matched, trained)
        for newcomers, part, columns, sharing in neighbour_blocks(matched, trained):
            degree = np.diff(sharing.indptr)
            near = np.flatnonzero(degree > 0)
            if len(near):
                weights = torch.from_numpy(sharing[near].toarray() / degree[near, None])
                users = trained.users[torch.from_numpy(columns)].detach().cpu().double()
                sure = confidence(weights, unit(users), part.counts[near])
                estimates.put(newcomers[near], weights @ users, "mean", degree[near], sure)
        return estimates.result()
