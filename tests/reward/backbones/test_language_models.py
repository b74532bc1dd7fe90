"""Language models as directories: the packaged one generates and trains, and what does not write is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from copl.errors import BackboneError
from copl.reward.backbones.language_models import language_model_directory
from copl.reward.backbones.names import PACKAGED_WRITER


def test_a_directory_is_taken_as_it_is(tiny_model: Path) -> None:
    assert language_model_directory(tiny_model) == tiny_model


def test_what_does_not_write_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig

    with pytest.raises(BackboneError, match=r"no complete model: it lacks config\.json"):
        language_model_directory(tmp_path)
    with pytest.raises(BackboneError, match="no model directory"):
        language_model_directory(tmp_path / "none")
    BertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1).save_pretrained(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(BackboneError, match="type bert, which does not write"):
        language_model_directory(tmp_path)


@pytest.mark.weights
def test_the_packaged_model_generates_and_trains() -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    directory = language_model_directory(PACKAGED_WRITER)
    model = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(directory)
    asked = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(asked, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    written = model.generate(**inputs, max_new_tokens=12, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0, inputs["input_ids"].shape[1] :])
    loss = model(input_ids=written, labels=written).loss
    loss.backward()
    gradient = model.get_input_embeddings().weight.grad
    assert gradient is not None
    assert float(gradient.norm()) > 0
