from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from copl.errors import BackboneError
from copl.records import PreferenceData, TokenBatch
from copl.reward.backbones.loaded import LoadedBackbone, collate, encode_responses
from copl.reward.reading import cached
from copl.reward.reading.cached import FrozenTrunk, HiddenCache, check_replay
from copl.reward.reading.features import frozen_pass, length_batches
from copl.reward.training.train import UserVectors
from copl.system.progress import SilentProgress

Make = Callable[[str], LoadedBackbone]
Planted = tuple[PreferenceData, UserVectors]


def _hidden(backbone: LoadedBackbone, tokens: TokenBatch) -> torch.Tensor:
    output = backbone.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask)
    return output.last_hidden_state * tokens.attention_mask.unsqueeze(-1)


@pytest.mark.parametrize("kind", ["bert", "llama"])
@pytest.mark.parametrize("trainable", [1, 2])
def test_going_on_from_kept_states_equals_the_whole_pass(
    kind: str, trainable: int, make_backbone: Make, preferences: Planted, tmp_path: Path
) -> None:
    backbone, (data, _) = make_backbone(kind), preferences
    rows = np.arange(12)
    encoded = encode_responses(backbone, data.responses, rows, 64)
    trunk = FrozenTrunk(backbone.model, backbone.num_layers, trainable)
    kept = frozen_pass(backbone, encoded, trunk, directory=tmp_path, progress=SilentProgress()).kept
    assert kept is not None
    others = np.array([7, 2, 11])
    tokens = collate(encoded, others)
    with torch.no_grad():
        plain = _hidden(backbone, tokens)
        with trunk.replaying(kept.batch(others, tokens.attention_mask)):
            again = _hidden(backbone, tokens)
        assert torch.allclose(plain, again, atol=1e-5)
        assert torch.equal(_hidden(backbone, tokens), plain)  # nothing is left behind on the model


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


def test_pooled_features_do_not_depend_on_the_trunk(make_backbone: Make, preferences: Planted, tmp_path: Path) -> None:
    backbone, (data, _) = make_backbone("llama"), preferences
    encoded = encode_responses(backbone, data.responses, np.arange(20), 64)
    passes = [
        frozen_pass(backbone, encoded, trunk, directory=tmp_path, progress=SilentProgress()).pooled
        for trunk in (None, FrozenTrunk(backbone.model, backbone.num_layers, 2))
    ]
    assert torch.equal(*passes)


def test_states_beyond_memory_go_to_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached, "_IN_MEMORY_BYTES", 0)
    cache = HiddenCache(np.array([2, 3]), 4, torch.float32, tmp_path / "scratch")
    hidden, mask = torch.randn(2, 3, 4), torch.tensor([[0, 1, 1], [1, 1, 1]])
    cache.put(np.array([0, 1]), hidden, mask)
    assert any((tmp_path / "scratch").iterdir())
    back = cache.batch([1, 0], torch.tensor([[1, 1, 1], [1, 1, 0]]))
    assert torch.equal(back[0], hidden[1])
    assert torch.equal(back[1], torch.cat([hidden[0, 1:], torch.zeros(1, 4)]))


def test_an_unfit_number_of_layers_is_refused(make_backbone: Make) -> None:
    backbone = make_backbone("bert")
    for number in (0, 3, 4):
        with pytest.raises(BackboneError, match=r"reward\.trainable_layers"):
            FrozenTrunk(backbone.model, backbone.num_layers, number)
    with pytest.raises(BackboneError, match=r"set reward\.trainable_layers to 0"):
        FrozenTrunk(torch.nn.Linear(2, 2), 3, 1)


def test_a_model_that_cannot_be_cached_is_noticed(make_backbone: Make, preferences: Planted) -> None:
    backbone, (data, _) = make_backbone("bert"), preferences
    tokens = collate(encode_responses(backbone, data.responses, np.arange(3), 64), [0, 1, 2])
    trunk = FrozenTrunk(backbone.model, backbone.num_layers, 1)
    check_replay(backbone.model, trunk, tokens)
    seen: dict[str, torch.Tensor] = {}
    first, last = backbone.model.encoder.layer[0], backbone.model.encoder.layer[2]
    first.register_forward_hook(lambda module, args, output: seen.update(state=output))
    last.register_forward_hook(lambda module, args, output: output + seen["state"])  # a skip past the trunk
    with pytest.raises(BackboneError, match=r"set reward\.trainable_layers to 0"):
        check_replay(backbone.model, trunk, tokens)


def test_batches_by_length_hold_every_text_once() -> None:
    lengths = np.array([5, 50, 7, 30, 5, 200])
    batches = list(length_batches(lengths, tokens=60))
    assert sorted(np.concatenate(batches).tolist()) == list(range(6))
    assert [sorted(batch.tolist()) for batch in batches[:2]] == [[5], [1]]
    assert all(len(b) == 1 or len(b) * lengths[b].max() <= 60 for b in batches)
