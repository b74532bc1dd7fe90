"""Encode adaptation: a pass of the trained encoder over the newcomer's own edges."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import torch

from copl.adapt.estimates import Estimates, population_mean
from copl.adapt.inductive import inductive_pass
from copl.adapt.strategy import PlacingStrategy
from copl.options import NoOptions

if TYPE_CHECKING:
    from copl.adapt.support import MatchedSupport
    from copl.records import NodeEmbeddings


@final
class Encode(PlacingStrategy):
    r"""What the trained encoder makes of the newcomer's comparisons, as if they had been there in training.

    The encoder leaves the pass with the embeddings (`copl.records.passes`), as ``stacked``, ``latent-groups``, ``mf``,
    ``gcf`` and ``lightgcn`` do; then `how` is ``encode``. Where it left none, a linear map learnt from the seen users'
    comparisons and embeddings takes its place (``fold-in``). A newcomer who says nothing about any trained response
    gets the mean of the seen users (``population``).

    Confidence is n/(n+1) times d/(1+d), with d how far the embedding lies from the mean, in units of the seen users'
    root mean square distance. All seen users take part, through the encoder.
    """

    def __init__(self, options: NoOptions) -> None:
        self._options = options

    def _place(self, matched: MatchedSupport, trained: NodeEmbeddings, estimates: Estimates) -> None:
        encode, mean = inductive_pass(trained), population_mean(trained)
        spread = float((trained.users.detach().cpu().double() - mean).square().sum(dim=1).mean().sqrt())
        for newcomers, part in matched.by_length():
            embeddings = encode(part)
            distance = (
                torch.linalg.vector_norm(embeddings - mean, dim=1).numpy() / spread if spread else 0.0 * part.counts
            )
            sure = part.counts / (part.counts + 1) * distance / (1 + distance)
            estimates.put(newcomers, embeddings, encode.how, len(trained.user_ids), sure)
