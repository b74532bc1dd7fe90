"""Pages that are written once: the last line of a page says what it was made of, and that it is whole."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs
import numpy as np


def digest_of(*parts: object) -> str:
    """Return a digest of plain values, arrays, mappings, sequences and attrs records of these; the order counts.

    >>> digest_of("ab", "c") == digest_of("a", "bc"), digest_of([1, 2]) == digest_of((1, 2))
    (False, True)
    """
    digest = hashlib.sha256()
    for piece in _pieces(parts):
        digest.update(len(piece).to_bytes(8, "little"))
        digest.update(piece)
    return digest.hexdigest()[:32]


def sealed(page: str, made_of: str) -> str:
    """Return a page of HTML with a last line that says what it was made of.

    Args:
        page: the page.
        made_of: digest of that.
    """
    return f"{page.rstrip()}\n{_seal(page.rstrip(), made_of)}\n"


def is_page_of(path: Path, made_of: str) -> bool:
    """Return whether the page of that name is there as it was made, and of the same."""
    try:
        page, _, seal = path.read_text(encoding="utf-8").rstrip().rpartition("\n")
    except (OSError, UnicodeDecodeError):
        return False
    return seal == _seal(page, made_of)


def _seal(page: str, made_of: str) -> str:
    return f"<!-- made of {made_of}, whole as {hashlib.sha256(page.encode()).hexdigest()[:32]} -->"


def _pieces(value: Any) -> Iterator[bytes]:
    """Yield a value in pieces, each collection with its length first, so that no two values give the same."""
    if isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape}".encode()
        yield np.ascontiguousarray(value).tobytes()
    elif attrs.has(type(value)):
        yield from _pieces({field.name: getattr(value, field.name) for field in attrs.fields(type(value))})
    elif isinstance(value, Mapping):
        yield f"{len(value)} pairs".encode()
        for name, inner in value.items():
            yield from _pieces((name, inner))
    elif isinstance(value, list | tuple):
        yield f"{len(value)} in turn".encode()
        for inner in value:
            yield from _pieces(inner)
    else:
        yield f"{type(value).__name__} {value!r}".encode(errors="surrogatepass")
