"""Method `copl` where no two users share a text."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from copl.interfaces import PreferenceModel
from copl.plugins import load
from copl.records import AdaptedUsers, PreferenceData, ScoreRequests
from copl.runs.recipe import resolve
from copl.runs.workspace import RunWorkspace
from copl.system.progress import SilentProgress
from copl.testing.tiny_model import write_tiny_model

ISLANDS = {
    "num_seen_users": 60,
    "num_unseen_users": 20,
    "num_prompts": 50,
    "num_groups": 2,
    "num_train": 12,
    "num_test": 4,
    "num_cold": 0,
    "agreement": 0.0,  # the average user has no opinion
    "temperature": 0.05,
    "own_wording": 1.0,
}


@pytest.fixture(scope="module")
def data() -> PreferenceData:
    # of these users' tastes even features of random weights tell much (seed 0: little)
    made: PreferenceData = load().registry("source").create("facets", ISLANDS).load(seed=1)
    return made


def accuracy(method: PreferenceModel, data: PreferenceData, split: str, adapted: AdaptedUsers | None = None) -> float:
    part = data.split(split)
    rows = part.comparisons
    responses = np.concatenate([rows.chosen, rows.rejected])
    requests = ScoreRequests(part.users, part.responses, np.tile(rows.user, 2), responses)
    chosen, rejected = method.scores(requests, adapted).reshape(2, -1)
    return float((chosen > rejected).mean())


def test_users_who_share_no_text_are_told_apart(data: PreferenceData, tmp_path: Path) -> None:
    """Better than chance by more than three standard errors, seen and unseen, on texts nobody has judged."""
    model = write_tiny_model(tmp_path / "model", [*data.responses.texts, *data.responses.prompts])
    draft = {
        "method": {"name": "copl"},
        "encoder": {"name": "tastes"},
        "backbone": {"name": str(model)},
        "reward": {"mode": "frozen"},
    }
    recipe = resolve(draft, load(), seed=0)
    fitted, loaded = recipe.build(), recipe.build()
    run = tmp_path / "run"
    run.mkdir()
    fitted.fit(data, seed=0, workspace=RunWorkspace(run, SilentProgress()))
    adapted = fitted.adapt(data.split("support"))
    assert set(adapted.how) == {"empirical"}
    assert (adapted.confidence > 0).all()
    for split, users in (("test", None), ("heldout", adapted)):
        assert accuracy(fitted, data, split, users) > 0.5 + 3 * 0.5 / len(data.split(split)) ** 0.5
    assert accuracy(fitted, data, "heldout", adapted) > accuracy(fitted, data, "heldout") + 0.1  # the average user
    loaded.load(run)
    assert accuracy(loaded, data, "test") == accuracy(fitted, data, "test")
