"""A frozen transformer says the same in training, however it drops."""

from __future__ import annotations

import pytest
import torch

from benchmarks.tiny_models import tiny_model
from copl.reward.model import silence_dropout

RATES = {
    "bert": ("hidden_dropout_prob", "attention_probs_dropout_prob"),
    "opt": ("dropout", "attention_dropout", "layerdrop"),
    "gpt_neox": ("hidden_dropout", "attention_dropout"),
    "phi": ("resid_pdrop", "embd_pdrop", "attention_dropout"),
    "bloom": ("hidden_dropout", "attention_dropout"),
    "falcon": ("hidden_dropout", "attention_dropout"),
    "modernbert": ("attention_dropout", "embedding_dropout", "mlp_dropout"),
    "xglm": ("dropout", "attention_dropout", "activation_dropout", "layerdrop"),
    "biogpt": ("hidden_dropout_prob", "attention_probs_dropout_prob", "activation_dropout", "layerdrop"),
    "mixtral": ("attention_dropout", "router_jitter_noise"),
}


@pytest.mark.parametrize("model_type", RATES)
@torch.no_grad()
def test_silenced_models_say_the_same_in_training(model_type: str) -> None:
    model = tiny_model(model_type, **dict.fromkeys(RATES[model_type], 0.5))
    ids = torch.arange(20).view(2, 10) + 7
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False}
    if model_type == "bert":
        del inputs["use_cache"]
    plain = model(**inputs).last_hidden_state
    model.train()
    assert not torch.allclose(model(**inputs).last_hidden_state, plain, atol=1e-3)
    silence_dropout(model)
    for _ in range(2):
        torch.testing.assert_close(model(**inputs).last_hidden_state, plain)
