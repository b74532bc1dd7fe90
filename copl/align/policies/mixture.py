"""A policy for everybody: a mixture of LoRA experts in the language model that speaks, gated by the user embedding.

The mixture is that of the reward model (`copl.experts.mixture`): one LoRA whose rank columns are masked for each user,
so that any user's voice is a plain LoRA. It is trained by direct preference optimisation (Rafailov et al. 2023, arXiv
2305.18290) on the rows of all users at once,

    loss = -log sigmoid(beta [(log p_u(y+|x) - log p(y+|x)) - (log p_u(y-|x) - log p(y-|x))]) - w log p_u(y+|x) / |y+|

with p_u the language model under the experts that the gate gives user u, and p the one without adapters. By the first
term alone both responses may become unlikely, as long as the rejected one does so faster, and the policy unlearns to
write; the second, of weight w (`likelihood`), works against that (Pang et al. 2024, arXiv 2404.19733; here the mean is
over all tokens of a batch, as in TRL's loss ``sft``). A user who was not there in training gets a voice by the gate,
from an embedding that a few comparisons gave, without a gradient step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from attrs import frozen
from torch import Tensor, nn

from copl.align.policies.options import CARD, MixtureDpoOptions
from copl.align.policies.writer import TokenPair, Writer, own_randomness
from copl.errors import RunError
from copl.experts.adapter_files import write_adapter
from copl.experts.gates.fixed import NoGate
from copl.experts.mixture import MixtureOfLora, adapters_off, user_slice
from copl.experts.options import MixtureOptions
from copl.experts.targets import default_target_modules
from copl.interfaces import ExpertGate
from copl.options import options_to_dict, parse_options
from copl.plugins import load
from copl.system.documents import read_document, write_document
from copl.system.files import new_directory
from copl.system.tensors import ANYTHING, floats, load_tensors, save_tensors

_FORMAT = "copl mixture policy"
_VERSION = 1
_ADAPTER, _GATE = "adapter", "gate.safetensors"
_AGAIN = "delete it and train the policy again"


@final
@frozen
class _CardFile:
    format: str
    version: int
    options: Mapping[str, Any]
    embedding_dim: int
    writer: str
    training: Mapping[str, Any]


@final
class MixturePolicy(nn.Module):
    """A language model that speaks as each user would have it.

    Attributes:
        writer: the language model, which carries the adapters.
        mixture: the adapters.
        gate: weight of each expert, from user embeddings that are centred and scaled.
        options: the options it was made with.
    """

    centre: Tensor
    scale: Tensor

    def __init__(
        self, writer: Writer, mixture: MixtureOfLora, gate: ExpertGate, options: MixtureDpoOptions, users: Tensor
    ) -> None:
        super().__init__()
        self.writer = writer
        self.mixture = mixture
        self.transformer = mixture.peft_model
        self.gate = gate
        self.options = options
        centre = users.float().mean(0) if len(users) else torch.zeros(users.shape[1])
        scale = (users.float() - centre).square().mean().sqrt() if users.numel() else torch.ones(())
        self.register_buffer("centre", centre)
        self.register_buffer("scale", scale.clamp_min(1e-12))

    @classmethod
    def start(cls, writer: Writer, users: Tensor, options: MixtureDpoOptions, *, seed: int) -> MixturePolicy:
        """Put fresh adapters, which change nothing yet, and a fresh gate on a language model.

        Args:
            writer: the language model; changed in place.
            users: embeddings of the seen users [U, D].
            options: experts and gate.
            seed: of the first weights.

        Raises:
            OptionsError: there is no such gate, or neither a shared nor a routed expert.
            BackboneError: it cannot be told which modules of the model to adapt.
        """
        with own_randomness(seed):
            gate = _gate(options, int(users.shape[1]))
            design = MixtureOptions(options.shared_rank, options.expert_rank, options.alpha, dropout=0.0)
            mixture = MixtureOfLora.attach(
                writer.model,
                design,
                num_experts=gate.num_experts,
                target_modules=default_target_modules(writer.model),
            )
            policy = cls(writer, mixture, gate, options, users)
            gate.bind(policy._scaled(users), [None] * len(users), seed=seed)
        return policy.to(writer.model.device).eval()

    def weights(self, users: Tensor) -> Tensor | None:
        """Return the weights of the experts for user embeddings [B, D], as the mixture takes them."""
        return self.decide(users)[0]

    def decide(self, users: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the weights of the experts [B, M], None without routed ones, and the gate's own loss []."""
        if self.gate.num_experts == 0:
            return None, self.centre.new_zeros(())
        decided = self.gate(self._scaled(users.to(self.centre.device)))
        return decided.weights, decided.aux_loss

    def likelihoods(self, pairs: Sequence[TokenPair], weights: Tensor | None) -> Tensor:
        """Return the log-likelihood [B] of each response under the experts of its user."""
        self.mixture.set_weights(weights)
        return self.speaker.likelihoods(pairs)

    @torch.no_grad()
    def reference(self, pairs: Sequence[TokenPair]) -> Tensor:
        """Return the log-likelihood [B] of each response by the language model without adapters."""
        with adapters_off(self.transformer):
            return self.speaker.likelihoods(pairs)

    @property
    def speaker(self) -> Writer:
        """The language model with its adapters, for whoever the weights were set."""
        return Writer(self.transformer, self.writer.tokenizer, self.writer.directory)

    @torch.no_grad()
    def voice(self, user: Tensor) -> bytes:
        """Return what is equal for users with embeddings [D] for whom it says the same: the weights of the experts."""
        weights = self.weights(user.unsqueeze(0))
        return b"" if weights is None else weights.float().cpu().numpy().tobytes()

    @contextmanager
    def speaking(self, user: Tensor) -> Iterator[Writer]:
        """Let it speak for the user with an embedding [D]."""
        with torch.no_grad():
            self.mixture.set_weights(self.weights(user.unsqueeze(0)))
        yield self.speaker

    def export(self, user: Tensor, directory: Path) -> int:
        """Write the voice of the user with an embedding [D] as a plain LoRA, and return its rank.

        Stock PEFT, transformers and vLLM load it onto the language model; no gate and no mask is needed any more.

        Args:
            user: the embedding.
            directory: where it goes; must not exist or be empty.
        """
        with torch.no_grad():
            weights = self.weights(user.unsqueeze(0))
        rank, config, tensors = user_slice(self.mixture, None if weights is None else weights[0])
        base = {"base_model_name_or_path": str(self.writer.directory), "task_type": "CAUSAL_LM"}
        with new_directory(directory) as fresh:
            write_adapter(fresh, config | base, tensors)
        return rank

    def save(self, directory: Path, training: Mapping[str, object]) -> None:
        """Write the policy; the card comes last and marks it as whole.

        Args:
            directory: where it goes.
            training: how training went, as plain JSON values.
        """
        self.mixture.save(directory / _ADAPTER)
        tensors = {f"gate.{name}": tensor for name, tensor in self.gate.state_dict().items()}
        save_tensors(directory / _GATE, {**tensors, "centre": self.centre, "scale": self.scale.reshape(1)})
        card = _CardFile(
            _FORMAT,
            _VERSION,
            options_to_dict(self.options),
            len(self.centre),
            self.writer.fingerprint,
            dict(training),
        )
        write_document(directory / CARD, card)

    @classmethod
    def load(cls, directory: Path, *, model: str | Path | None = None) -> MixturePolicy:
        """Read what `save` wrote.

        Args:
            directory: where it lies.
            model: where the language model lies now, if elsewhere.

        Raises:
            RunError: a file is missing, damaged, of another version, or the language model is another one.
            BackboneError: the language model is missing.
        """
        path = directory / CARD
        card = read_document(path, _CardFile, advice=_AGAIN, version={"format": _FORMAT, "version": _VERSION})
        options = parse_options(MixtureDpoOptions, card.options, where=f"{path}: options")
        writer = Writer.open(model or options.model)
        if writer.fingerprint != card.writer:
            raise RunError(f"{directory} was trained on another model than the one in {writer.directory}; {_AGAIN}")
        mixture = MixtureOfLora.load(writer.model, directory / _ADAPTER)
        with own_randomness(0):
            gate = _gate(options, card.embedding_dim)
        policy = cls(writer, mixture, gate, options, torch.zeros(0, card.embedding_dim))
        expected = {"centre": floats(card.embedding_dim), "scale": floats(1)}
        read = load_tensors(directory / _GATE, expected, others={"gate.": ANYTHING}, advice=_AGAIN)
        policy.centre.copy_(read["centre"])
        policy.scale.copy_(read["scale"][0])
        try:
            gate.load_state_dict({name: read.tensors[f"gate.{name}"] for name in gate.state_dict()})
        except (KeyError, RuntimeError) as error:
            raise RunError(f"{directory / _GATE} does not belong to the gate {options.gate!r}; {_AGAIN}") from error
        return policy.to(writer.model.device).eval()

    def _scaled(self, users: Tensor) -> Tensor:
        return (users.float() - self.centre) / self.scale


def _gate(options: MixtureDpoOptions, embedding_dim: int) -> ExpertGate:
    if options.num_experts == 0:
        return NoGate()
    registry = load().registry("gate")
    gate: ExpertGate = registry.create(options.gate, {"num_experts": options.num_experts}, embedding_dim=embedding_dim)
    return gate
