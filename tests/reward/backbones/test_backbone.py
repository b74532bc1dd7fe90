from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertModel,
    Gemma3Config,
    Gemma3Model,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5Model,
)

from copl.data.chat import encode_messages
from copl.errors import BackboneError
from copl.records import ResponseTable
from copl.reward.backbones.loaded import (
    EncodedResponses,
    LoadedBackbone,
    collate,
    encode_responses,
    pool,
    prepare_backbone,
)
from tests.reward.padding import on_the_left

SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
SPECIAL = ["[PAD]", "[CLS]", "[SEP]", "<bos>", "<eos>", "<turn>"]
CHAT = (
    "{{ bos_token }}{% for m in messages %}<turn>{{ m['role'] }}:{{ m['content'] }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}<turn>assistant:{% endif %}"
)


def characters(**special: str) -> PreTrainedTokenizerFast:
    """A tokenizer of one token a byte, so that lengths can be counted by hand."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *sorted(alphabet)])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(SPECIAL)
    if "cls_token" in special:
        tokenizer.post_processor = processors.BertProcessing(("[SEP]", 2), ("[CLS]", 1))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special)


def bert() -> LoadedBackbone:
    torch.manual_seed(0)
    tokenizer = characters(pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]")
    return prepare_backbone(BertModel(BertConfig(**SMALL)), tokenizer)


def llama(chat: str | None = None, **options: Any) -> LoadedBackbone:
    torch.manual_seed(0)
    tokenizer = characters(bos_token="<bos>", eos_token="<eos>")
    tokenizer.chat_template = chat
    model = LlamaModel(LlamaConfig(**SMALL, num_key_value_heads=2))
    return prepare_backbone(model, tokenizer, **options)


def table(*rows: tuple[str, str]) -> ResponseTable:
    return ResponseTable([prompt for prompt, _ in rows], [text for _, text in rows])


def encode(backbone: LoadedBackbone, *rows: tuple[str, str], max_length: int = 64) -> EncodedResponses:
    return encode_responses(backbone, table(*rows), np.arange(len(rows)), max_length)


def texts(backbone: LoadedBackbone, encoded: EncodedResponses) -> list[str]:
    pieces = np.split(encoded.ids, encoded.offsets[1:-1])
    return [backbone.tokenizer.decode(piece) for piece in pieces]


def fronts(backbone: LoadedBackbone, encoded: EncodedResponses) -> list[str]:
    return [
        backbone.tokenizer.decode(encoded.ids[start : start + length])
        for start, length in zip(encoded.offsets, encoded.prompt_lengths, strict=False)
    ]


def test_what_is_found_out_about_an_encoder_and_a_decoder() -> None:
    encoder, decoder, talker = bert(), llama(), llama(CHAT)
    assert (encoder.hidden_size, encoder.num_layers) == (32, 2)
    assert (encoder.pooling, encoder.template, encoder.target_modules) == ("mean", "pair", ("query", "value"))
    assert (decoder.pooling, decoder.template, decoder.target_modules) == ("last", "plain", ("q_proj", "v_proj"))
    assert talker.template == "chat"
    assert encoder.max_positions == 64
    assert not any(p.requires_grad for p in encoder.model.parameters())
    assert not encoder.model.training


def test_nested_text_configurations_and_fused_projections() -> None:
    text = {**SMALL, "num_key_value_heads": 2, "head_dim": 8, "pad_token_id": 0}
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision |= {"image_size": 28, "patch_size": 14}
    model = Gemma3Model(Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4))
    assert prepare_backbone(model, characters(eos_token="<eos>")).hidden_size == 32
    gpt = GPT2Model(GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=48))
    prepared = prepare_backbone(gpt, characters(eos_token="<eos>"))
    assert (prepared.hidden_size, prepared.num_layers, prepared.max_positions) == (32, 2, 48)
    assert prepared.target_modules == ("c_attn",)


def test_unfit_models_are_refused() -> None:
    t5 = T5Model(T5Config(vocab_size=300, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2))
    with pytest.raises(BackboneError, match="encoder-decoder"):
        prepare_backbone(t5, characters(eos_token="<eos>"))
    with pytest.raises(BackboneError, match="no chat template"):
        llama(template="chat")


def test_a_tokenizer_without_padding_token_pads_with_the_end_or_zero() -> None:
    assert bert().pad_id == SPECIAL.index("[PAD]")
    assert llama().pad_id == SPECIAL.index("<eos>")
    assert llama().tokenizer.pad_token is None
    bare = prepare_backbone(LlamaModel(LlamaConfig(**SMALL, num_key_value_heads=2)), characters())
    assert bare.pad_id == 0


def test_encoders_see_sentence_pairs() -> None:
    backbone = bert()
    conversation = encode_messages([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    one = encode_messages([{"role": "user", "content": "a"}])
    encoded = encode(backbone, ("ab", "cd"), ("", "cd"), (one, "cd"), (conversation, "cd"))
    assert texts(backbone, encoded) == [
        "[CLS]ab[SEP]cd[SEP]",
        "[CLS]cd[SEP]",
        "[CLS]a[SEP]cd[SEP]",
        "[CLS]Human: a\n\nAssistant: b[SEP]cd[SEP]",
    ]
    assert fronts(backbone, encoded)[:2] == ["[CLS]ab[SEP]", "[CLS]"]


def test_a_response_can_be_read_alone() -> None:
    messages = encode_messages([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}])
    for backbone, expected in ((bert(), "[CLS]cd[SEP]"), (llama(CHAT), "cd")):
        alone = evolve(backbone, template="response")
        encoded = encode(alone, ("ab", "cd"), ("", "cd"), (messages, "cd"))
        assert texts(alone, encoded) == [expected] * 3


def test_decoders_without_template_see_plain_turns() -> None:
    backbone = llama()
    messages = encode_messages([{"role": "system", "content": "s"}, {"role": "user", "content": "a"}])
    encoded = encode(backbone, ("ab", "cd"), ("", "cd"), (messages, "cd"))
    assert texts(backbone, encoded) == [
        "Human: ab\n\nAssistant: cd",
        "cd",
        "System: s\n\nHuman: a\n\nAssistant: cd",
    ]
    assert fronts(backbone, encoded)[0] == "Human: ab\n\nAssistant:"


def test_chat_templates_are_used_for_text_and_messages() -> None:
    backbone = llama(CHAT)
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": "a"}]
    encoded = encode(backbone, ("ab", " cd "), (encode_messages(messages), "cd"))
    expected = [
        [{"role": "user", "content": "ab"}, {"role": "assistant", "content": " cd "}],
        [*messages, {"role": "assistant", "content": "cd"}],
    ]
    for text, whole in zip(texts(backbone, encoded), expected, strict=True):
        assert text == backbone.tokenizer.apply_chat_template(whole, tokenize=False)
    asked = backbone.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    assert fronts(backbone, encoded)[1] == asked


def test_templates_that_strip_refuse_or_drop() -> None:
    stripping = llama("{% for m in messages %}{{ m['content'] | trim }}|{% endfor %}")
    assert texts(stripping, encode(stripping, ("a", " c "))) == ["a|c|"]
    spacing = llama("{% for m in messages %} {{ m['content'] | trim }} |{% endfor %}")
    assert texts(spacing, encode(spacing, ("a", " c "))) == [" a | c |"]
    refusing = llama("{{ raise_exception('roles must alternate') }}")
    with pytest.raises(BackboneError, match=r"refuses the prompt 'hello'.*roles must alternate.*template=plain"):
        encode(refusing, ("hello", "c"))
    dropping = llama("{{ messages[0]['content'] }}")
    with pytest.raises(BackboneError, match="drops the response"):
        encode(dropping, ("hello", "c"))


@pytest.mark.parametrize(
    ("make", "limit", "shortened", "emptied"),
    [
        (bert, 9, "[CLS]89[SEP]abcd[SEP]", "[CLS][SEP]abcdef[SEP]"),
        (llama, 8, "nt: abcd", " abcdefg"),
        (
            lambda: llama("{{ bos_token }}{{ messages[0].content }}{{ messages[1].content }}<eos>"),
            8,
            "<bos>89abcd<eos>",
            "<bos>abcdef<eos>",
        ),
    ],
)
def test_long_texts_lose_the_beginning_of_the_prompt_first(make: Any, limit: int, shortened: str, emptied: str) -> None:
    backbone = make()
    encoded = encode(backbone, ("0123456789", "abcd"), max_length=limit)
    assert texts(backbone, encoded) == [shortened]
    assert (encoded.num_truncated, encoded.num_responses_cut) == (1, 0)
    finding = encoded.finding()
    assert (
        finding
        == f"1 of 1 texts exceed {limit} tokens and lost the beginning of their prompt; raise max_length to keep all"
    )
    # Only a response that alone is too long is cut, at its end.
    encoded = encode(backbone, ("0123456789", "abcdefghijklm"), ("0123456789", "abcd"), max_length=limit)
    assert texts(backbone, encoded) == [emptied, shortened]
    assert (encoded.num_truncated, encoded.num_responses_cut) == (2, 1)
    assert "1 of them also the end of a response" in (encoded.finding() or "")


def test_the_models_own_limit_holds() -> None:
    backbone = bert()
    encoded = encode(backbone, ("a" * 100, "b" * 30), max_length=500)
    assert (encoded.max_length, len(encoded.ids), encoded.num_truncated) == (64, 64, 1)
    assert encode(backbone, ("a", "b")).finding() is None
    with pytest.raises(BackboneError, match="no room for a response"):
        encode(backbone, ("a", "b"), max_length=3)


def test_positions_counted_from_behind_the_padding_index_leave_fewer() -> None:
    config = RobertaConfig(**(SMALL | {"max_position_embeddings": 66}), pad_token_id=1)
    backbone = prepare_backbone(
        RobertaModel(config), characters(pad_token="[CLS]", cls_token="[CLS]", sep_token="[SEP]")
    )
    assert backbone.max_positions == 64
    batch = collate(encode(backbone, ("a" * 100, "b"), max_length=500), [0])
    output = backbone.model(input_ids=batch.input_ids.clamp(min=2), attention_mask=batch.attention_mask)
    assert output.last_hidden_state.shape == (1, 64, 32)


def test_rows_choose_and_order_and_repeat() -> None:
    backbone = bert()
    responses = table(("p", "zero"), ("q", "one"), ("p", "two"))
    encoded = encode_responses(backbone, responses, np.array([2, 0, 2]), 64)
    assert texts(backbone, encoded) == ["[CLS]p[SEP]two[SEP]", "[CLS]p[SEP]zero[SEP]", "[CLS]p[SEP]two[SEP]"]
    nothing = encode_responses(backbone, responses, np.array([], dtype=np.int64), 64)
    assert len(nothing) == 0
    assert collate(nothing, []).input_ids.shape == (0, 0)


def test_a_prompt_is_tokenised_once() -> None:
    backbone = bert()
    counted: list[int] = []
    original = backbone.tokenizer.__class__.__call__

    class Counting(PreTrainedTokenizerFast):
        def __call__(self, text: Any, *args: Any, **kwargs: Any) -> Any:
            counted.extend([1] * (len(text) if isinstance(text, list) else 0))
            return original(self, text, *args, **kwargs)

    backbone.tokenizer.__class__ = Counting
    encode(backbone, *(("same prompt", f"response {i}") for i in range(5)))
    assert len(counted) == 1 + 1 + 5  # one prompt, one closing text, five responses


def test_batches_are_padded_at_the_end() -> None:
    encoded = encode(bert(), ("a", "bcd"), ("", "b"))
    batch = collate(encoded, [1, 0])
    assert batch.input_ids.shape == (2, 7)
    padding = batch.attention_mask[0] == 0
    assert padding.sum() == 4
    assert padding[3:].all()
    assert (batch.input_ids[0][padding] == encoded.pad_id).all()
    assert batch.input_ids[0][~padding].tolist() == encoded.ids[7:].tolist()
    assert batch.attention_mask[1].all()


@settings(max_examples=40)
@given(
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=5),
    extra=st.integers(0, 3),
    left=st.booleans(),
    how=st.sampled_from(["last", "mean"]),
)
def test_pooling_sees_the_text_and_never_the_padding(lengths: list[int], extra: int, left: bool, how: Any) -> None:
    width = max(lengths) + extra
    rows = [torch.randn(length, 3) for length in lengths]
    hidden, mask = torch.full((len(rows), width, 3), 1e6), torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        place = slice(width - len(row), width) if left else slice(0, len(row))
        hidden[i, place], mask[i, place] = row, 1
    expected = torch.stack([row[-1] if how == "last" else row.mean(0) for row in rows])
    torch.testing.assert_close(pool(hidden, mask, how), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(pool(hidden, mask.bool(), how), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("make", "side"), [(bert, "right"), (lambda: llama(CHAT), "right"), (lambda: llama(CHAT), "left")]
)
def test_a_text_has_the_same_vector_alone_and_in_any_batch(make: Any, side: Any) -> None:
    """With the end token as padding: texts end with it too, and padding must not be taken for the end."""
    backbone: LoadedBackbone = make()
    encoded = encode(backbone, ("a", "bcd"), ("what is it", "b"), ("a", "bcd and more"))

    def vectors(rows: list[int]) -> torch.Tensor:
        batch = collate(encoded, rows) if side == "right" else on_the_left(collate(encoded, rows))
        with torch.no_grad():
            hidden = backbone.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
        return pool(hidden, batch.attention_mask, backbone.pooling)

    together = vectors([2, 0, 1])
    for place, row in enumerate([2, 0, 1]):
        torch.testing.assert_close(vectors([row])[0], together[place], atol=1e-5, rtol=1e-4)


def test_bfloat16_pooling_keeps_the_type() -> None:
    hidden, mask = torch.ones(2, 3, 4, dtype=torch.bfloat16), torch.ones(2, 3, dtype=torch.long)
    assert pool(hidden, mask, "mean").dtype == torch.bfloat16
    assert pool(hidden, mask, "last").dtype == torch.bfloat16
