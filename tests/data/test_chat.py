from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.data.canonical import canonical_text, text_fault
from copl.data.chat import decode_prompt, encode_messages, encode_prompt, message_fault

SPOKEN = st.text(max_size=20).map(canonical_text).filter(lambda text: text_fault(text) is None)
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": SPOKEN}),
    min_size=1,
    max_size=4,
)


@settings(max_examples=60)
@given(MESSAGES)
def test_messages_survive_the_way_through_a_prompt(messages: list[dict[str, str]]) -> None:
    assert decode_prompt(encode_messages(messages)) == messages


@settings(max_examples=60)
@given(st.text(max_size=40))
def test_text_stays_text(text: str) -> None:
    assert encode_prompt(text) == canonical_text(text)
    assert decode_prompt(text) == text


def test_equal_conversations_are_equal_text() -> None:
    first = [{"role": "system", "content": "Grüße"}]
    second = [{"content": "Gru\u0308ße\u00a0", "role": "system", "name": None}]
    assert encode_messages(first) == encode_prompt(second) == '[{"role":"system","content":"Grüße"}]'


@pytest.mark.parametrize("text", ["Why?", "[1] Why?", '[{"role":"user","content":"a"}'])
def test_one_message_of_the_user_is_the_same_prompt_as_its_text(text: str) -> None:
    message = {"role": "user", "content": f"{text}\n"}
    assert encode_prompt([message]) == encode_prompt(text) == encode_prompt(encode_messages([message])) == text


@pytest.mark.parametrize("role", ["system", "assistant"])
def test_one_message_of_another_role_is_not(role: str) -> None:
    messages = [{"role": role, "content": "Why?"}]
    assert decode_prompt(encode_prompt(messages)) == messages


@given(st.one_of(st.text(max_size=40), MESSAGES))
def test_a_prompt_in_its_one_form_stays_so(prompt: str | list[dict[str, str]]) -> None:
    assert encode_prompt(encode_prompt(prompt)) == encode_prompt(prompt)


def test_messages_of_earlier_data_sets_are_still_messages() -> None:
    # written before texts had one spelling
    prompt = '[{"role":"user","content":"Why? "},{"role":"user","content":"Cafe\u0301"}]'
    assert decode_prompt(prompt) == json.loads(prompt)


@pytest.mark.parametrize(
    "text",
    [
        '[{"role":"user","content":"a"}',
        '[{"role":"user"}]',
        '[{"role":"user", "content":"a"}]',
        '[{"role":"user","content":"a","tool":"b"}]',
    ],
    ids=["cut short", "no content", "other spacing", "other key"],
)
def test_what_only_resembles_messages_stays_text(text: str) -> None:
    assert decode_prompt(text) == text


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ("text", "a list of messages, got str"),
        ([], "is empty"),
        (["text"], "message 1 is str"),
        ([{"role": "user", "content": "a"}, {"role": "user"}], "message 2 has no text under 'content'"),
        ([{"role": "", "content": "a"}], "no text under 'role'"),
        ([{"role": "user", "content": "a\0b"}], "message 1: the text holds a NUL byte"),
        ([{"role": "user", "content": "a\ud800"}], "message 1: the text holds half of a surrogate pair"),
        ([{"role": "user", "content": "\u200b"}], "no text under 'content'"),
        ([{"role": "user", "content": "a", "tools": []}], "'tools'"),
    ],
)
def test_what_is_wrong_with_messages_is_said(value: object, fault: str) -> None:
    assert fault in str(message_fault(value))
    with pytest.raises(ValueError, match="message"):
        encode_messages(value)  # type: ignore[arg-type]  # wrong on purpose


def test_a_prompt_is_one_line_of_json() -> None:
    prompt = encode_messages([{"role": "user", "content": "a\nb"}])
    assert "\n" not in prompt
    assert json.loads(prompt)[0]["content"] == "a\nb"
