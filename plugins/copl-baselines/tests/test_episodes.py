"""Which comparisons an episode shows of a user, and which it asks for."""

from __future__ import annotations

from collections.abc import Callable

import torch

from copl_baselines.episodes import episode
from copl_baselines.pairs import Pairs


def test_an_episode_shows_some_comparisons_of_each_user_and_never_the_only_one(
    make_pairs: Callable[..., Pairs],
) -> None:
    batch = make_pairs(torch.zeros(2, 1), [1, 1, 1, 3], [0, 1, 0, 0], [1, 0, 1, 1])
    for seed in range(10):
        pairs, shown = episode(batch, 0.0, torch.Generator().manual_seed(seed))
        assert pairs.users.ids == ("user-1", "user-3")
        assert int(shown[:3].sum()) in (1, 2)
        assert not bool(shown[3])
