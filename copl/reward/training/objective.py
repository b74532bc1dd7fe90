"""The loss of a batch of comparisons."""

from __future__ import annotations

from typing import Required, TypedDict, Unpack, final

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from copl.bradley_terry import bradley_terry_loss
from copl.records import TokenBatch
from copl.reward.model import PersonalRewardModel
from copl.reward.reading.packing import PackedPairs
from copl.reward.training.batches import alike


class RewardBatch(TypedDict, total=False):
    """A batch of comparisons, as the collators make it.

    The texts come one by one (`input_ids`, `attention_mask`, `place`, `reader`), as packed pairs (`input_ids`,
    `segments`, `position_ids`), or as their frozen features (`pooled`, `place`).

    Attributes:
        users: user embeddings [B, D].
        weight: weight of each comparison [B].
        input_ids: tokens of the texts [T, L] or pairs [B, L].
        attention_mask: mask of the texts [T, L].
        place: which text is the chosen one of each comparison, then which the rejected one [2 B].
        reader: which comparison's user reads each text [T].
        user_rows: row of the user of each comparison [B], where users are trained along.
        kept: hidden states to go on from [T, L, H] or [B, L, H].
        segments: which text the tokens of packed pairs belong to [B, L].
        position_ids: places of the tokens of packed pairs [B, L].
        pooled: frozen features [T, H].
    """

    users: Required[Tensor]
    weight: Required[Tensor]
    input_ids: Tensor
    attention_mask: Tensor
    place: Tensor
    reader: Tensor
    user_rows: Tensor
    kept: Tensor
    segments: Tensor
    position_ids: Tensor
    pooled: Tensor


@final
class BradleyTerryObjective(nn.Module):
    """Mean of -log sigma(r_chosen - r_rejected), weighted, plus the gate's own loss; one forward pass for all texts.

    Args:
        model: the reward model.
        trained_users: initial embeddings [U, D] of users that are to be trained along, in the encoder's scale.
        in_parts: whether texts of a batch may be read in parts of similar length. Not where activations are recomputed:
            the experts' weights of the last part would then serve all.
    """

    user_table: nn.Parameter | None

    def __init__(
        self, model: PersonalRewardModel, trained_users: Tensor | None = None, *, in_parts: bool = True
    ) -> None:
        super().__init__()
        self.model = model
        self.in_parts = in_parts
        # In the model's own scale, so that the learning rate means the same whatever the encoder.
        table = None if trained_users is None else nn.Parameter(model.condition(trained_users.to(model.device)))
        self.register_parameter("user_table", table)

    def trained_users(self) -> Tensor | None:
        """Return the embeddings [U, D] of the users trained along as they are now, in the encoder's scale."""
        if self.user_table is None:
            return None
        table = self.user_table.detach() * self.model.user_scale + self.model.user_centre
        return table.cpu()

    def forward(self, **batch: Unpack[RewardBatch]) -> dict[str, Tensor]:
        """Return the ``loss`` [] and the ``margins`` [B]."""
        model = self.model
        if self.user_table is not None and (rows := batch.get("user_rows")) is not None:
            conditioned = F.embedding(rows, self.user_table)
        else:
            conditioned = model.condition(batch["users"])
        gate = model.route(conditioned)
        weights = gate.weights if model.gate.num_experts else None
        features = self._features_of(batch, weights)
        told = model.told(conditioned, weights)
        rewards = model.head(features, torch.cat([told, told]))
        chosen, rejected = rewards.chunk(2)
        margins = chosen - rejected
        return {"loss": bradley_terry_loss(margins, batch["weight"]) + gate.aux_loss, "margins": margins}

    def _features_of(self, batch: RewardBatch, weights: Tensor | None) -> Tensor:
        """Return the features [2 B, H] of the texts of a batch, the chosen ones first."""
        model, kept = self.model, batch.get("kept")
        if batch.get("segments") is not None:
            pairs = PackedPairs(batch["input_ids"], batch["segments"], batch["position_ids"])
            return model.pair_features(pairs, weights, kept)
        if batch.get("pooled") is not None:
            features = model.scaled(batch["pooled"])
        else:
            own = None if weights is None else F.embedding(batch["reader"], weights)
            features = self._features(TokenBatch(batch["input_ids"], batch["attention_mask"]), own, kept)
        # Not features[place]: with several threads the gradient of indexing adds up in no fixed order.
        return F.embedding(batch["place"], features)

    def _features(self, tokens: TokenBatch, weights: Tensor | None, kept: Tensor | None) -> Tensor:
        """Return the features [T, H] of texts, those of similar length read together."""
        parts = alike(tokens.attention_mask) if self.in_parts else []
        if len(parts) <= 1:
            return self.model.features(tokens, weights, kept)
        features = []
        for rows in parts:
            width = int(tokens.attention_mask[rows].sum(dim=1).max())
            part = TokenBatch(tokens.input_ids[rows, :width], tokens.attention_mask[rows, :width])
            own = None if weights is None else F.embedding(rows, weights)
            features.append(self.model.features(part, own, None if kept is None else kept[rows, :width]))
        return F.embedding(torch.cat(parts).argsort(), torch.cat(features))
