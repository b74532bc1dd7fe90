"""Planted data whose texts show what users disagree about, features without a language model, fitted methods."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, final

import attrs
import numpy as np
import pytest
import torch
from torch import Tensor

from copl.interfaces import PreferenceModel
from copl.options import parse_options
from copl.plugins import load
from copl.records import Comparisons, PreferenceData, ResponseTable, UserTable
from copl.runs.recipe import Choice, Stages
from copl.runs.workspace import RunWorkspace
from copl.system.progress import SilentProgress
from copl.testing.tiny_model import write_tiny_model
from copl_baselines.pairs import Pairs, Texts

NUM_SEEN, NUM_USERS, NUM_PROMPTS, PER_PROMPT = 60, 80, 40, 4


def planted(seed: int = 0) -> PreferenceData:
    """Return comparisons of two groups who want opposite things on one trait and the same on another.

    A response is brief or long and kind or rude; both show in its words. Everybody prefers kind, group "brief" prefers
    brief and group "long" long, which counts twice. A tenth of the choices is reversed at random. The last users are
    unseen, the last prompts cold.
    """
    rng = np.random.default_rng(seed)
    prompts = np.repeat(np.arange(NUM_PROMPTS), PER_PROMPT)
    brief, kind = np.tile([1, 1, 0, 0], NUM_PROMPTS), np.tile([1, 0, 1, 0], NUM_PROMPTS)
    words = (("long winded words words words", "short"), ("rude", "kind"))
    texts = [f"{words[0][b]} {words[1][k]} answer {p}" for p, b, k in zip(prompts, brief, kind, strict=True)]
    group = np.arange(NUM_USERS) % 2
    value = (2 * group - 1)[:, None] * 2.0 * brief + kind
    user, chosen, rejected, place = [], [], [], []
    for row in range(NUM_USERS):
        for number, prompt in enumerate(rng.permutation(NUM_PROMPTS)[:24]):
            pair = prompt * PER_PROMPT + rng.permutation(PER_PROMPT)[:2]
            first = value[row, pair[0]] > value[row, pair[1]]
            good, bad = pair if first != (rng.random() < 0.1) else pair[::-1]
            user.append(row)
            chosen.append(int(good))
            rejected.append(int(bad))
            place.append(number)
    rows, at = Comparisons(user, chosen, rejected), np.array(place)
    seen, cold = np.array(user) < NUM_SEEN, np.array(chosen) >= PER_PROMPT * (NUM_PROMPTS - 8)
    splits = {
        "train": rows.take(seen & ~cold & (at < 14)),
        "validation": rows.take(seen & ~cold & (at >= 14) & (at < 18)),
        "test": rows.take(seen & ~cold & (at >= 18)),
        "cold": rows.take(seen & cold),
        "support": rows.take(~seen & ~cold & (at < 12)),
        "heldout": rows.take(~seen & ~cold & (at >= 12)),
    }
    users = UserTable([f"user-{u}" for u in range(NUM_USERS)], ["brief" if g else "long" for g in group])
    return PreferenceData("planted", users, ResponseTable([f"question {p}" for p in prompts], texts), splits)


@pytest.fixture(scope="session")
def data() -> PreferenceData:
    return planted()


@final
@attrs.frozen(eq=False)
class Fitted:
    """A fitted method, where its run is, and how to make another like it."""

    method: PreferenceModel
    directory: Path
    data: PreferenceData
    stages: Stages
    build: Callable[[], PreferenceModel]

    def accuracy(self, split: str) -> float:
        """Return the share of positive margins; unseen users are adapted."""
        adapted = self.method.adapt(self.data.split("support")) if split == "heldout" else None
        return float((self.method.margins(self.data.split(split), adapted) > 0).mean())


@pytest.fixture(scope="session")
def stages(data: PreferenceData, tmp_path_factory: pytest.TempPathFactory) -> Stages:
    """Parts of a recipe with a random language model that knows the words of the planted data."""
    path = write_tiny_model(tmp_path_factory.mktemp("model"), [*data.responses.texts, *data.responses.prompts])
    registered = load().registry("backbone").get("hf")
    options: Any = parse_options(registered.component.options, {"path": str(path), "pooling": "mean"}, where="hf")
    return Stages({"backbone": Choice("backbone", "hf", options, registered)}, {})


@pytest.fixture(scope="session")
def fit(data: PreferenceData, stages: Stages, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Fitted]:
    """Return a function that fits a method by name on the planted data; features are computed once a session."""
    shared = tmp_path_factory.mktemp("cache")

    @cache
    def fitted(name: str, seed: int = 0, **values: Any) -> Fitted:
        component = load().registry("method").get(name).component
        options: Any = parse_options(component.options, values, where=name)

        def build() -> PreferenceModel:
            method: PreferenceModel = component.build(options, stages=stages)
            return method

        method, root = build(), tmp_path_factory.mktemp(name)
        method.fit(data, seed=seed, workspace=RunWorkspace(root, SilentProgress(), shared))
        return Fitted(method, root, data, stages, build)

    return fitted


def _pairs(features: Tensor, user: list[int], chosen: list[int], rejected: list[int]) -> Pairs:
    users = UserTable.ungrouped([f"user-{row}" for row in range(max(user) + 1)])
    texts = Texts(features, torch.zeros(len(features), 0))
    return Pairs(users, texts, torch.tensor(user), torch.tensor(chosen), torch.tensor(rejected), torch.ones(len(user)))


@pytest.fixture
def make_pairs() -> Callable[..., Pairs]:
    """Return a function that makes pairs of features [S, H] and rows of users, chosen and rejected texts."""
    return _pairs
