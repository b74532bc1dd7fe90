"""The reader: each distinct text passes the frozen layers once, whoever asks for what."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from copl.data.dataset import load_dataset
from copl.errors import RunError
from copl.experts.mixture import MixtureOfLora
from copl.experts.options import MixtureOptions
from copl.plugins import load
from copl.records import PreferenceData, ResponseTable
from copl.reward.backbones.loaded import LoadedBackbone, collate, encode_responses, pool
from copl.reward.options import RewardOptions
from copl.reward.reading import steady
from copl.reward.reading.reader import STAGE, TextReader
from copl.runs.caching import TEXTS, clear, entries
from copl.runs.recipe import Stages, resolve
from copl.runs.workspace import RunWorkspace
from copl.system.progress import SilentProgress

LENGTH = 48
OPTIONS = RewardOptions(max_length=LENGTH, trainable_layers=1)
TABLE = ResponseTable(["w1 w2", "w1 w2", "w3", ""], ["w4", "w5 w6 w7 w8", "w9 w1", "w2 w3"])


@pytest.fixture
def data(small_data: Path) -> PreferenceData:
    return load_dataset(small_data)


@pytest.fixture
def stages(tiny_model: Path) -> Stages:
    reward = {"max_length": LENGTH, "trainable_layers": 1}
    draft = {"method": {"name": "btl"}, "backbone": {"name": str(tiny_model)}, "reward": reward}
    return resolve(draft, load()).stages


class Layers:
    """Counts the tokens that pass each layer of a transformer."""

    def __init__(self, backbone: LoadedBackbone) -> None:
        (layers,) = [
            m for m in backbone.model.modules() if isinstance(m, torch.nn.ModuleList) and len(m) == backbone.num_layers
        ]
        self.passed = [0] * len(layers)
        for number, layer in enumerate(layers):
            self._count(number, layer)

    def _count(self, number: int, layer: Any) -> None:
        forward = type(layer).forward

        def counting(module: Any, hidden: Tensor, *args: Any, **kwargs: Any) -> Any:
            self.passed[number] += hidden.shape[0] * hidden.shape[1]
            return forward(module, hidden, *args, **kwargs)

        layer.__class__ = type("Counted", (type(layer),), {"forward": counting})


def plain(backbone: LoadedBackbone, table: ResponseTable, row: int) -> Tensor:
    tokens = collate(encode_responses(backbone, table, np.array([row]), LENGTH), [0])
    with torch.no_grad():
        hidden = backbone.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
    return pool(hidden, tokens.attention_mask, backbone.pooling)[0]


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_each_text_passes_each_layer_once_in_any_order_of_asking(
    kind: str, make_backbone: Callable[[str], LoadedBackbone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steady, "_WIDTH", 1)  # without padding
    monkeypatch.setattr(steady, "_ROWS", 1)
    reference = make_backbone(kind)
    for order in ("features first", "states first"):
        reader = TextReader.over(make_backbone(kind), OPTIONS)
        assert reader.trunk is not None  # proving that the layers can be skipped reads specimens
        assert reader.shares_prompts == (kind == "llama")
        lengths = reader.tokens(TABLE, np.arange(4)).lengths
        layers = Layers(reader.backbone)
        asked = np.array([3, 1, 3])
        if order == "states first":
            reader.states(TABLE, asked)
        features = reader.features(TABLE, asked)
        states = reader.states(TABLE, asked)
        assert layers.passed == [lengths[[3, 1]].sum()] * 3
        for place, row in enumerate(asked):
            torch.testing.assert_close(features[place], plain(reference, TABLE, row), atol=1e-5, rtol=1e-4)
        assert states is not None
        assert [len(states.text(place)) for place in range(3)] == reader.tokens(TABLE, asked).lengths.tolist()
        reader.features(TABLE, np.arange(4))
        assert layers.passed == [lengths.sum()] * 3


def test_without_adapted_layers_there_are_no_states(make_backbone: Callable[[str], LoadedBackbone]) -> None:
    for layers in (0, 3, 5):
        reader = TextReader.over(make_backbone("bert"), RewardOptions(trainable_layers=layers))
        assert reader.trunk is None
        assert reader.states(TABLE, np.arange(4)) is None
    assert TextReader.over(make_backbone("bert"), RewardOptions(mode="frozen")).trunk is None


def test_a_table_is_read_once_on_a_machine_whatever_the_order_of_its_texts(
    data: PreferenceData, stages: Stages, tmp_path: Path, listener: Any
) -> None:
    count = len(data.responses)
    backwards = ResponseTable(data.responses.prompts[::-1], data.responses.texts[::-1])
    fewer = ResponseTable(data.responses.prompts[1:], data.responses.texts[1:])
    more = ResponseTable([*data.responses.prompts, "What else?"], [*data.responses.texts, "Nothing."])
    found, rows = [], np.arange(count)
    for number, table in enumerate((data.responses, backwards, fewer, more)):
        (tmp_path / str(number)).mkdir()
        reader = TextReader.of(stages)
        reader.read(table, RunWorkspace(tmp_path / str(number), listener, tmp_path / "cache"))
        assert reader.states(table, rows[:-1]) is not None
        found.append(reader.features(table, rows[: len(table)]))
    assert listener.sizes == [count, 1]  # of the last table one text is new
    assert torch.equal(found[0].flip(0), found[1])
    assert torch.equal(found[0][1:], found[2])


@contextmanager
def cleared_at(number: int, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Clear the cache of texts, as another process would, before the call of this number that touches files, if any."""
    done: list[str] = []

    def watched(name: str, real: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            done.append(name)
            if len(done) == number:
                clear([entry for entry in entries(cache) if entry.kind == TEXTS], cache)  # a stage would be waited for
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for module, name in ((os, "mkdir"), (os, "rename"), (os, "replace"), (os, "rmdir"), (os, "open"), (io, "open")):
            patch.setattr(module, name, watched(name, getattr(module, name)))
        yield done


def test_clearing_the_cache_at_any_moment_disturbs_nobody_who_reads(
    data: PreferenceData, stages: Stages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = ResponseTable(data.responses.prompts[:4], data.responses.texts[:4])
    rows = np.arange(4)

    def read(number: int) -> tuple[list[str], Tensor]:
        cache, root = tmp_path / f"cache-{number}", tmp_path / f"run-{number}"
        root.mkdir()
        reader = TextReader.of(stages)
        _ = reader.backbone
        with cleared_at(number, cache, monkeypatch) as done:
            workspace = RunWorkspace(root, SilentProgress(), cache)
            reader.read(few, workspace)
            features = reader.features(few, rows)
        return done, features

    calls, right = read(0)
    assert len(calls) > 20
    for number in range(1, len(calls) + 1):
        assert torch.equal(read(number)[1], right), f"cleared before {number} of {calls}"


def test_the_features_of_a_run_need_no_backbone(data: PreferenceData, stages: Stages, tmp_path: Path) -> None:
    first, second = TextReader.of(stages), TextReader.of(stages)
    first.read(data.responses, RunWorkspace(tmp_path, SilentProgress()))
    second.load(tmp_path)
    rows = np.array([7, 3, 7])
    assert torch.equal(second.features(data.responses, rows), first.features(data.responses, rows))
    assert "backbone" not in vars(second)  # it was never loaded


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(Path.unlink, "missing; delete"), (lambda path: path.write_bytes(b"nonsense"), "damaged")],
)
def test_missing_and_damaged_files_are_errors_of_the_run(
    spoil: Callable[[Path], Any], said: str, data: PreferenceData, stages: Stages, tmp_path: Path
) -> None:
    TextReader.of(stages).read(data.responses, RunWorkspace(tmp_path, SilentProgress()))
    spoil(tmp_path / STAGE / "features.safetensors")
    with pytest.raises(RunError, match=said):
        TextReader.of(stages).load(tmp_path)


def test_adapters_put_on_the_backbone_do_not_show_and_are_left_as_they_were(
    make_backbone: Callable[[str], LoadedBackbone],
) -> None:
    reader, reference = TextReader.over(make_backbone("llama"), OPTIONS), make_backbone("llama")
    model = reader.backbone.model
    mixture = MixtureOfLora.attach(
        model, MixtureOptions(dropout=0.0), num_experts=2, target_modules=reader.backbone.target_modules, layers=(2,)
    )
    with torch.no_grad():
        for name, parameter in mixture.peft_model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    mixture.peft_model.requires_grad_(False).train()
    found = reader.features(TABLE, np.array([0, 2]))
    torch.testing.assert_close(found[1], plain(reference, TABLE, 2), atol=1e-5, rtol=1e-4)
    assert model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    mixture.set_weights(torch.tensor([[0.5, 0.5]]))
    model.eval()
    assert not torch.allclose(plain(reader.backbone, TABLE, 2), found[1], atol=1e-2)
    mixture.detach()
    assert torch.equal(plain(reader.backbone, TABLE, 2), plain(reference, TABLE, 2))
