from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.data.chat import decode_prompt, encode_messages, encode_prompt, message_fault

SPOKEN = st.text(min_size=1, max_size=20).filter(lambda text: text.strip() != "")
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
    assert encode_prompt(text) == text
    assert decode_prompt(text) == text


def test_equal_conversations_are_equal_text() -> None:
    first = [{"role": "user", "content": "Grüße"}]
    second = [{"content": "Grüße", "role": "user", "name": None}]
    assert encode_messages(first) == encode_prompt(second) == '[{"role":"user","content":"Grüße"}]'


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
