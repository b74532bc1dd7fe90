"""Passes that are the same for a text whatever is read beside it, and prompts that are read once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch

from copl.records import ResponseTable
from copl.reward.backbones.loaded import LoadedBackbone, collate, encode_responses, pool
from copl.reward.options import RewardOptions
from copl.reward.reading import kept, steady
from copl.reward.reading.kept import UnevenRows
from copl.reward.reading.reader import TextReader
from copl.reward.reading.steady import shares_prompts, steady_batches
from copl.system.abreast import compute_abreast

Make = Callable[[str], LoadedBackbone]
WORDS = " ".join(f"w{n}" for n in range(30))
TABLE = ResponseTable(
    ["w1 w2", "w1 w2", "w1 w2", "w3", "", WORDS], ["w4", "w5 w6 w7 w8", WORDS, "w9 w1", "w2 w3", "w4 w5"]
)
ROWS = np.arange(len(TABLE))


def reader_of(backbone: LoadedBackbone, trainable_layers: int, max_length: int = 48) -> TextReader:
    return TextReader.over(backbone, RewardOptions(max_length=max_length, trainable_layers=trainable_layers))


@pytest.mark.parametrize("kind", ["bert", "llama", "gpt2"])
@pytest.mark.parametrize("trainable_layers", [0, 1])
def test_a_text_has_the_same_features_alone_and_in_any_company(
    kind: str, trainable_layers: int, make_backbone: Make
) -> None:
    backbone = make_backbone(kind)
    together = reader_of(backbone, trainable_layers).features(TABLE, ROWS)
    for row in ROWS:
        alone = reader_of(backbone, trainable_layers).features(TABLE, np.array([row]))[0]
        torch.testing.assert_close(together[row], alone, atol=1e-6, rtol=0)
        tokens = collate(encode_responses(backbone, TABLE, np.array([row]), 48), [0])
        with torch.no_grad():
            hidden = backbone.model(input_ids=tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        plain = pool(hidden, tokens.attention_mask, backbone.pooling)[0]
        torch.testing.assert_close(together[row], plain, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("kind", "trainable_layers"), [("bert", 0), ("bert", 1), ("llama", 0), ("llama", 1)])
def test_texts_that_are_read_side_by_side_have_the_same_states(
    kind: str, trainable_layers: int, make_backbone: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steady, "_MANY", 0)
    one, other = (reader_of(make_backbone(kind), trainable_layers) for _ in range(2))

    def read() -> tuple[torch.Tensor, UnevenRows | None]:
        compute_abreast()
        return other.features(TABLE, ROWS), other.states(TABLE, ROWS)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with ThreadPoolExecutor(1) as thread:
            features, states = thread.submit(read).result(60)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(features, one.features(TABLE, ROWS), atol=1e-6, rtol=0)
    expected = one.states(TABLE, ROWS)
    assert (states is None) == (expected is None) == (trainable_layers == 0)
    if states is not None and expected is not None:
        torch.testing.assert_close(states.flat(ROWS), expected.flat(ROWS), atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", ["bert", "llama"])
def test_features_are_those_of_the_states_below_to_the_last_bit(kind: str, make_backbone: Make) -> None:
    at_once, in_two = (reader_of(make_backbone(kind), 1) for _ in range(2))
    features = at_once.features(TABLE, ROWS)
    states = in_two.states(TABLE, ROWS)
    assert torch.equal(features, in_two.features(TABLE, ROWS))
    kept_states = at_once.states(TABLE, ROWS)
    assert states is not None
    assert kept_states is not None
    assert torch.equal(kept_states.flat(ROWS), states.flat(ROWS))


def test_an_encoder_reads_a_new_text_in_one_go(make_backbone: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = make_backbone("bert")
    reader, calls = reader_of(backbone, 1), 0
    assert reader.trunk is not None
    assert not reader.shares_prompts
    forward = type(backbone.model).forward

    def counting(module: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        return forward(module, *args, **kwargs)

    monkeypatch.setattr(type(backbone.model), "forward", counting)
    reader.features(TABLE, ROWS[:1])
    reader.states(TABLE, ROWS[:1])
    assert calls == 1


def test_decoders_share_prompts_and_encoders_cannot(make_backbone: Make) -> None:
    kinds = ["bert", "llama", "qwen2", "qwen3", "gemma", "gemma3", "gpt2"]
    assert [kind for kind in kinds if not shares_prompts(make_backbone(kind))] == ["bert"]


def test_the_prompt_of_many_responses_is_read_once(make_backbone: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    backbone = make_backbone("llama")
    reader = reader_of(backbone, 0)
    assert reader.shares_prompts
    read: list[tuple[int, int]] = []
    embed = type(backbone.model.get_input_embeddings()).forward

    def counting(module: Any, ids: torch.Tensor) -> torch.Tensor:
        read.append(tuple(ids.shape))
        return embed(module, ids)

    monkeypatch.setattr(type(backbone.model.get_input_embeddings()), "forward", counting)
    prompts = ResponseTable([WORDS] * 8, [f"w{n} w{n + 1}" for n in range(8)])
    reader.features(prompts, np.arange(8))
    [[_, before]] = [shape for shape in read if shape[0] == 1]
    assert before > 30  # the prompt, once
    assert sum(rows * width for rows, width in read if rows > 1) <= 8 * 8


def test_widths_stay_within_what_the_model_can_read(make_backbone: Make) -> None:
    backbone = make_backbone("gpt2")  # 64 positions, which are no rule of three
    encoded = encode_responses(backbone, TABLE, ROWS, 45)
    for places, width in steady_batches(encoded):
        assert (encoded.lengths[places] <= width).all()
        assert width <= 45
    assert sorted(n for places, _ in steady_batches(encoded) for n in places) == ROWS.tolist()


def test_what_was_read_is_remembered_within_a_bound(make_backbone: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = reader_of(make_backbone("bert"), 1)
    first = reader.features(TABLE, ROWS)
    monkeypatch.setattr("copl.reward.reading.reader.take", lambda *_: pytest.fail("read again"))
    assert torch.equal(reader.features(TABLE, ROWS[::-1].copy()), first.flip(0))
    monkeypatch.undo()
    monkeypatch.setattr(kept, "_IN_MEMORY_BYTES", 2 * (32 * 4 + 400))
    reader.features(TABLE, ROWS)
    assert [reader._features.lacks(key) for key in TABLE.keys] == [True] * 4 + [False] * 2
    torch.testing.assert_close(reader.features(TABLE, ROWS), first, atol=1e-6, rtol=0)
