"""Random numbers that belong to one prompt and one candidate, whatever else is asked for beside it."""

from __future__ import annotations

import hashlib

import numpy as np


def seed_of(seed: int, prompt: str, place: int) -> int:
    """Return a seed, below 2^63, for the candidate at a place among those of a prompt."""
    digest = hashlib.blake2b(f"{seed}\x00{place}\x00".encode(), digest_size=8)
    digest.update(prompt.encode("utf-8", "surrogatepass"))
    return int.from_bytes(digest.digest(), "little") >> 1


def stream(seed: int, prompt: str, place: int) -> np.random.Generator:
    """Return a generator of random numbers for the candidate at a place among those of a prompt."""
    return np.random.default_rng(seed_of(seed, prompt, place))
