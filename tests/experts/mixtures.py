"""What the tests of the mixture have in common: small backbones with adapters of random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from peft import PeftModel
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2Model,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedModel,
    Qwen2Config,
    Qwen2Model,
)

from copl.experts.adapter_files import write_adapter
from copl.experts.mixture import MixtureOfLora, user_slice
from copl.experts.options import MixtureOptions
from copl.experts.targets import default_target_modules

SMALL = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
MODELS = {
    "llama": lambda: LlamaModel(LlamaConfig(**SMALL, num_key_value_heads=2)),
    "qwen2": lambda: Qwen2Model(Qwen2Config(**SMALL, num_key_value_heads=2)),
    "gemma2": lambda: Gemma2Model(Gemma2Config(**SMALL, num_key_value_heads=2, head_dim=8, pad_token_id=0)),
    "bert": lambda: BertModel(BertConfig(**SMALL)),
    "gpt2": lambda: GPT2Model(GPT2Config(vocab_size=50, n_embd=32, n_layer=2, n_head=4, n_positions=64)),
}
OPTIONS = MixtureOptions(shared_rank=2, expert_rank=3, alpha=6.0, dropout=0.0)
PER_LAYER = MixtureOptions(shared_rank=2, expert_rank=3, alpha=6.0, dropout=0.0, gates="per-layer")


def backbone(name: str = "llama", seed: int = 0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return MODELS[name]().eval()


def randomise(mixture: MixtureOfLora, seed: int = 1) -> MixtureOfLora:
    generator = torch.Generator().manual_seed(seed)
    for parameter in mixture.peft_model.parameters():
        if parameter.requires_grad:
            parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return mixture


def attached(
    name: str = "llama",
    options: MixtureOptions = OPTIONS,
    num_experts: int = 4,
    layers: tuple[int, ...] | None = None,
) -> MixtureOfLora:
    model = backbone(name)
    targets = default_target_modules(model)
    mixture = MixtureOfLora.attach(model, options, num_experts=num_experts, target_modules=targets, layers=layers)
    return randomise(mixture)


def tokens(batch: int = 3, length: int = 7) -> Tensor:
    return torch.randint(3, 50, (batch, length), generator=torch.Generator().manual_seed(5))


def hidden(model: nn.Module, ids: Tensor) -> Tensor:
    output: Tensor = model(input_ids=ids).last_hidden_state
    return output


def user_adapter(mixture: MixtureOfLora, weights: Tensor, directory: Path) -> int:
    """Write one user's slice as stock PEFT loads it; return its rank."""
    rank, config, tensors = user_slice(mixture, weights)
    write_adapter(directory, config, tensors)
    return rank


WEIGHTS = torch.tensor([[0.7, 0.0, 0.0, 0.0], [0.0, 0.0, 0.4, 0.0], [0.1, 0.2, 0.3, 0.4]])


def stock_peft(model: PreTrainedModel, directory: Path) -> PeftModel:
    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        return PeftModel.from_pretrained(model, directory)
