"""The personal reward model: a transformer with a mixture of LoRA experts, gated by the user, and a head."""

from __future__ import annotations

from typing import final

import torch
from attrs import frozen
from torch import Tensor, nn

from copl.experts.mixture import MixtureOfLora
from copl.interfaces import ExpertGate, RewardModel
from copl.records import GateWeights, TokenBatch
from copl.reward.backbone import LoadedBackbone, pool
from copl.reward.cached import FrozenTrunk
from copl.reward.heads import Head


@final
@frozen(eq=False)
class AffineScaling:
    """x -> (x - centre) / scale, fixed before training.

    Attributes:
        centre: what is subtracted [K].
        scale: what is divided by [K], positive.
    """

    centre: Tensor
    scale: Tensor

    @classmethod
    def of_users(cls, values: Tensor) -> AffineScaling:
        """Centre user embeddings [U, D] and give them a root mean square of 1 over all coordinates together.

        One scale for all coordinates keeps what the encoder says about their importance.
        """
        if values.numel() == 0:
            return cls(torch.zeros(values.shape[1]), torch.ones(values.shape[1]))
        centre = values.mean(0)
        rms = (values - centre).square().mean().sqrt().clamp_min(1e-12)
        return cls(centre, rms.expand(values.shape[1]).clone())

    @classmethod
    def of_features(cls, values: Tensor) -> AffineScaling:
        """Give every coordinate of the features [R, H] mean 0 and variance 1."""
        scale = values.std(0, correction=0)
        return cls(values.mean(0), scale.clamp_min(1e-3 * float(scale.mean()) + 1e-12))


@final
class PersonalRewardModel(RewardModel):
    """r(x, u): hidden state of x under the experts that the gate picks for u, then the head on both.

    User embeddings and pooled hidden states are scaled by fixed affine maps that belong to the model. A user whose
    embedding is the centre of the seen users gets the average user's reward. Without user embeddings (D = 0) this is
    the ordinary, unpersonalised reward model.

    Args:
        backbone: the loaded backbone, already carrying the adapters of `mixture`.
        mixture: the mixture attached to it.
        gate: weight of each routed expert, from the conditioned user.
        head: reward from features and conditioned user.
        users: scaling of user embeddings.
        features: scaling of pooled hidden states.
        trunk: the frozen layers, where only the top ones are adapted.
    """

    user_centre: Tensor
    user_scale: Tensor
    feature_centre: Tensor
    feature_scale: Tensor

    def __init__(
        self,
        backbone: LoadedBackbone,
        mixture: MixtureOfLora,
        gate: ExpertGate,
        head: Head,
        *,
        users: AffineScaling,
        features: AffineScaling,
        max_length: int,
        trunk: FrozenTrunk | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.mixture = mixture
        self.trunk = trunk
        self.max_length = max_length
        self.transformer = mixture.peft_model
        self.gate = gate
        self.head = head
        for name, scaling in (("user", users), ("feature", features)):
            self.register_buffer(f"{name}_centre", scaling.centre.float())
            self.register_buffer(f"{name}_scale", scaling.scale.float())

    @property
    def embedding_dim(self) -> int:
        """Dimension D of the user embeddings; 0 where the model takes no notice of users."""
        return len(self.user_centre)

    @property
    def device(self) -> torch.device:
        return self.user_centre.device

    def condition(self, users: Tensor) -> Tensor:
        """Return user embeddings [B, D] in the model's own scale."""
        return (users.float() - self.user_centre) / self.user_scale

    def route(self, conditioned: Tensor) -> GateWeights:
        """Return what the gate decides for conditioned users [B, D]."""
        weights: GateWeights = self.gate(conditioned)
        return weights

    def features(self, tokens: TokenBatch, weights: Tensor | None, kept: Tensor | None = None) -> Tensor:
        """Return the scaled, pooled hidden states [B, H] of B texts.

        Args:
            tokens: the texts.
            weights: expert weights [B, M]; None without routed experts.
            kept: hidden states [B, L, H] to go on from, where the model has a trunk.
        """
        self.mixture.set_weights(weights)
        arguments = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        if kept is None or self.trunk is None:
            hidden = self.transformer(**arguments).last_hidden_state
        else:
            with self.trunk.replaying(kept):
                hidden = self.transformer(**arguments).last_hidden_state
        pooled = pool(hidden, tokens.attention_mask, self.backbone.pooling).float()
        return (pooled - self.feature_centre) / self.feature_scale

    def forward(self, tokens: TokenBatch, users: Tensor) -> Tensor:
        """Return the rewards [B] of B responses for the users with embeddings [B, D], in the encoder's scale."""
        conditioned = self.condition(users)
        weights = self.route(conditioned).weights if self.gate.num_experts else None
        rewards: Tensor = self.head(self.features(tokens, weights), conditioned)
        return rewards

    @torch.no_grad()
    def expert_weights(self, users: Tensor) -> Tensor | None:
        """Return the gate weights [U, M] of user embeddings [U, D], or None without routed experts."""
        if self.gate.num_experts == 0:
            return None
        training = self.gate.training
        self.gate.eval()
        weights = self.route(self.condition(users.to(self.device))).weights.cpu()
        self.gate.train(training)
        return weights


def silence_dropout(model: nn.Module) -> None:
    """Turn off a frozen transformer's own dropout, for good: it would only add noise to what does not learn."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
