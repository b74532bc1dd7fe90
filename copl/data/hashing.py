"""Numbers that follow from names alone: the same whenever, wherever and in whatever company they are computed."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from copl.records import FloatArray

# Odd constants of the mixer of SplitMix64 (Steele, Lea and Flood, 2014).
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def hashes(names: Sequence[str], salt: str = "") -> Any:
    """Return a 64-bit hash [N] of each name; another salt gives hashes that tell nothing of these."""
    key = hashlib.blake2b(salt.encode(), digest_size=16).digest() if salt else b""
    begun, digests = hashlib.blake2b(digest_size=8, key=key), []
    for name in names:
        one = begun.copy()  # the key is taken in once, not with each name
        one.update(name.encode("utf-8", "surrogatepass"))
        digests.append(one.digest())
    return np.frombuffer(b"".join(digests), dtype="<u8").astype(np.uint64)


def mix(values: Any) -> Any:
    """Return 64-bit numbers [N] whose every bit depends on every bit of the ones given."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))


def fractions(values: Any) -> FloatArray:
    """Return 64-bit hashes [N] as numbers from 0 up to 1."""
    unit: FloatArray = (values >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return unit
