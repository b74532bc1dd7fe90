"""A language model on this machine writes; what it cannot do is one line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from copl.align.generators.local import LocalGenerator, LocalOptions
from copl.align.policies.writer import Writer
from copl.align.prompts import told_first
from copl.errors import BackboneError
from copl.interfaces import CutText
from copl.options import parse_options
from copl.system.progress import LineProgress, SilentProgress

CHAT = '[{"role":"system","content":"Be brief."},{"role":"user","content":"tea?"}]'
TEMPLATE = (
    "{% for m in messages %}{{ m.content }} bread {% endfor %}{% if add_generation_prompt %}bread bread{% endif %}"
)


def generator(model: object, **values: Any) -> LocalGenerator:
    options = parse_options(LocalOptions, {"model": str(model), "max_tokens": 12, **values}, where="local")
    return LocalGenerator(options)


def write(model: object, prompts: list[str], num: int = 3, seed: int = 0, **values: Any) -> list[tuple[str, ...]]:
    return generator(model, **values).candidates(prompts, num=num, seed=seed, progress=SilentProgress())


def test_candidates_differ_and_are_the_same_whatever_stands_beside_them(tiny_model: Path) -> None:
    prompts = ["Why does my bread not rise?", "How do I clean a keyboard?", CHAT]
    written = write(tiny_model, prompts)
    assert len({text for texts in written for text in texts}) == 9
    assert write(tiny_model, prompts[::-1]) == written[::-1]
    assert write(tiny_model, prompts[1:2]) == written[1:2]
    assert write(tiny_model, prompts, batch_size=2) == written
    assert write(tiny_model, prompts, seed=1) != written


def test_cold_words_are_always_the_likeliest(tiny_model: Path) -> None:
    ((one, other),) = write(tiny_model, ["tea?"], num=2, temperature=1e-4)
    assert one == other
    assert write(tiny_model, ["tea?"], num=2, temperature=0, seed=7) == [(one, other)]


def test_the_chat_template_is_used_where_there_is_one(tiny_model: Path, tmp_path: Path) -> None:
    chat = Path(shutil.copytree(tiny_model, tmp_path / "chat"))
    (chat / "chat_template.jinja").write_text(TEMPLATE)
    spoken, plain = Writer.open(chat), Writer.open(tiny_model)
    read = spoken.tokenizer
    assert spoken.prompt_ids(CHAT, 99) == read("Be brief. bread tea? bread bread bread")["input_ids"]
    assert plain.prompt_ids(CHAT, 99) == read("System: Be brief.\n\nHuman: tea?\n\nAssistant:")["input_ids"]
    assert spoken.prompt_ids(told_first("tea?", "Be brief."), 99) == spoken.prompt_ids(CHAT, 99)
    assert write(chat, ["tea?"], system="Be brief.") != write(chat, ["tea?"])
    assert generator(chat).fingerprint() != generator(tiny_model).fingerprint()


def test_a_text_at_its_limit_is_cut_and_says_so(tiny_model: Path) -> None:
    written = generator(tiny_model, max_tokens=4)
    assert len(written._writer._marks) < 9  # known before more words end a text: every other one
    written._writer.__dict__["_ends"] = frozenset(range(0, 1010, 2))
    (texts,) = written.candidates(["tea?"], num=8, seed=0, progress=SilentProgress())
    assert {isinstance(text, CutText) for text in texts} == {True, False}
    assert all(written.num_tokens(text) < 4 for text in texts if not isinstance(text, CutText))


def test_a_model_that_thinks_writes_its_answer_or_says_that_it_did_not(tiny_model: Path, tmp_path: Path) -> None:
    chat = Path(shutil.copytree(tiny_model, tmp_path / "chat"))
    (chat / "chat_template.jinja").write_text(TEMPLATE.replace("bread bread{%", "<think>\n{%"))
    endless = generator(chat)
    assert endless._writer._marks  # known before no word ends a text
    endless._writer.__dict__["_ends"] = frozenset()
    with pytest.raises(BackboneError, match="chat was still thinking after 12 tokens; let it write more"):
        endless.candidates(["tea?"], num=3, seed=0, progress=SilentProgress())


def test_who_thinks_to_the_end_is_left_out_while_others_answer(tiny_model: Path, tmp_path: Path) -> None:
    chat = Path(shutil.copytree(tiny_model, tmp_path / "chat"))
    (chat / "chat_template.jinja").write_text(TEMPLATE.replace("bread bread{%", "<think>\n{%"))
    thinking = generator(chat, max_tokens=4)
    assert len(thinking._writer._marks) < 9  # known before more words end a text: every other one
    thinking._writer.__dict__["_ends"] = frozenset(range(0, 1010, 2))
    said: list[str] = []
    (texts,) = thinking.candidates(["tea?"], num=8, seed=0, progress=LineProgress(said.append))
    assert 0 < len(texts) < 8
    (line,) = [line for line in said if "left out" in line]
    assert line.startswith(f"write candidates: {8 - len(texts)} of 8 candidates are left out: chat was still thinking")


def test_other_options_are_another_writer(tiny_model: Path) -> None:
    prints = [generator(tiny_model, **values).fingerprint() for values in ({}, {"temperature": 0.5}, {"max_tokens": 3})]
    assert len({*prints}) == 3
    assert prints[0] == generator(tiny_model).fingerprint()


def test_a_long_prompt_loses_its_begin(tiny_model: Path) -> None:
    long = "bread " * 500 + "rise"
    said: list[str] = []
    (asked,) = Writer.open(tiny_model).questions([long], 12, LineProgress(said.append))
    assert len(asked) == 128 - 12
    assert said == ["write candidates: one prompt is longer than 116 tokens, so the beginning was left out"]
    assert all(write(tiny_model, [long], num=1)[0])


def test_a_prompt_of_any_length_is_read_to_a_limit_and_that_is_said(tiny_model: Path) -> None:
    said: list[str] = []
    huge = "bread " * 60_000
    written = [
        generator(tiny_model, max_prompt=5).candidates([prompt], num=2, seed=0, progress=LineProgress(said.append))
        for prompt in (huge + "does tea rise?", "bread does tea rise?")
    ]
    assert all(written)
    assert [line for line in said if "max_prompt" in line] == [
        "write candidates: one prompt is longer than 5 tokens, so the beginning was left out; max_prompt sets the limit"
    ] * 2
    short = generator(tiny_model, max_prompt=20)
    assert Writer.open(tiny_model).room(12, 20) == 20
    assert short.fingerprint() != generator(tiny_model).fingerprint()


@pytest.mark.parametrize(
    ("model", "values", "fault"),
    [
        ("no-such-directory/model/at/all", {}, "no-such-directory"),
        (None, {"max_tokens": 128}, "leaves no room for a prompt beside 128 tokens to write"),
    ],
)
def test_what_cannot_be_done_is_said(model: str | None, values: dict[str, Any], fault: str, tiny_model: Path) -> None:
    with pytest.raises(BackboneError, match=fault):
        write(model or tiny_model, ["tea?"], **values)


def test_a_template_that_refuses_is_one_line(tiny_model: Path, tmp_path: Path) -> None:
    chat = Path(shutil.copytree(tiny_model, tmp_path / "chat"))
    (chat / "chat_template.jinja").write_text("{{ raise_exception('no system here') }}")
    with pytest.raises(BackboneError, match=r"the chat template refuses the prompt 'tea.*: no system here"):
        write(chat, ["tea?"])
