"""Texts as tokens: those of the template's own rendering, on any day, cut where they are too long."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast
from transformers.models.bert.tokenization_bert_legacy import BertTokenizerLegacy

from copl.data.chat import decode_prompt, encode_messages
from copl.reward.backbones.standalone import TextError, chat_template, encode, messages_of, render

# Chat templates of well-known models, cut down to what they do with plain turns.
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}"
    "{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% else %}{{ message['content'] + eos_token + ' ' }}{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
)
LLAMA2 = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + message['content'].strip() + ' [/INST]' }}"
    "{% else %}{{ ' '  + message['content'].strip() + ' ' + eos_token }}{% endif %}{% endfor %}"
)
PHI3 = (
    "{% for message in messages %}{{'<|' + message['role'] + '|>' + '\n' + message['content'] + '<|end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}"
)
CHATML = (
    "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
GEMMA = (
    "{{ bos_token }}{% for message in messages %}{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}{% endfor %}"
)
QWEN3 = """{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- set content = message.content if message.content is string else '' %}
    {%- if message.role == "user" %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or reasoning_content) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' }}
            {{- content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}"""
DEEPSEEK_R1 = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ '<|User|>' + message['content'] }}"
    "{% else %}{% set content = message['content'] %}{% if '</think>' in content %}"
    "{% set content = content.split('</think>')[-1] %}{% endif %}"
    "{{ '<|Assistant|>' + content + eos_token }}{% endif %}{% endfor %}"
)
SMOLLM3 = (
    "{%- set today = strftime_now('%d %B %Y') -%}{{ '<|im_start|>system\nToday Date: ' + today + '<|im_end|>\n' }}"
    "{%- for message in messages -%}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{%- endfor -%}"
)
TEMPLATES = {
    "mistral": MISTRAL,
    "zephyr": ZEPHYR,
    "llama-2": LLAMA2,
    "phi-3": PHI3,
    "llama-3": LLAMA3,
    "chatml": CHATML,
    "gemma": GEMMA,
    "qwen3": QWEN3,
    "deepseek-r1": DEEPSEEK_R1,
    "smollm3": SMOLLM3,
}

SPECIAL = ["<unk>", "<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<think>", "</think>"]
CORPUS = ["How do I fry an egg? Hot pan, three minutes. [INST] user [/INST] assistant\n\nThe capital is Paris.\n"] * 20
RESPONSES = [
    "Hot pan.",
    " Hot pan. ",
    "\n\nHot pan.",
    "",
    "<think>\nA pan?\n</think>\n\nHot pan.",
    "A pan? </think> Hot pan.",
    "</think>",
    "<think>",
    "Hot</s> pan<|im_end|>\n<|im_start|>assistant\n",
    " [/INST] ",
]


def _metaspace(scheme: str) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=SPECIAL, unk_token="<unk>", show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _prefixed() -> Tokenizer:
    bytes_ = [f"<0x{n:02X}>" for n in range(256)]
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    trainer = trainers.BpeTrainer(vocab_size=500, special_tokens=[*SPECIAL, *bytes_], show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _bytes(*, prefix: bool) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=500, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


KINDS = {
    "sentencepiece BPE of Llama 2 and Mistral": _prefixed,
    "sentencepiece unigram, first": lambda: _metaspace("first"),
    "sentencepiece unigram, always": lambda: _metaspace("always"),
    "bytes": lambda: _bytes(prefix=False),
    "bytes with prefix space": lambda: _bytes(prefix=True),
}


@cache
def tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """A small tokenizer of a kind, trained on a few words."""
    marks = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    return PreTrainedTokenizerFast(tokenizer_object=KINDS[kind](), **marks)


def conversation(prompt: str, response: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": prompt}, {"role": "assistant", "content": response}]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", TEMPLATES)
def test_tokens_are_those_of_the_templates_rendering_of_the_finished_conversation(kind: str, name: str) -> None:
    own = tokenizer(kind)
    own.chat_template = TEMPLATES[name]
    for prompt in ("How do I fry an egg?", " An egg? </think>"):
        for text, response in zip(encode(own, "chat", [(prompt, r) for r in RESPONSES], 10**6), RESPONSES, strict=True):
            rendered = render(own, conversation(prompt, response))
            if TEMPLATES[name] != SMOLLM3:  # which writes the date
                assert rendered == own.apply_chat_template(conversation(prompt, response), tokenize=False)
            assert text.ids == own(rendered, add_special_tokens=False)["input_ids"]
            assert 0 < text.prompt_length <= len(text.ids)
            assert not text.is_cut


@settings(max_examples=50)
@given(st.sampled_from(sorted(KINDS)), st.sampled_from(sorted(TEMPLATES)), st.text(max_size=30), st.integers(40, 80))
@example("bytes", "qwen3", "a" * 200, 60)
def test_a_text_that_is_too_long_loses_the_beginning_of_its_prompt(
    kind: str, name: str, response: str, limit: int
) -> None:
    own = tokenizer(kind)
    own.chat_template = TEMPLATES[name]
    (whole,) = encode(own, "chat", [("long " * 100, response)], 10**6)
    (text,) = encode(own, "chat", [("long " * 100, response)], limit)
    assert text.is_cut
    assert len(text.ids) == limit or text.response_is_cut is False
    if not text.response_is_cut:  # its end is that of the whole text, its beginning the begin-of-text token
        written = whole.ids[0] == own.bos_token_id
        assert text.ids[written:] == whole.ids[len(whole.ids) - limit + written :]
        assert text.ids[:written] == whole.ids[:written]


def test_the_same_on_any_day() -> None:
    own = tokenizer("bytes")
    own.chat_template = (
        "  {% if true %}\n {{ strftime_now('%d %B %Y, %A %H:%M') if strftime_now is defined else 'today' }}\n"
        "{% endif %}"
        "{% for m in messages %}{{ m.content }}, {{ strftime_now('%Y-%m-%d') }}; {{ date_string }}{% endfor %}"
    )
    text = render(own, conversation("", "so"))
    assert text == " 26 July 2024, Friday 00:00\n, 2024-07-26; 26 Jul 2024so, 2024-07-26; 26 Jul 2024"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ messages[0].content }}{{ ['a', 'b'] | random }}", "leaves something to chance"),
        ("{{ lipsum() }}{{ messages[1].content }}", "leaves something to chance"),
        ("{{ messages[0].content }}", "drops the response"),
        ("{{ raise_exception('never') }}", r"refuses the prompt 'hello': never; use the backbone's template=plain"),
        ("{{ messages[0].content + 1 }}", "refuses the prompt 'hello': can only concatenate"),
        ("{{ messages | nothing }}", "refuses the prompt 'hello': No filter named 'nothing'"),
        ("{% for m in messages %}", "refuses the prompt 'hello'"),
        ("{{ 1 // 0 }}", "refuses the prompt 'hello': integer division"),
        ("{{ ().__class__.__bases__ }}", "refuses the prompt 'hello'"),
    ],
)
def test_templates_that_cannot_be_used_say_so_in_one_line(template: str, message: str) -> None:
    own = tokenizer("bytes")
    own.chat_template = template
    with pytest.raises(TextError, match=message) as error:
        encode(own, "chat", [("hello", "c")], 64)
    assert "\n" not in str(error.value)


def test_of_named_templates_the_default_is_used_or_the_only_one() -> None:
    own = tokenizer("bytes")
    own.chat_template = {"default": "d", "rag": "r"}
    assert chat_template(own) == "d"
    own.chat_template = {"rag": "{% for m in messages %}({{ m.content }}){% endfor %}"}
    assert "".join(own.convert_ids_to_tokens(encode(own, "chat", [("a", "b")], 64)[0].ids)) == "(a)(b)"
    own.chat_template = {"rag": "r", "tool_use": "t"}
    with pytest.raises(TextError, match="of the chat templates rag, tool_use none is the default; use the backbone's"):
        chat_template(own)
    for nothing in (None, "", {}):
        own.chat_template = nothing
        assert chat_template(own) is None


def _words(directory: Path) -> Any:
    letters = [*"abc:", *(f"##{letter}" for letter in "abcdefghijklmnopqrstuvwxyz")]
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "human", "assistant", "user", "im", "start", "end", *letters]
    (directory / "vocab.txt").write_text("\n".join(words))
    return BertTokenizerLegacy(str(directory / "vocab.txt"))


@pytest.mark.parametrize("make", [lambda directory: ByT5Tokenizer(), _words])
def test_tokenizers_written_in_python_read_as_the_others_do(make: Callable[[Path], Any], tmp_path: Path) -> None:
    own = make(tmp_path)
    assert not own.is_fast
    own.chat_template = TEMPLATES["chatml"]
    (chat,) = encode(own, "chat", [("a b", "c")], 100)
    assert chat.ids == own(render(own, conversation("a b", "c")), add_special_tokens=False)["input_ids"]
    assert own.decode(chat.ids[: chat.prompt_length]).strip().endswith("assistant")
    (plain,) = encode(own, "plain", [("a b", "c")], 100)
    assert plain.ids == own("Human: a b\n\nAssistant: c")["input_ids"]
    (pair,) = encode(own, "pair", [("a b", "c")], 100)
    assert pair.ids == own("a b", "c")["input_ids"]
    (short,) = encode(own, "pair", [("a" * 50, "c")], 20)
    assert len(short.ids) == 20


json_text = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["role", "content", "x"]), inner),
    max_leaves=6,
)
message = st.fixed_dictionaries({"role": st.text(max_size=5), "content": st.text(max_size=8)})


@given(st.text(max_size=30) | json_text.map(json.dumps) | st.lists(message).map(lambda m: json.dumps(m, indent=None)))
@example(encode_messages(conversation("a", "b")))
@example('[{"role":"user","content":"a"}')
@example('[{"role":"user","content":"a","x":1}]')
@example('[{"role":"user","content":" "}]')
@example('[{"role":"user","content":"a"}, {"role":"user","content":"a"}]')
@example('[{"role":"' + "[" * 5000)
def test_messages_are_told_from_text_as_copl_tells_them(prompt: str) -> None:
    assert messages_of(prompt) == decode_prompt(prompt)


def test_messages_can_be_given_as_they_are_or_as_copl_keeps_them() -> None:
    own = tokenizer("bytes")
    own.chat_template = TEMPLATES["chatml"]
    talk = [{"role": "system", "content": "s"}, *conversation("a", "b"), {"role": "user", "content": "c"}]
    for template in ("chat", "plain", "pair"):
        given_, kept = encode(own, template, [(talk, "d"), (encode_messages(talk), "d")], 500)
        assert given_ == kept
