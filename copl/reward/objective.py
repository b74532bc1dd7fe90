"""The loss of a batch of comparisons."""

from __future__ import annotations

from typing import final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl.records import TokenBatch
from copl.reward.model import PersonalRewardModel


@final
class BradleyTerryObjective(nn.Module):
    """Mean of -log sigma(r_chosen - r_rejected), weighted, plus the gate's own loss; one forward pass for all texts."""

    def __init__(self, model: PersonalRewardModel) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        place: Tensor,
        users: Tensor,
        weight: Tensor,
        kept: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the ``loss`` [] and the ``margins`` [B].

        Args:
            input_ids: tokens of the texts [T, L].
            attention_mask: their mask [T, L].
            place: which text is the chosen one of each comparison, then which the rejected one [2 B].
            users: user embeddings [B, D].
            weight: weight of each comparison [B].
            kept: hidden states to go on from [T, L, H].
        """
        model = self.model
        conditioned = model.condition(users)
        gate = model.route(conditioned)
        twice = torch.cat([gate.weights, gate.weights]) if model.gate.num_experts else None
        features = model.features(TokenBatch(input_ids, attention_mask), twice, kept)
        # Not features[place]: with several threads the gradient of indexing adds up in no fixed order.
        rewards = model.head(F.embedding(place, features), torch.cat([conditioned, conditioned]))
        chosen, rejected = rewards.chunk(2)
        margins = chosen - rejected
        loss = (F.softplus(-margins) * weight).sum() / weight.sum().clamp_min(1e-12)
        return {"loss": loss + gate.aux_loss, "margins": margins}
