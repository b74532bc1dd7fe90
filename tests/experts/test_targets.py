"""Which modules of a backbone are adapted."""

from __future__ import annotations

import pytest
import torch
from transformers import BertConfig, BertModel, PreTrainedModel

from benchmarks.tiny_models import byte_tokenizer, tiny_model
from copl.errors import BackboneError
from copl.experts.targets import default_target_modules, modules_called_otherwise, require_target_modules
from copl.reward.backbones.loaded import prepare_backbone


def called_otherwise(model: PreTrainedModel) -> set[str]:
    ids = torch.ones(2, 16, dtype=torch.long)
    with torch.no_grad(), modules_called_otherwise(model, 2) as names:
        model(input_ids=ids, attention_mask=torch.ones_like(ids))
    return names


@pytest.mark.parametrize(
    ("model_type", "expected", "otherwise"),
    [
        ("mpnet", ("q", "v"), set()),
        ("deberta", ("in_proj",), {"pos_proj", "pos_q_proj"}),
        ("deberta-v2", ("value_proj",), {"query_proj", "key_proj"}),  # which project relative positions too
        ("ctrl", ("Wq", "Wv"), set()),
        ("deepseek_v3", ("q_b_proj", "kv_b_proj"), set()),
        ("mamba", ("in_proj",), set()),
        ("longformer", (), {"query", "key", "value"}),  # tokens come first there
    ],
)
def test_query_and_value_projections_that_read_text_after_text(
    model_type: str, expected: tuple[str, ...], otherwise: set[str]
) -> None:
    model = tiny_model(model_type)
    names = called_otherwise(model)
    assert otherwise <= names
    assert default_target_modules(model, without=names) == expected
    assert prepare_backbone(model, byte_tokenizer(chat=False)).target_modules == expected


def test_where_names_tell_nothing_others_can_be_set() -> None:
    class Renamed(BertModel):
        def __init__(self, config: BertConfig) -> None:
            super().__init__(config)
            for layer in self.encoder.layer:
                layer.attention.self.wanted = layer.attention.self.query
                del layer.attention.self.query

    sizes = {"vocab_size": 30, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Renamed(BertConfig(**sizes, intermediate_size=16))
    assert default_target_modules(model) == ()
    with pytest.raises(BackboneError, match=r"set mixture.target_modules to some of .*: dense, key, value, wanted"):
        require_target_modules(model, ())
    require_target_modules(model, ("wanted", "value"))


def test_modules_that_cannot_differ_between_users_are_refused_with_those_that_can() -> None:
    model = tiny_model("deberta-v2")
    with pytest.raises(BackboneError, match="'query_proj' of DebertaV2Model does not read text after text") as error:
        require_target_modules(model, ("query_proj", "value_proj"), without=called_otherwise(model))
    assert error.value.faults[0].endswith("others are dense, value_proj")
