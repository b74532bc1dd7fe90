"""A fingerprint of each split by the ids it is made of, to tell whether two people have the same splits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from copl.records import PreferenceData

# Odd constants of the mixer of SplitMix64 (Steele, Lea and Flood, 2014).
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SEEDS = (np.uint64(1), np.uint64(2))


def split_digests(data: PreferenceData) -> dict[str, str]:
    """Return a digest of each split that holds comparisons.

    It follows from user ids and response keys alone: the order of comparisons and the numbering of users and responses
    do not matter, nor do weights and marks. It tells splits apart, it does not protect against forgery.
    """
    users = _hashes(data.users.ids)
    responses = _hashes(data.responses.keys)
    digests = {}
    for name in data.present():
        part = data.splits[name]
        sums = []
        for seed in _SEEDS:
            mixed = _mix(_mix(_mix(users[part.user] + seed) + responses[part.chosen]) + responses[part.rejected])
            sums.append(int(mixed.sum(dtype=np.uint64)))
        digests[name] = "".join(f"{value:016x}" for value in sums)
    return digests


def _hashes(names: Sequence[str]) -> Any:
    """Return a 64-bit hash of each name."""
    content = b"".join(hashlib.blake2b(name.encode("utf-8", "surrogatepass"), digest_size=8).digest() for name in names)
    return np.frombuffer(content, dtype="<u8").astype(np.uint64)


def _mix(values: Any) -> Any:
    """Return numbers [N] whose every bit depends on every bit of the ones given."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
