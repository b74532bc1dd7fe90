r"""Method ``p-rlhf``: soft tokens of the user stand before what the reward model reads.

Li et al., "Personalized Language Modeling from Personalized Human Feedback", 2024, arXiv 2402.05133. A user is T soft
tokens, either tokens common to all plus the user's own offset, or a mixture of the tokens of K clusters,

.. math:: e_u = e_0 + o_u \qquad \text{or} \qquad e_u = \operatorname{softmax}(w_u)^T C

trained with the model; with the share 1 - alpha of the loss, the generic tokens e_0 (of the mixture: the plain mean of
the clusters) stand in for the user's, so that they serve users who are not known:

.. math:: -\alpha \log \sigma(r(x_c; e_u) - r(x_r; e_u)) - (1 - \alpha) \log \sigma(r(x_c; e_0) - r(x_r; e_0))

Unseen users get the generic tokens, whatever they say. The state of a user is e_u.

Departures: the authors prepend the tokens to the text, so that they pass through the language model, and train it by
direct preference optimisation; here it is the loss of a reward model, as their framework allows. On frozen features no
token can pass through the language model: the response's features attend to them (and not to themselves) in one
transformer layer, trained from nothing, from which the reward is read. So tokens steer how the features are judged, not
how the text is read. Textual descriptions of users are left out.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl_baselines.attention import CrossLayer, margins_by_user
from copl_baselines.model import FeatureReward, Placed, Shape, Step, bradley_terry
from copl_baselines.options import PrlhfOptions
from copl_baselines.pairs import Pairs, Texts


@final
class PrlhfReward(FeatureReward):
    """Soft tokens, the layer they share with the response, and the head."""

    batches_users: ClassVar[bool] = True

    def __init__(self, options: PrlhfOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._options = options
        size = options.num_tokens * options.token_dim
        num_users = len(shape.users)
        if options.user_model == "individual":
            self.common = nn.Parameter(torch.randn(1, size))
            self.users = nn.Parameter(0.1 * torch.randn(num_users, size))
        else:
            self.common = nn.Parameter(torch.randn(options.num_clusters, size))
            self.users = nn.Parameter(torch.randn(num_users, options.num_clusters))
        self.response = nn.Linear(shape.hidden_size, options.token_dim)
        self.layer = CrossLayer(options.token_dim, options.num_heads, options.dropout)
        self.head = nn.Linear(options.token_dim, 1, bias=False)

    def tokens(self) -> Tensor:
        """Return the soft tokens of the seen users, flattened [U, T * D]."""
        if self._options.user_model == "individual":
            return self.common + self.users
        return self.users.softmax(1) @ self.common

    def generic(self) -> Tensor:
        """Return the generic soft tokens, flattened [T * D]."""
        return self.common.mean(0)

    def loss(self, batch: Pairs, step: Step) -> Tensor:
        pairs, users = batch.compact()
        own, generic = F.embedding(users, self.tokens()), self.generic().expand(len(users), -1)
        share = self._options.personal_share
        losses = [pairs.mean(bradley_terry(self.margins(pairs, states))) for states in (own, generic)]
        return share * losses[0] + (1 - share) * losses[1]

    def encode(self, texts: Texts) -> Tensor:
        codes: Tensor = self.response(texts.features)
        return codes

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        return self.outputs(codes[:, None], users).squeeze(1)

    def outputs(self, codes: Tensor, users: Tensor) -> Tensor:
        """Return the rewards [U, T] of T responses with codes [U, T, D] for each of U soft prompts."""
        tokens = users.view(len(users), self._options.num_tokens, self._options.token_dim)
        real = torch.ones(tokens.shape[:2], dtype=torch.bool)
        rewards: Tensor = self.head(self.layer(codes, tokens, real)).squeeze(2)
        return rewards

    def margins(self, pairs: Pairs, states: Tensor) -> Tensor:
        chosen, rejected = self.codes(pairs)
        return margins_by_user(pairs, chosen, rejected, lambda codes: self.outputs(codes, states))

    def seen_states(self, train: Pairs) -> Tensor:
        return self.tokens().detach()

    @torch.no_grad()
    def place(self, support: Pairs) -> Placed:
        return Placed(self.generic().repeat(len(support.users), 1), "generic")

    def stranger(self, seen: Tensor) -> Tensor:
        return self.generic().detach()

    def parameter_groups(self) -> list[dict[str, object]]:
        others = [p for p in self.parameters() if p is not self.users]
        options = self._options
        users = {"params": [self.users], "weight_decay": options.user_decay}
        if options.user_model == "cluster":
            users |= {"weight_decay": 0.0, "lr": options.user_learning_rate}
        return [{"params": others}, users]
