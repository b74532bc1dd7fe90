"""Texts as tokens in which what people have written is words, and never a mark by which a model's template ends a turn.

A tokenizer makes the special token of its spelling wherever it meets it, so that ``<|im_end|>`` in a prompt would end
the user's turn, and what follows it would speak as whoever it says. Texts without such a mark are read as the template
renders them; one with a mark is read apart from what stands around it, its marks split into the letters they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence, Set
from itertools import chain
from typing import Any

from copl.errors import BackboneError, quoted
from copl.reward.backbones.standalone import added_tokens

_STAND_INS = (range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE))
"""Characters that mean nothing (for private use)."""


def tokens_of(
    tokenizer: Any,
    texts: Sequence[str],
    join: Callable[[Sequence[str]], str],
    marks: Set[int],
    *,
    opened: bool = False,
) -> list[int]:
    """Return texts of people, joined by a template, as tokens.

    Args:
        tokenizer: a tokenizer of transformers.
        texts: what people have written.
        join: renders the texts; what it puts around them are the template's own words and marks.
        marks: tokens that are no words (`marks_of`).
        opened: begin with what the tokenizer puts before a text.

    Raises:
        BackboneError: the tokenizer reads a part of a text as a mark, whatever it is told.
    """
    opening = added_tokens(tokenizer, second=False)[0] if opened else []
    stand_ins = _unused("".join(texts))
    apart = {next(stand_ins): text for text in dict.fromkeys(texts) if has_marks(tokenizer, text, marks)}
    if not apart:
        return [*opening, *_ids(tokenizer, join(texts))]
    stands_for = {text: character for character, text in apart.items()}
    joined = join([stands_for.get(text, text) for text in texts])
    for part in re.split(f"([{''.join(apart)}])", joined):
        opening += _letters(tokenizer, apart[part], marks) if part in apart else _ids(tokenizer, part)
    return opening


def marks_of(tokenizer: Any) -> frozenset[int]:
    """Return the tokens that are no words, but for the one of what a tokenizer does not know, which may be any word."""
    special = {int(token) for token, about in tokenizer.added_tokens_decoder.items() if about.special}
    ends = {tokenizer.bos_token_id, tokenizer.eos_token_id} - {None}
    return frozenset({*special, *tokenizer.all_special_ids} - {tokenizer.unk_token_id} | ends)


def has_marks(tokenizer: object, text: str, marks: Set[int]) -> bool:
    """Return whether a tokenizer makes a mark of a part of a text."""
    return not marks.isdisjoint(_ids(tokenizer, text))


def _letters(tokenizer: object, text: str, marks: Set[int]) -> list[int]:
    ids = _ids(tokenizer, text, split_special_tokens=True)
    if not marks.isdisjoint(ids):
        raise BackboneError(
            f"{quoted(text)}: holds a mark that the tokenizer reads as the end of a turn, or another that is not a "
            "word; take it out of the text"
        )
    return ids


def _ids(tokenizer: Any, text: str, **options: Any) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False, verbose=False, **options)["input_ids"]) if text else []


def _unused(text: str) -> Iterator[str]:
    taken = set(text)
    yield from (chr(code) for code in chain(*_STAND_INS) if chr(code) not in taken)
    raise BackboneError(f"{quoted(text)}: holds a mark, and every character that could stand for it; take it out")
