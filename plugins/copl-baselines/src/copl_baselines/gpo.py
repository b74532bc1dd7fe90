r"""Method ``gpo``: a transformer reads a user's comparisons as context and predicts what else the user prefers.

Zhao et al., "Group Preference Optimization: Few-Shot Alignment of Large Language Models", ICLR 2024, arXiv 2310.11523:
a transformer neural process (Nguyen and Grover 2022, arXiv 2207.04179). A point is an embedding x of a response with
its preference y. Context points (x, y) attend to each other, target points (x, unknown) to the context only; without
positions, so that order does not matter. The parameters are meta-learned: in each step the comparisons of a user are
divided at random into context C and targets, and the loss is that of the targets,

.. math:: -\sum_{i \notin C} \log P_\theta(y_i \mid x_i, \{(x_j, y_j)\}_{j \in C})

Here both responses of a comparison are points, y = 1 of the chosen and -1 of the rejected one, 0 stands for unknown,
and P of a target comparison is the softmax over the outputs for its two responses: Bradley-Terry. Unseen users: their
comparisons are the context, nothing is trained. The state of a user are the context points as each layer reads them.

Departures: the authors predict the shares of a survey's answers given by a group, not comparisons of a person. A user
is read by the last `max_context` comparisons, the model is small, and layers are normalised before each part.
"""

from __future__ import annotations

from typing import ClassVar, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl_baselines.attention import CrossLayer, margins_by_user
from copl_baselines.episodes import episode
from copl_baselines.model import FeatureReward, Placed, Shape, Step, bradley_terry
from copl_baselines.options import GpoOptions
from copl_baselines.pairs import Pairs, Texts


@final
class GpoReward(FeatureReward):
    """The embedding of points, the layers, and the head that reads a target."""

    batches_users: ClassVar[bool] = True

    def __init__(self, options: GpoOptions, shape: Shape) -> None:
        super().__init__(options, shape)
        self._options = options
        dim = options.point_dim
        self.read = nn.Linear(shape.hidden_size, dim)
        self.preference = nn.Parameter(torch.randn(dim))
        self.rest = nn.Sequential(nn.LeakyReLU(0.2), nn.Dropout(options.dropout), nn.Linear(dim, dim))
        self.layers = nn.ModuleList(
            CrossLayer(dim, options.num_heads, options.dropout) for _ in range(options.num_layers)
        )
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 1))

    def context(self, pairs: Pairs, chosen: Tensor, rejected: Tensor) -> Tensor:
        """Return the state [U, D] of users from their comparisons.

        Args:
            pairs: the comparisons; a user may be without any.
            chosen: codes of the chosen responses [N, D].
            rejected: codes of the rejected ones [N, D].
        """
        rows, real = last_rows(pairs, self._options.max_context)
        real = torch.cat([real, real], dim=1)
        if len(pairs):
            codes = [F.embedding(rows, chosen) + self.preference, F.embedding(rows, rejected) - self.preference]
            points = self.rest(torch.cat(codes, dim=1))
        else:
            points = chosen.new_zeros(*real.shape, self._options.point_dim)
        read = []
        for layer in self.layers:
            read.append(points * real[:, :, None])
            points = layer(points, points, real)
        return torch.cat([torch.stack(read, dim=1).flatten(1), real.to(points.dtype)], dim=1)

    def outputs(self, codes: Tensor, states: Tensor) -> Tensor:
        """Return the rewards [U, T] of T responses with codes [U, T, D] for each of U states."""
        options = self._options
        num_points = 2 * options.max_context
        read, real = states[:, :-num_points], states[:, -num_points:] > 0.5
        read = read.view(-1, options.num_layers, num_points, options.point_dim)
        points = self.rest(codes)
        for number, layer in enumerate(self.layers):
            points = layer(points, read[:, number], real)
        rewards: Tensor = self.head(points).squeeze(2)
        return rewards

    def loss(self, batch: Pairs, step: Step) -> Tensor:
        pairs, shown = episode(batch, self._options.least_context, step.generator)
        chosen, rejected = self.codes(pairs)
        states = self.context(pairs.take(shown), chosen[shown], rejected[shown])
        targets = pairs.take(~shown)
        return targets.mean(bradley_terry(self._margins(targets, chosen[~shown], rejected[~shown], states)))

    def margins(self, pairs: Pairs, states: Tensor) -> Tensor:
        return self._margins(pairs, *self.codes(pairs), states)

    def _margins(self, pairs: Pairs, chosen: Tensor, rejected: Tensor, states: Tensor) -> Tensor:
        return margins_by_user(pairs, chosen, rejected, lambda codes: self.outputs(codes, states))

    def encode(self, texts: Texts) -> Tensor:
        codes: Tensor = self.read(texts.features)
        return codes

    def combine(self, codes: Tensor, users: Tensor) -> Tensor:
        return self.outputs(codes[:, None], users).squeeze(1)

    def seen_states(self, train: Pairs) -> Tensor:
        return self.place(train).states

    @torch.no_grad()
    def place(self, support: Pairs) -> Placed:
        return Placed(self.context(support, *self.codes(support)), "in-context")

    def stranger(self, seen: Tensor) -> Tensor:
        return seen.new_zeros(seen.shape[1])


def last_rows(pairs: Pairs, num_rows: int) -> tuple[Tensor, Tensor]:
    """Return each user's last comparisons [U, `num_rows`], padded with 0, and which of them are real."""
    rows, real = pairs.by_user()
    counts = real.sum(1)
    places = (counts - num_rows).clamp_min(0)[:, None] + torch.arange(num_rows)
    padded = F.pad(rows, (0, max(0, num_rows - rows.shape[1])))
    return padded.gather(1, places.clamp_max(padded.shape[1] - 1)), places < counts[:, None]
