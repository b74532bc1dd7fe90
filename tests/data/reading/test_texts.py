from __future__ import annotations

import pytest

from copl.data.chat import encode_messages
from copl.data.reading.texts import clean, common_messages, common_text, split_transcript


def test_what_no_file_can_keep_is_taken_out() -> None:
    assert clean("a\0b") == "ab"
    assert clean("ä\ud800b") == "ä?b"
    assert clean(None) == ""
    assert clean(7) == "7"


def chat(*contents: str) -> str:
    return encode_messages(
        [{"role": "assistant" if n % 2 else "user", "content": content} for n, content in enumerate(contents)]
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("\n\nHuman: Why?\n\nAssistant: Because.", ("Why?", "Because.")),
        ("Human: Why?\n\nAssistant: Because.\n", ("Why?", "Because.")),
        ("\n\nHuman: Why?\n\nAssistant:", ("Why?", "")),
        ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c\n\nAssistant: d", (chat("a", "b", "c"), "d")),
        ("\n\nHuman: a\n\nHuman: b\n\nAssistant: d", ("a\n\nb", "d")),
        ("\n\nHuman: a\n\nAssistant: \n\nHuman: c\n\nAssistant: d", ("a\n\nc", "d")),
        ("Why? Because.", None),
        ("\n\nAssistant: Because.", None),
        ("Well.\n\nAssistant: Because.", None),
    ],
)
def test_a_transcript_is_cut_before_its_last_answer(text: str, expected: tuple[str, str] | None) -> None:
    assert split_transcript(text) == expected


@pytest.mark.parametrize(
    ("one", "other", "shared"),
    [
        ("Why? Because.", "Why? No.", "Why? "),
        ("Why?\nBe", "Why?\nBa", "Why?\n"),
        ("Because.", "Before.", ""),
        ("a b", "a b", "a "),
        ("", "a", ""),
    ],
)
def test_two_texts_share_whole_words(one: str, other: str, shared: str) -> None:
    assert one[: common_text(one, other)] == shared


def test_the_last_message_is_never_shared() -> None:
    one = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    assert common_messages(one, one) == 1
    assert common_messages(one, one[:1]) == 0
    assert common_messages(one, [{"role": "user", "content": "c"}, one[1]]) == 0
