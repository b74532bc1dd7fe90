"""What each method learns of planted preferences: two groups who want opposite things and share a liking.

Knowing no user, .5 + what all share is the limit; knowing the group, nine in ten choices.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

QUICK = {"max_steps": 200, "eval_every": 20, "patience": 3}
PERSONAL = ["i2e", "i2e-proxy", "vpl", "pal-a", "pal-b", "lore", "group-oracle", "pref", "mrm", "gpo", "p-ttt"]
SMALL = {"gpo": {"point_dim": 16, "max_context": 14}}  # where the default takes long
COMPARABLE = [name for name in PERSONAL if name != "gpo"]  # whose states are points of one space


@pytest.fixture(scope="module")
def unpersonalised(fit: Callable[..., Any]) -> dict[str, float]:
    fitted = fit("dpl", width=0, **QUICK)
    return {split: fitted.accuracy(split) for split in ("test", "cold", "heldout")}


def test_the_planted_data_need_personal_rewards(unpersonalised: dict[str, float]) -> None:
    assert all(0.5 < value < 0.7 for value in unpersonalised.values())


@pytest.mark.parametrize("name", PERSONAL)
def test_a_personal_method_is_far_ahead_for_seen_and_unseen_users(
    name: str, fit: Callable[..., Any], unpersonalised: dict[str, float]
) -> None:
    fitted = fit(name, **QUICK, **SMALL.get(name, {}))
    for split in ("test", "cold", "heldout"):
        assert fitted.accuracy(split) > unpersonalised[split] + 0.12, split


@pytest.mark.parametrize("user_model", ["individual", "cluster"])
def test_p_rlhf_is_personal_for_seen_users_only(
    user_model: str, fit: Callable[..., Any], unpersonalised: dict[str, float]
) -> None:
    fitted = fit("p-rlhf", user_model=user_model, **QUICK)
    for split in ("test", "cold"):
        assert fitted.accuracy(split) > unpersonalised[split] + 0.12, split
    assert 0.5 < fitted.accuracy("heldout") < 0.7


@pytest.mark.parametrize("distribution", ["mean-variance", "categorical"])
def test_dpl_learns_what_all_users_share(distribution: str, fit: Callable[..., Any]) -> None:
    fitted = fit("dpl", distribution=distribution, **QUICK)
    rows = fitted.data.split("test").comparisons
    # texts 0 and 1, 2 and 3 of a prompt differ in kindness alone
    same_length = rows.chosen // 2 == rows.rejected // 2
    margins = fitted.method.margins(fitted.data.split("test"))
    assert float((margins[same_length] > 0).mean()) > 0.8


def test_the_oracle_is_near_the_limit(fit: Callable[..., Any]) -> None:
    fitted = fit("group-oracle", **QUICK)
    assert min(fitted.accuracy(split) for split in ("test", "cold", "heldout")) > 0.85


@pytest.mark.parametrize("name", COMPARABLE)
def test_a_group_of_newcomers_is_told_from_the_other_by_their_comparisons(name: str, fit: Callable[..., Any]) -> None:
    fitted = fit(name, **QUICK)
    adapted = fitted.method.adapt(fitted.data.split("support"))
    states = adapted.embeddings.double().numpy()
    brief = np.array([fitted.data.users.groups[fitted.data.users.rows[user]] == "brief" for user in adapted.user_ids])
    centres = np.stack([states[brief].mean(0), states[~brief].mean(0)])
    nearest = np.linalg.norm(states[:, None] - centres, axis=2).argmin(1) == 0
    assert float((nearest == brief).mean()) > 0.8
