r"""Methods ``pal-a`` and ``pal-b``: users are mixtures of a few prototypes in a space of preferences.

Chen et al., "PAL: Pluralistic Alignment Framework for Learning from Heterogeneous Preferences", 2024, arXiv 2406.08469.
With f and g_1 … g_K projections (MLPs) into the space and w_u a user's weights,

.. math::
    \text{PAL-A: } & u = f(P^T \operatorname{softmax}(w_u)), \quad r_u(x) = -\lVert f(x) - u \rVert, \quad
        \text{loss } \max(0, 1 - (r_u(x_c) - r_u(x_r))) \\
    \text{PAL-B: } & u = \sum_k \operatorname{softmax}(w_u)_k \, g_k(\text{prompt}), \quad
        r_u(x) = e^s \cos(f(x), u), \quad \text{loss } -\log \sigma(r_u(x_c) - r_u(x_r))

with prototypes P [K, H] among the features and e^s from 1/0.07, at most 100. Unseen users: everything is kept, w_u
alone is learnt by AdamW, from equal weights. The state of a user is w_u.

Departures: the language model is frozen, and x and the prompt are its features. PAL-B reads the reward from the last
token of every response and the prompt's own tokens; here both are pooled.
"""

from __future__ import annotations

import math
from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl_baselines.layers import mlp
from copl_baselines.model import FeatureReward, Placed, Shape, Step, bradley_terry, fit_states
from copl_baselines.options import PalAOptions, PalBOptions, PalOptions
from copl_baselines.pairs import Pairs, Texts

_LARGEST_SCALE = 100.0


class PalReward(FeatureReward):
    """What both methods share: the projection of responses, and weights of users."""

    def __init__(self, options: PalOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._options = options
        self.project = self._projection(shape.hidden_size)
        self.users = nn.Parameter(torch.randn(len(shape.users), options.num_prototypes))

    def _projection(self, hidden_size: int) -> nn.Module:
        options = self._options
        return mlp(hidden_size, options.width, options.preference_dim, dropout=options.dropout)

    def _losses(self, margins: Tensor) -> Tensor:
        return bradley_terry(margins)

    def encode(self, texts: Texts) -> Tensor:
        codes: Tensor = self.project(texts.features)
        return codes

    def loss(self, batch: Pairs, step: Step) -> Tensor:
        return batch.mean(self._losses(self.margins(batch, self.users)))

    def seen_states(self, train: Pairs) -> Tensor:
        return self.users.detach()

    def place(self, support: Pairs) -> Placed:
        chosen, rejected = (codes.detach() for codes in self.codes(support))

        def loss(states: Tensor) -> Tensor:
            users = F.embedding(support.user, states)
            margins = self.combine(chosen, users) - self.combine(rejected, users)
            return (self._losses(margins) * support.weight).sum()

        options, start = self._options, torch.zeros(len(support.users), self._options.num_prototypes)
        states = fit_states(start, loss, learning_rate=options.adapt_learning_rate, num_steps=options.adapt_steps)
        return Placed(states, "mixture-weights")

    def parameter_groups(self) -> list[dict[str, object]]:
        others = [p for p in self.parameters() if p is not self.users]
        users = {"params": [self.users], "lr": self._options.user_learning_rate, "weight_decay": 0.0}
        return [{"params": others}, users]


@final
class PalAReward(PalReward):
    """Ideal points: a response is the better, the nearer it lies to the user."""

    def __init__(self, options: PalAOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._hinge_margin = options.hinge_margin
        self.prototypes = nn.Parameter(torch.randn(options.num_prototypes, shape.hidden_size))

    def _losses(self, margins: Tensor) -> Tensor:
        return F.relu(self._hinge_margin - margins)

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        distances: Tensor = (codes - self.project(users.softmax(1) @ self.prototypes)).norm(dim=1)
        return -distances


@final
class PalBReward(PalReward):
    """Directions: what a user wants is a function of the prompt."""

    needs_prompts: ClassVar[bool] = True

    def __init__(self, options: PalBOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self.wanted = nn.ModuleList(self._projection(shape.hidden_size) for _ in range(options.num_prototypes))
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def encode(self, texts: Texts) -> Tensor:
        return torch.cat([super().encode(texts), *(g(texts.prompts) for g in self.wanted)], dim=1)

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        place, *wanted = codes.chunk(1 + len(self.wanted), dim=1)
        direction = (users.softmax(1)[:, :, None] * torch.stack(wanted, dim=1)).sum(1)
        cosine = F.cosine_similarity(place, direction, dim=1)
        return self.log_scale.exp().clamp_max(_LARGEST_SCALE) * cosine
