"""What the benchmarks of adaptation measure on: planted graphs, and real sets with users kept out of training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from copl.data.planted.source import PlantedOptions, generate
from copl.options import parse_options
from copl.plugins import load
from copl.records import ComparisonSet, NodeEmbeddings, PreferenceData

SHARED = Path(__file__).resolve().parents[1] / "../shared/data"

PLANTED: Mapping[str, dict[str, Any]] = {
    "planted 2 x 7": {"num_groups": 2, "num_train": 7},
    "planted 4 x 15": {"num_groups": 4, "num_train": 15},
}
"""Groups and training comparisons a user; 10,000 seen users over 27,000 trained pairs, half of them controversial."""

REAL: Mapping[str, tuple[str, str]] = {
    "bowling-green": ("polis", "polis/american-assembly.bowling-green"),
    "land-bank": ("polis", "polis/ssis.land-bank-farmland.2rumnecbeh.2021-08-01"),
    "taxes": ("polis", "polis/scoop-hivemind.taxes"),
    "llmfao": ("llmfao", "llmfao"),
}
"""Real sets: source and place below ../shared/data. A fifth of the users is unseen."""

SUPPORT = 16
"""Support comparisons of an unseen user at most."""


def present() -> list[str]:
    """Return the names of the sets that can be made here."""
    return [*PLANTED, *(name for name, (_, place) in REAL.items() if (SHARED / place).is_dir())]


def planted_options(name: str, scale: float = 1.0) -> PlantedOptions:
    """Return the options of a planted set, with users and pairs scaled."""
    sizes = {"num_seen_users": 10_000, "num_unseen_users": 1_000, "num_pairs": 30_000}
    scaled = {size: max(round(number * scale), 1) for size, number in sizes.items()}
    return parse_options(PlantedOptions, {"num_support": SUPPORT, **scaled, **PLANTED[name]}, where=name)


def make(name: str, seed: int, scale: float = 1.0) -> PreferenceData:
    """Return a data set, planted ones scaled; no two splits of a Polis participant share a statement."""
    if name in PLANTED:
        return generate(planted_options(name, scale), seed)[0]
    source, place = REAL[name]
    options = {"path": SHARED / place, "unseen_fraction": 0.2, "cold_fraction": 0.0, "support": SUPPORT}
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
    return (margins > 0).double() + 0.5 * (margins == 0).double()
