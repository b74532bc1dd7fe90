"""The personal reward model: a transformer with a mixture of LoRA experts, gated by the user, and a head."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, final

import torch
from attrs import frozen
from torch import Tensor, nn

from copl.experts.adapter_files import SavedMixture
from copl.experts.mixture import MixtureOfLora
from copl.experts.per_layer import GatePerLayer
from copl.interfaces import ExpertGate
from copl.records import GateWeights, TokenBatch
from copl.reward.backbones.loaded import LoadedBackbone, pool
from copl.reward.heads import Head
from copl.reward.reading.packing import CHOSEN, REJECTED, PackedPairs, packed_inputs
from copl.reward.reading.reader import TextReader

_RATES = re.compile(r"drop|jitter")  # of whole layers and of routers too


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

    def apply(self, values: Tensor) -> Tensor:
        """Return the scaled values [N, K]."""
        return (values.float() - self.centre) / self.scale


@final
class PersonalRewardModel(nn.Module):
    """r(x, u): hidden state of x under the experts that the gate picks for u, then the head on both.

    User embeddings and pooled hidden states are scaled by fixed affine maps that belong to the model. A user whose
    embedding is the centre of the seen users gets the average user's reward. Without user embeddings (D = 0) this is
    the ordinary, unpersonalised reward model.

    A model whose mixture was read from disk opens its backbone when something has to pass it: what is known of texts
    already is scored by gate and head.

    Args:
        reader: owns the backbone.
        mixture: the mixture attached to that, or one as it was saved, to be put on it when it is needed.
        gate: weight of each routed expert, from the conditioned user; copied where every adapted module has its own.
        head: reward from features and conditioned user.
        users: scaling of user embeddings.
        features: scaling of pooled hidden states.
    """

    user_centre: Tensor
    user_scale: Tensor
    feature_centre: Tensor
    feature_scale: Tensor

    def __init__(
        self,
        reader: TextReader,
        mixture: MixtureOfLora | SavedMixture,
        gate: ExpertGate,
        head: Head,
        *,
        users: AffineScaling,
        features: AffineScaling,
    ) -> None:
        super().__init__()
        self.reader = reader
        self.num_gates = mixture.num_gates
        self.gate = _gate_for(mixture, gate)
        self._mixture = mixture
        if isinstance(mixture, MixtureOfLora):
            self.adapted = mixture.peft_model
        self.head = head
        for name, scaling in (("user", users), ("feature", features)):
            self.register_buffer(f"{name}_centre", scaling.centre.float())
            self.register_buffer(f"{name}_scale", scaling.scale.float())

    @property
    def embedding_dim(self) -> int:
        """Dimension D of the user embeddings; 0 where the model takes no notice of users."""
        return len(self.user_centre)

    @property
    def mixture(self) -> MixtureOfLora:
        """The mixture, on the backbone.

        Raises:
            BackboneError: the backbone is missing or damaged.
            RunError: the mixture was made for another one.
        """
        if isinstance(self._mixture, SavedMixture):
            self._mixture = MixtureOfLora.restore(self.reader.backbone.model, self._mixture)
            self.adapted = self._mixture.peft_model.to(self.device).train(self.training)
        return self._mixture

    @property
    def transformer(self) -> nn.Module:
        """The backbone with the adapters of the mixture on it."""
        return self.mixture.peft_model

    @property
    def backbone(self) -> LoadedBackbone:
        """The transformer under it, with what there is to know of it."""
        return self.reader.backbone

    @property
    def max_length(self) -> int:
        """Limit in tokens of prompt and response together."""
        return self.reader.max_length

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
        inputs = {"input_ids": tokens.input_ids, "attention_mask": tokens.attention_mask}
        hidden = self.outputs(inputs, weights, kept).last_hidden_state
        return self.scaled(pool(hidden, tokens.attention_mask, self.backbone.pooling))

    def pair_features(self, pairs: PackedPairs, weights: Tensor | None, kept: Tensor | None = None) -> Tensor:
        """Return the scaled, pooled hidden states [2 B, H] of B packed pairs: the chosen texts, then the rejected.

        Args:
            pairs: the pairs.
            weights: expert weights of the users of the pairs [B, M]; None without routed experts.
            kept: hidden states [B, L, H] to go on from, where the model has a trunk.
        """
        hidden = self.outputs(packed_inputs(self.backbone.model, pairs), weights, kept).last_hidden_state
        pooled = [pool(hidden, pairs.own(segment), self.backbone.pooling) for segment in (CHOSEN, REJECTED)]
        return self.scaled(torch.cat(pooled))

    def scaled(self, pooled: Tensor) -> Tensor:
        """Return pooled hidden states [B, H] in the head's scale."""
        return (pooled.float() - self.feature_centre) / self.feature_scale

    def outputs(self, inputs: Mapping[str, Any], weights: Tensor | None, kept: Tensor | None = None) -> Any:
        """Return what the transformer returns, its ``last_hidden_state`` [B, L, H] among it.

        Args:
            inputs: its arguments.
            weights: expert weights [B, M]; None without routed experts.
            kept: hidden states [B, L, H] to go on from, where the model has a trunk.
        """
        self.mixture.set_weights(weights)
        trunk = self.reader.trunk
        if kept is None or trunk is None:
            return self.transformer(**inputs)
        with trunk.replaying(kept):
            return self.transformer(**inputs)

    def told(self, conditioned: Tensor, weights: Tensor | None) -> Tensor:
        """Return what the head is told of users: themselves [B, D], or the weights of their experts [B, M].

        Args:
            conditioned: the users [B, D].
            weights: their expert weights, of all gates [B, G M]; the head is told the mean over the gates.
        """
        if not self.head.reads_gate:
            return conditioned
        assert weights is not None
        return self._over_gates(weights)

    def level(self, told: Tensor) -> Tensor:
        """Return the reward [B] of the average text for users of whom the head is `told` this [B, K].

        Features are centred for the head's sake. Adding this back leaves margins as they are and makes the reward
        of a head that is linear in the features linear in the hidden state itself, with no offset of the user's.
        """
        if not self.head.linear_in_features:
            return told.new_zeros(len(told))
        average = (self.feature_centre / self.feature_scale).expand(len(told), -1)
        rewards: Tensor = self.head(average, told)
        return rewards

    def forward(self, tokens: TokenBatch, users: Tensor) -> Tensor:
        """Return the rewards [B] of B responses for the users with embeddings [B, D], in the encoder's scale."""
        conditioned = self.condition(users)
        weights = self.route(conditioned).weights if self.gate.num_experts else None
        told = self.told(conditioned, weights)
        rewards: Tensor = self.head(self.features(tokens, weights), told) + self.level(told)
        return rewards

    @torch.no_grad()
    def gate_weights(self, users: Tensor) -> Tensor | None:
        """Return what `MixtureOfLora.set_weights` takes for user embeddings [U, D]: [U, M], or [U, G M] for G gates."""
        if self.gate.num_experts == 0:
            return None
        training = self.gate.training
        self.gate.eval()
        weights = self.route(self.condition(users.to(self.device))).weights.cpu()
        self.gate.train(training)
        return weights

    @torch.no_grad()
    def tell(self, users: Tensor) -> Tensor:
        """Return what the head is told of the users with embeddings [U, D], as in scoring: [U, K]."""
        weights = self.gate_weights(users) if self.head.reads_gate else None
        return self.told(self.condition(users.to(self.device)), None if weights is None else weights.to(self.device))

    def expert_weights(self, users: Tensor) -> Tensor | None:
        """Return the gate weights [U, M] of user embeddings [U, D], or None without routed experts.

        Where every adapted module has a gate of its own, this is the mean over the gates.
        """
        weights = self.gate_weights(users)
        if weights is None:
            return None
        return self._over_gates(weights)

    def _over_gates(self, weights: Tensor) -> Tensor:
        return weights.reshape(len(weights), self.num_gates, weights.shape[1] // self.num_gates).mean(dim=1)


def _gate_for(mixture: MixtureOfLora | SavedMixture, gate: ExpertGate) -> ExpertGate:
    if mixture.options.gates == "one" or gate.num_experts == 0:
        return gate
    with torch.random.fork_rng(devices=[]):
        return GatePerLayer(gate, mixture.num_gates)


def silence_dropout(model: nn.Module) -> None:
    """Turn off a frozen transformer's own dropout, for good: it would only add noise to what does not learn.

    Many models drop by functions, whose rates they keep in their modules and read from their configuration.
    """
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for keeper in (module, getattr(module, "config", None)):
            for name, value in list(getattr(keeper, "__dict__", {}).items()):
                if isinstance(value, float) and _RATES.search(name):
                    setattr(keeper, name, 0.0)
