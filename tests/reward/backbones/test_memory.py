"""What a model keeps of what it has read goes by the installed transformers' own name for it."""

import inspect
import logging

import pytest
import torch
from transformers import LlamaConfig, LlamaModel

from copl.reward.backbones.memory import memory_argument, memory_of


def test_a_second_pass_goes_on_from_what_the_first_has_read(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = LlamaModel(
        LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, vocab_size=50)
    ).eval()
    assert memory_argument() in inspect.signature(inspect.unwrap(LlamaModel.forward)).parameters
    ids = torch.tensor([[3, 7, 11, 2, 5]])
    with caplog.at_level(logging.WARNING), torch.no_grad():
        whole = model(input_ids=ids).last_hidden_state
        read = model(input_ids=ids[:, :2], use_cache=True)
        rest = model(input_ids=ids[:, 2:], **{memory_argument(): memory_of(read)}, use_cache=True).last_hidden_state
        assert memory_of(model(input_ids=ids, use_cache=False)) is None
    torch.testing.assert_close(rest, whole[:, 2:])
    assert not caplog.records
