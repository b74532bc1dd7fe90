"""What the benchmarks of adaptation measure on: planted graphs, and real sets with users kept out of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import attrs
import numpy as np
import torch

from benchmarks.planted_cases import CASES, options_of
from copl.data.sources.planted import PlantedOptions, generate
from copl.plugins import load
from copl.records import ComparisonSet, NodeEmbeddings, PreferenceData

DOWNLOADS = Path(__file__).resolve().parents[1] / "downloads"
"""Where `copl data fetch` puts real sets, called from the checkout."""

PLANTED: Mapping[str, str] = {"planted 2 x 7": "2x7", "planted 4 x 15": "4x15"}
"""Planted sets: the case of `benchmarks.planted_cases` whose seen users and comparisons they have."""

UNSEEN = 1_000
"""Unseen users of a planted set."""

REAL: Mapping[str, tuple[str, str]] = {
    "bowling-green": ("polis", "polis/bowling-green"),
    "land-bank": ("polis", "polis/land-bank"),
    "taxes": ("polis", "polis/taxes"),
    "llmfao": ("llmfao", "llmfao"),
}
"""Real sets: source and place below downloads/. A fifth of the users is unseen."""

SUPPORT = 16
"""Support comparisons of an unseen user: of planted ones exactly, of others at most."""


def present() -> list[str]:
    """Return the names of the sets that can be made here."""
    return [*PLANTED, *(name for name, (_, place) in REAL.items() if (DOWNLOADS / place).is_dir())]


def planted_options(name: str, scale: float = 1.0) -> PlantedOptions:
    """Return the options of a planted set, with users and pairs scaled: the graph of encoders, and unseen users."""
    unseen = max(round(UNSEEN * scale), 1)
    return attrs.evolve(options_of(CASES[PLANTED[name]], scale), num_unseen_users=unseen, num_support=SUPPORT)


def make(name: str, seed: int, scale: float = 1.0) -> PreferenceData:
    """Return a data set, planted ones scaled; no two splits of a Polis participant share a statement."""
    if name in PLANTED:
        return generate(planted_options(name, scale), seed)[0]
    source, place = REAL[name]
    options = {"path": DOWNLOADS / place, "unseen_fraction": 0.2, "cold_fraction": 0.0, "support": SUPPORT}
    real: PreferenceData = load().registry("source").create(source, options).load(seed=seed)
    return real


def first_of_each(support: ComparisonSet, count: int) -> ComparisonSet:
    """Return the first `count` comparisons of each user."""
    rows = support.comparisons
    order = np.argsort(rows.user, kind="stable")
    users = rows.user[order]
    place = np.empty(len(rows), dtype=np.int64)
    place[order] = np.arange(len(rows)) - np.searchsorted(users, users)
    return ComparisonSet(support.users, support.responses, rows.take(place < count))


def correct(pairs: ComparisonSet, users: torch.Tensor, trained: NodeEmbeddings) -> torch.Tensor:
    """Return 1 for each of the pairs that users [N, D] are right about, 1/2 for a tie.

    An untrained response has the mean embedding and the mean bias.
    """
    rows = np.array([trained.response_rows.get(key, -1) for key in pairs.responses.keys], dtype=np.int64)
    table = torch.cat([trained.responses, trained.responses.mean(dim=0, keepdim=True)])
    bias = torch.cat([trained.response_bias, trained.response_bias.mean()[None]])
    chosen, rejected = (torch.from_numpy(rows[c]) for c in (pairs.comparisons.chosen, pairs.comparisons.rejected))
    margins = (users * (table[chosen] - table[rejected])).sum(dim=1) + bias[chosen] - bias[rejected]
    return (margins.sign().double() + 1) / 2
