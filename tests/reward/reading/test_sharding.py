"""Frozen weights split up among processes: the same hidden states and gradients as of whole ones.

Run as a script, this file makes the comparison in two processes, which share what has been imported.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing import start_processes
from torch.profiler import profile
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, PreTrainedTokenizerFast

from copl.errors import OptionsError
from copl.experts.mixture import MixtureOfLora
from copl.experts.options import MixtureOptions
from copl.reward.backbones.loaded import LoadedBackbone, prepare_backbone
from copl.reward.reading.sharding import split_weights
from copl.reward.reading.trunk import FrozenTrunk
from copl.reward.store import describe_backbone
from copl.system.processes import num_processes, wait

SIZE = {
    "vocab_size": 40,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
    "initializer_range": 0.2,
}
KINDS = {
    "llama": lambda: LlamaModel(LlamaConfig(**SIZE, num_key_value_heads=2)),
    "bert": lambda: BertModel(BertConfig(**SIZE), add_pooling_layer=False),
}


@pytest.mark.slow
def test_two_processes_with_half_the_weights_each_compute_the_same(tiny_model: Path) -> None:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, str(tiny_model)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", ["FSDP_OFFLOAD_PARAMS", "FSDP_ACTIVATION_CHECKPOINTING"])
def test_what_is_not_done_is_refused(name: str, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "true")
    with pytest.raises(OptionsError, match=f"the launcher sets {name}: .*set it to false"):
        split_weights(_backbone("llama", tiny_model))


def _backbone(kind: str, tokenizer: Path) -> LoadedBackbone:
    torch.manual_seed(0)
    return prepare_backbone(KINDS[kind](), PreTrainedTokenizerFast.from_pretrained(tokenizer))


def _pass(
    backbone: LoadedBackbone, trainable: int, *, checkpointing: bool, watched: bool
) -> tuple[list[Tensor], dict[str, Tensor], set[str]]:
    """Return hidden states without and with adapters, the gradients of the adapters, and what was gathered for them."""
    inputs = {"input_ids": torch.arange(24).reshape(4, 6) + 5, "attention_mask": torch.ones(4, 6, dtype=torch.long)}
    trunk = FrozenTrunk(backbone.model, backbone.num_layers, trainable)
    with torch.no_grad(), trunk.keeping() as kept:
        plain = backbone.model(**inputs).last_hidden_state
    torch.manual_seed(0)
    mixture = MixtureOfLora.attach(
        backbone.model,
        MixtureOptions(dropout=0.0),
        num_experts=2,
        target_modules=backbone.target_modules,
        layers=trunk.layers,
    )
    for name, parameter in mixture.peft_model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    if checkpointing:
        enable = getattr(backbone.model, "activation_checkpointing_enable", None)
        (enable or backbone.model.gradient_checkpointing_enable)({"use_reentrant": False})
    mixture.peft_model.train()
    mixture.set_weights(torch.tensor([[0.2, 0.8], [1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    with profile() if watched else nullcontext() as steps:
        with trunk.replaying(kept[0]):
            adapted = mixture.peft_model(**inputs).last_hidden_state
        adapted.square().sum().backward()
    gradients = {name: p.grad for name, p in mixture.peft_model.named_parameters() if p.grad is not None}
    events = [] if steps is None else steps.events()  # which takes as long as all the rest
    gathered = {event.name for event in events if event.name.startswith("FSDP::all_gather")}
    return [plain, adapted.detach()], gradients, gathered


def _compare(tokenizer: Path) -> None:
    wait()
    for kind, trainable, checkpointing in (("llama", 1, False), ("llama", 2, True), ("bert", 2, False)):
        whole, split = _backbone(kind, tokenizer), _backbone(kind, tokenizer)
        card = describe_backbone(whole)
        split_weights(split)
        assert describe_backbone(split) == card
        kept = sum(p.to_local().numel() for p in split.model.parameters())
        assert kept * num_processes() == pytest.approx(sum(p.numel() for p in whole.model.parameters()), rel=0.01)
        states, gradients, _ = _pass(whole, trainable, checkpointing=checkpointing, watched=False)
        again, also, gathered = _pass(split, trainable, checkpointing=checkpointing, watched=True)
        for one, other in zip(states, again, strict=True):
            torch.testing.assert_close(other, one, rtol=0, atol=1e-6)
        assert gradients
        assert also.keys() == gradients.keys()
        for name, gradient in gradients.items():
            torch.testing.assert_close(also[name], gradient, rtol=1e-5, atol=1e-6 * float(gradient.abs().max()))
        layers = {n for n in range(3) if any(f".{n}." in name for name in gathered)}
        assert layers == set(range(3 - trainable, 3)), gathered  # those that are skipped stay where they are


def _process(rank: int, port: int, tokenizer: Path) -> None:
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank)}  # what a launcher sets
    _compare(tokenizer)


if __name__ == "__main__":
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = int(free.getsockname()[1])
    start_processes(_process, (number, Path(sys.argv[1])), nprocs=2, start_method="fork")
