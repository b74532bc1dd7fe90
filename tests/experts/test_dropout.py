from __future__ import annotations

import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaModel

from copl.experts.dropout import SixteenBitDropout
from copl.experts.mixture import MixtureOfLora
from copl.experts.options import MixtureOptions


def dropped(p: float, *shape: int, seed: int = 0) -> Tensor:
    torch.manual_seed(seed)
    return SixteenBitDropout(p)(torch.ones(shape))


@example(p=2**-16 - 2**-20, shape=[3], dtype=torch.float32)
@example(p=2**-16, shape=[3], dtype=torch.float32)
@given(
    p=st.floats(0.0, 1.0),
    shape=st.lists(st.integers(0, 5), max_size=3),
    dtype=st.sampled_from([torch.float32, torch.bfloat16]),
)
def test_what_is_left_is_scaled_so_that_the_mean_stays(p: float, shape: list[int], dtype: torch.dtype) -> None:
    values = torch.full(shape, 3.0, dtype=dtype)
    result = SixteenBitDropout(p)(values)
    assert (result.shape, result.dtype) == (values.shape, dtype)
    share = int(65536 * p) / 65536 if p >= 2**-16 else p
    kept = result[result != 0]
    torch.testing.assert_close(kept, torch.full_like(kept, 3.0 / (1.0 - share) if share < 1 else 0.0))
    assert torch.equal(values, torch.full(shape, 3.0, dtype=dtype))


@pytest.mark.parametrize("p", [0.05, 0.1, 0.5, 0.9])
def test_every_fourth_element_is_dropped_as_often_as_any_other_and_apart_from_its_neighbour(p: float) -> None:
    gone = (dropped(p, 100_000, 4) == 0).double()
    five_errors = 5 * (p * (1 - p) / 100_000) ** 0.5
    assert (gone.mean(dim=0) - p).abs().max() < five_errors
    correlations = torch.corrcoef(gone.T) - torch.eye(4)
    assert correlations.abs().max() < 5 / 100_000**0.5
    along = torch.corrcoef(torch.stack([gone.flatten()[:-1], gone.flatten()[1:]]))[0, 1]
    assert along.abs() < 5 / 400_000**0.5


def test_the_gradient_is_dropped_where_the_value_is() -> None:
    torch.manual_seed(0)
    values = torch.randn(7, 9, requires_grad=True)
    result = SixteenBitDropout(0.25)(values)
    result.backward(torch.full_like(result, 2.0))
    assert values.grad is not None
    torch.testing.assert_close(result.detach(), values.detach() * values.grad / 2)
    kept = values.grad[values.grad != 0]
    assert 0 < len(kept) < values.numel()
    torch.testing.assert_close(kept, torch.full_like(kept, 2 / 0.75))


def test_the_mask_is_the_seeds() -> None:
    assert torch.equal(dropped(0.5, 50, seed=1), dropped(0.5, 50, seed=1))
    assert not torch.equal(dropped(0.5, 50, seed=1), dropped(0.5, 50, seed=2))


def test_nothing_is_dropped_but_in_training() -> None:
    values = torch.randn(50)
    assert torch.equal(SixteenBitDropout(0.5).eval()(values), values)


@pytest.mark.parametrize("checkpointing", [False, True])
def test_the_mixture_drops_by_it_and_a_recomputed_layer_drops_the_same(checkpointing: bool) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    torch.manual_seed(0)
    backbone = LlamaModel(LlamaConfig(vocab_size=50, num_key_value_heads=2, **sizes))
    options = MixtureOptions(shared_rank=2, expert_rank=2, dropout=0.5)
    model = MixtureOfLora.attach(backbone, options, num_experts=0, target_modules=("q_proj",)).peft_model.train()
    masks: list[Tensor] = []
    found = [module for module in model.modules() if isinstance(module, nn.Dropout)]
    assert [type(module) for module in found] == [SixteenBitDropout] * 2
    found[0].register_forward_hook(lambda _, inputs, output: masks.append(output.detach() == 0))
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    model(input_ids=torch.arange(12).view(2, 6)).last_hidden_state.sum().backward()
    assert len(masks) == 1 + checkpointing
    assert all(torch.equal(mask, masks[0]) for mask in masks)
    assert 0.3 < masks[0].float().mean() < 0.7
