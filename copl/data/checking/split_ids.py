"""A fingerprint of each split by the ids it is made of, to tell whether two people have the same splits."""

from __future__ import annotations

import numpy as np

from copl.data.hashing import hashes, mix
from copl.records import PreferenceData

_SEEDS = (np.uint64(1), np.uint64(2))


def split_digests(data: PreferenceData) -> dict[str, str]:
    """Return a digest of each split that holds comparisons.

    It follows from user ids and response keys alone: the order of comparisons and the numbering of users and responses
    do not matter, nor do weights and marks. It tells splits apart, it does not protect against forgery.
    """
    users = hashes(data.users.ids)
    responses = hashes(data.responses.keys)
    digests = {}
    for name in data.present():
        part = data.splits[name]
        sums = []
        for seed in _SEEDS:
            mixed = mix(mix(mix(users[part.user] + seed) + responses[part.chosen]) + responses[part.rejected])
            sums.append(int(mixed.sum(dtype=np.uint64)))
        digests[name] = "".join(f"{value:016x}" for value in sums)
    return digests
