"""Two-hop adaptation: a newcomer becomes the agreement-weighted sum of the seen users nearby in the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import numpy as np
import torch

from copl.adapt.agreement import log_likelihood
from copl.adapt.neighbours import confidence, neighbour_blocks, unit
from copl.adapt.strategies.catalogue import TwoHopOptions
from copl.adapt.strategy import PlacingStrategy

if TYPE_CHECKING:
    from torch import Tensor

    from copl.adapt.estimates import Estimates
    from copl.adapt.support import MatchedSupport
    from copl.records import IntArray, NodeEmbeddings

ALL_USERS = "all-users"
"""How an embedding was found when no seen user shares a chosen response: agreement with every seen user."""


@final
class TwoHop(PlacingStrategy):
    r"""Two-hop adaptation of CoPL (arXiv 2503.01658).

    The neighbours of a newcomer u are the seen users who share a chosen response with u. Each is weighted by how well
    it explains the comparisons of u:

    .. math::
        a_v = \frac{1}{|C_u|} \sum_{(c, r) \in C_u} \log\sigma(\hat e_v \cdot (e_c - e_r) + b_c - b_r), \qquad
        e_u = \sum_{v \in N(u)} \mathrm{softmax}_v(a_v / \tau) \, e_v

    with the neighbour's embedding at length one in the agreement and as it is in the sum. The mean is weighted where
    comparisons are; the biases b are left out in the paper and with ``response_bias=false``. Fallbacks: a newcomer
    without neighbours is compared with all seen users (``all-users``); one who says nothing about any trained
    response gets the mean of all seen users (``population``).
    """

    def __init__(self, options: TwoHopOptions) -> None:
        self._options = options

    def _place(self, matched: MatchedSupport, trained: NodeEmbeddings, estimates: Estimates) -> None:
        alone = []
        for newcomers, part, columns, sharing in neighbour_blocks(matched, trained):
            degree = np.diff(sharing.indptr)
            alone.append(newcomers[(degree == 0) & (part.counts > 0)])
            near = np.flatnonzero(degree > 0)
            if len(near):
                mask = torch.from_numpy(sharing[near].toarray() > 0)
                users = trained.users[torch.from_numpy(columns)]
                self._put(estimates, newcomers[near], part.take(near), users, mask, "two-hop")
        lonely = np.concatenate([*alone, np.empty(0, dtype=np.int64)])
        for newcomers, part in matched.take(lonely).blocks():
            self._put(estimates, lonely[newcomers], part, trained.users, None, ALL_USERS)

    def _put(
        self,
        estimates: Estimates,
        newcomers: IntArray,
        part: MatchedSupport,
        users: Tensor,
        mask: Tensor | None,
        how: str,
    ) -> None:
        directions = unit(users)
        agreement = log_likelihood(
            part,
            directions.to(users.dtype),
            weight=part.weight / np.bincount(part.newcomer, part.weight)[part.newcomer],
            bias=part.bias if self._options.response_bias else 0.0,
        )
        if mask is not None:
            agreement = agreement.masked_fill(~mask, -torch.inf)
        weights = (agreement / self._options.temperature).softmax(dim=1)
        num_neighbours = mask.sum(dim=1).numpy() if mask is not None else len(users)
        embeddings = weights @ users.detach().cpu().double()
        estimates.put(newcomers, embeddings, how, num_neighbours, confidence(weights, directions, part.counts))
