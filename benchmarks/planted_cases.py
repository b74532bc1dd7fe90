"""The planted graphs that encoders are measured on, how they are judged there, and what can be known of them."""

from __future__ import annotations

import attrs
import numpy as np
import torch

from benchmarks.limits import MAX_GROUPS, answers, consensus, mixture, posterior, share_right
from copl.data.sources.planted import PlantedOptions, generate
from copl.data.sources.planted.source import PlantedSource
from copl.evaluate.bootstrap import sampled_from, spread
from copl.options import parse_options
from copl.records import Comparisons, ComparisonSet, FloatArray, NodeEmbeddings, PreferenceData

CASES: dict[str, dict[str, float]] = {
    "2x7": {},
    "4x15": {"num_groups": 4, "num_train": 15},
    "4x15-80": {"num_groups": 4, "num_train": 15, "controversial_share": 0.8},
    "3x11": {"num_groups": 3, "num_train": 11, "num_seen_users": 3_000, "num_pairs": 9_000},
    "2x7-noise": {"label_noise": 0.1},
}
"""Groups x training comparisons of a user, as options of the source `planted`, whose defaults are the first case."""


def options_of(case: dict[str, float], scale: float = 1.0) -> PlantedOptions:
    """Return the options of a case with users and pairs scaled.

    Raises:
        OptionsError: all faults of the options.
    """
    options = parse_options(PlantedOptions, case, where="case")
    users, pairs = round(options.num_seen_users * scale), round(options.num_pairs * scale)
    return attrs.evolve(options, num_seen_users=max(users, 1), num_pairs=max(pairs, 1))


def data_of(options: dict[str, float], seed: int) -> PreferenceData:
    return PlantedSource(parse_options(PlantedOptions, options, where="case")).load(seed=seed)


def limits_cell(options: dict[str, float], seed: int) -> dict[str, float | str]:
    """Return the accuracy of consensus, mixture and statistical limit on the held-out comparisons of one graph."""
    parsed = parse_options(PlantedOptions, options, where="case")
    data, _ = generate(parsed, seed)
    parts, num_pairs = answers(data, ("train", "validation", "test"))
    train, held, asked = (parts[name] for name in ("train", "validation", "test"))
    sizes = len(data.users), num_pairs, parsed.num_groups
    found: dict[str, float | str] = {
        "consensus": share_right(consensus(train, asked, num_pairs), asked.won),
        "mixture": share_right(mixture(train, held, asked, *sizes, seed=seed), asked.won),
        "digest": data.digest("train", "validation", "test")[:12],
        "comparisons": len(train.user),
        "asked": len(asked.user),
    }
    if parsed.num_groups <= MAX_GROUPS:
        known = posterior(train, asked, *sizes, parsed.controversial_share, parsed.label_noise, seed=seed)
        found["limit"] = share_right(known, asked.won)
    else:
        found["limit"] = found["mixture"]
    return found


def margins_of(embeddings: NodeEmbeddings, data: PreferenceData, rows: Comparisons) -> FloatArray:
    """Return e_u . (e_chosen - e_rejected) + b_chosen - b_rejected [N]; what is not embedded counts as zeros."""
    user = np.array([embeddings.user_rows.get(user, -1) for user in data.users.ids], dtype=np.int64)[rows.user]
    keys = data.responses.keys
    known = np.array([embeddings.response_rows.get(key, -1) for key in keys], dtype=np.int64)
    tables = [torch.cat([t, torch.zeros_like(t[:1])]).double() for t in (embeddings.users, embeddings.responses)]
    bias = torch.cat([embeddings.response_bias, torch.zeros(1)]).double()
    chosen, rejected = torch.from_numpy(known[rows.chosen]), torch.from_numpy(known[rows.rejected])
    difference = tables[1][chosen] - tables[1][rejected]
    margins: FloatArray = (
        (tables[0][torch.from_numpy(user)] * difference).sum(dim=1) + bias[chosen] - bias[rejected]
    ).numpy()
    return margins


def right_of(embeddings: NodeEmbeddings, data: PreferenceData, split: str = "test") -> FloatArray:
    """Return which comparisons of a split are right [N], 1 or 0; a tie is half right."""
    margins = margins_of(embeddings, data, data.splits[split])
    right: FloatArray = np.where(np.abs(margins) < 1e-9, 0.5, margins > 0)
    return right


def reach_of(right: FloatArray, asked: ComparisonSet) -> float:
    """Return half the width of the 95 % interval of an accuracy over users and texts.

    Args:
        right: which comparisons are right [N].
        asked: the comparisons.
    """
    return spread((right - right.mean()) / len(right), sampled_from(asked)).reach


def accuracies(embeddings: NodeEmbeddings, data: PreferenceData, split: str = "test") -> dict[str, float]:
    """Return the accuracy on all, on controversial and on common comparisons of a split; a tie is half right."""
    rows, right = data.splits[split], right_of(embeddings, data, split)
    parts = {"all": np.ones(len(rows), dtype=bool), "controversial": rows.controversial == 1}
    parts["common"] = rows.controversial == 0
    return {name: float(right[part].mean()) for name, part in parts.items() if part.any()}
