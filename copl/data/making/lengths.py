"""The length limit of the published constructions: pairs with a text of too many tokens are left out."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs
import numpy as np

from copl.errors import DataError
from copl.options import option

if TYPE_CHECKING:
    from copl.records import BoolArray, ResponseTable

CHARACTERS_PER_TOKEN = 4.0
"""What a token is taken to be where no tokenizer is named: about what it is in English text."""

_BATCH = 1000


@attrs.frozen(kw_only=True, slots=False)  # one base of several
class LengthOptions:
    """Which texts are too long."""

    max_tokens: int | None = option(
        1024,
        help="leave out pairs where prompt and response together have more tokens; none keeps all, unlike the paper",
        validator=attrs.validators.optional(attrs.validators.ge(1)),
    )
    tokenizer: Path | None = option(
        None,
        help="tokenizer.json, or a directory with one, to count tokens by, as the paper does with Gemma's; without it "
        "four characters are taken for a token, which departs from the paper",
    )


def too_long(responses: ResponseTable, options: LengthOptions) -> BoolArray:
    """Return which responses [R] exceed the limit, each measured with its prompt as the paper writes it.

    Raises:
        DataError: the tokenizer cannot be read.
    """
    if options.max_tokens is None:
        return np.zeros(len(responses), dtype=np.bool_)
    pairs = zip(responses.prompts, responses.texts, strict=True)
    texts = (f"Human: {prompt}\n\nAssistant: {text}" for prompt, text in pairs)
    if options.tokenizer is None:
        return np.array([len(text) > options.max_tokens * CHARACTERS_PER_TOKEN for text in texts], dtype=np.bool_)
    counts = _token_counts(options.tokenizer, texts)
    return np.array([count > options.max_tokens for count in counts], dtype=np.bool_)


def length_note(options: LengthOptions) -> str:
    """Return how lengths were measured, for the notes of a data set."""
    if options.max_tokens is None:
        return "No length limit was applied."
    if options.tokenizer is None:
        return f"Lengths are estimated: more than {options.max_tokens:,} tokens at four characters each are too long."
    return f"Lengths are counted with {options.tokenizer.name}: more than {options.max_tokens:,} tokens are too long."


def _token_counts(path: Path, texts: Iterable[str]) -> list[int]:
    from tokenizers import Tokenizer

    file = path / "tokenizer.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(f"{file}: no such file; name a tokenizer.json to count tokens by")
    try:
        tokenizer: Any = Tokenizer.from_file(str(file))
    except Exception as error:  # the library raises bare Exception
        raise DataError(f"{file}: not a tokenizer ({str(error).splitlines()[0]})") from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    counts: list[int] = []
    batch: list[str] = []
    for text in texts:
        batch.append(text)
        if len(batch) == _BATCH:
            counts += [len(encoding) for encoding in tokenizer.encode_batch(batch)]
            batch = []
    return counts + [len(encoding) for encoding in tokenizer.encode_batch(batch)]
