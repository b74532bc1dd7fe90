from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from copl.errors import BackboneError
from copl.records import PreferenceData, TokenBatch
from copl.reward.backbones.loaded import LoadedBackbone, collate, encode_responses
from copl.reward.reading.trunk import FrozenTrunk, check_replay
from copl.reward.training.user_vectors import UserVectors

Make = Callable[[str], LoadedBackbone]
Planted = tuple[PreferenceData, UserVectors]


def _hidden(backbone: LoadedBackbone, tokens: TokenBatch) -> torch.Tensor:
    output = backbone.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
    return output.last_hidden_state * tokens.attention_mask.unsqueeze(-1)


def test_the_frozen_layers_are_really_skipped(make_backbone: Make, preferences: Planted) -> None:
    backbone, (data, _) = make_backbone("bert"), preferences
    tokens = collate(encode_responses(backbone, data.responses, np.arange(3), 64), [0, 1, 2])
    trunk = FrozenTrunk(backbone.model, backbone.num_layers, 1)
    with trunk.keeping() as kept:
        _hidden(backbone, tokens)
    with torch.no_grad():
        for layer in backbone.model.encoder.layer[:2]:
            for parameter in layer.parameters():
                parameter.fill_(torch.nan)
        with trunk.replaying(kept[0]):
            assert torch.isfinite(_hidden(backbone, tokens)).all()


def test_the_layers_above_are_really_skipped(make_backbone: Make, preferences: Planted) -> None:
    backbone, (data, _) = make_backbone("bert"), preferences
    tokens = collate(encode_responses(backbone, data.responses, np.arange(3), 64), [0, 1, 2])
    trunk = FrozenTrunk(backbone.model, backbone.num_layers, 1)
    with trunk.keeping() as kept:
        plain = _hidden(backbone, tokens)
    with torch.no_grad():
        for parameter in backbone.model.encoder.layer[2].parameters():
            parameter.fill_(torch.nan)
        with trunk.alone(), trunk.keeping() as alone:
            assert torch.isfinite(_hidden(backbone, tokens)).all()
        assert not torch.isfinite(_hidden(backbone, tokens)).any(-1).all()  # nothing is left behind on the model
    assert torch.isfinite(plain).all()
    assert torch.equal(kept[0], alone[0])


def test_an_unfit_number_of_layers_is_refused(make_backbone: Make) -> None:
    backbone = make_backbone("bert")
    for number in (0, 3, 4):
        with pytest.raises(BackboneError, match=r"reward\.trainable_layers"):
            FrozenTrunk(backbone.model, backbone.num_layers, number)
    with pytest.raises(BackboneError, match=r"set reward\.trainable_layers to 0"):
        FrozenTrunk(torch.nn.Linear(2, 2), 3, 1)


def test_a_model_that_cannot_be_cached_is_noticed(make_backbone: Make) -> None:
    backbone = make_backbone("bert")
    trunk = FrozenTrunk(backbone.model, backbone.num_layers, 1)
    check_replay(backbone.model, trunk)
    seen: dict[str, torch.Tensor] = {}
    first, last = backbone.model.encoder.layer[0], backbone.model.encoder.layer[2]
    first.register_forward_hook(lambda module, args, output: seen.update(state=output))
    last.register_forward_hook(lambda module, args, output: output + seen["state"])  # a skip past the trunk
    with pytest.raises(BackboneError, match=r"set reward\.trainable_layers to 0"):
        check_replay(backbone.model, trunk)
