"""The kit passes a good toy method and catches a broken one of each fault."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from copl.interfaces import FormerRun, PreferenceModel, Workspace
from copl.plugins import Component, Registered
from copl.records import AdaptedUsers, ComparisonSet, FloatArray, PreferenceData, ResponseTable, ScoreRequests
from copl.records.explanation import Explanation, Part
from copl.runs.code import code_digest
from copl.runs.recipe import Stages
from copl.testing import CheckResult, check_component
from copl.testing.check import fingerprint_of, global_randomness_untouched
from copl.testing.tiny_model import write_tiny_model


@attrs.frozen
class NoOptions:
    pass


class Popularity(PreferenceModel):
    """Scores a response by its net votes, and by its length where it has none."""

    votes: dict[str, float]

    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        rows = data.splits["train"]
        net = np.bincount(rows.chosen, minlength=len(data.responses)) - np.bincount(
            rows.rejected, minlength=len(data.responses)
        )
        tensors = {key: torch.tensor(float(n)) for key, n in zip(data.responses.keys, net, strict=True)}
        directory = workspace.stage(
            "votes", key=self.key(seed), compute=lambda d: save_file(tensors, d / "votes.safetensors")
        )
        self.load(directory.parent)

    def key(self, seed: int) -> dict[str, Any]:
        return {"seed": seed, "code": code_digest(Popularity)}

    def load(self, directory: Path) -> None:
        found = load_file(directory / "votes" / "votes.safetensors")
        self.votes = {key: float(value) for key, value in found.items()}

    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        present = np.unique(support.comparisons.user)
        ids = tuple(support.users.ids[row] for row in present)
        num_users = len(ids)
        return AdaptedUsers(
            ids, torch.zeros(num_users, 0), ("none",) * num_users, np.zeros(num_users, int), np.zeros(num_users)
        )

    def seen_users(self) -> Collection[str]:
        return ()

    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        keys, texts = requests.responses.keys, requests.responses.texts
        return np.array([self.votes.get(keys[r], 0.0) + len(texts[r]) / 100 for r in requests.response])


class Stranger:
    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        pass


class ChangesData(Popularity):
    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        data.splits["train"].weight[:] = 0
        super().fit(data, seed=seed, workspace=workspace)


class FailsToFit(Popularity):
    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        raise RuntimeError("no convergence")


class TakesYesterdaysResult(Popularity):
    def key(self, seed: int) -> dict[str, Any]:
        return {"seed": seed}


class ForgetsNewcomers(Popularity):
    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        return AdaptedUsers((), torch.zeros(0, 0), (), np.zeros(0, int), np.zeros(0))


class AnswersWithATensor(Popularity):
    def adapt(self, support: ComparisonSet) -> Any:
        return torch.zeros(len(support.users), 2)


class ForgetsWhomItSaw(Popularity):
    """Knows its users only in the object that was fitted."""

    seen: tuple[str, ...] = ()

    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        super().fit(data, seed=seed, workspace=workspace)
        self.seen = tuple({data.users.ids[row] for row in data.splits["train"].user})

    def seen_users(self) -> Collection[str]:
        return self.seen


class NoScoreForNewResponses(Popularity):
    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        new = requests.response >= 12
        return np.where(new, np.inf, super().scores(requests, adapted))


class ClaimsToKnowNewcomers(Popularity):
    def seen_users(self) -> Collection[str]:
        return [f"user-{row}" for row in range(18)]


class KnowsOnlyTheSeen(Popularity):
    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        strange = np.array(["stranger" in requests.users.ids[row] for row in requests.user], dtype=bool)
        return np.where(strange, np.nan, super().scores(requests, adapted))


class Flat(Popularity):
    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        return super().scores(requests, adapted)[:, None]


class CentresTheBatch(Popularity):
    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        scores = super().scores(requests, adapted)
        return scores - (scores.mean() if len(scores) else 0.0)


class NeverEmpty(Popularity):
    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        return super().scores(requests, adapted) if len(requests) else np.zeros(1)


class LoadsNothing(Popularity):
    def load(self, directory: Path) -> None:
        if not hasattr(self, "votes") and directory.name == "run" and (directory / "read").exists():
            self.votes = {}
        else:
            super().load(directory)
            (directory / "read").touch()


class Moody(Popularity):
    times = 0

    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        super().fit(data, seed=seed, workspace=workspace)
        Moody.times += 1
        self.votes = {key: value * Moody.times for key, value in self.votes.items()}


class GoesOn(Popularity):
    @property
    def continues(self) -> bool:
        return True

    def fit_from(self, data: PreferenceData, former: FormerRun, *, seed: int, workspace: Workspace) -> None:
        former.tell("votes", "continued")
        self.fit(data, seed=seed, workspace=workspace)


class GoesElsewhere(GoesOn):
    def fit_from(self, data: PreferenceData, former: FormerRun, *, seed: int, workspace: Workspace) -> None:
        super().fit_from(data, former, seed=seed, workspace=workspace)
        self.votes = {key: 100.0 - value for key, value in self.votes.items()}


class GoesOnInSilence(GoesOn):
    def fit_from(self, data: PreferenceData, former: FormerRun, *, seed: int, workspace: Workspace) -> None:
        self.fit(data, seed=seed, workspace=workspace)


class ExplainsTheHalf(Popularity):
    def explain(self, user: str, responses: ResponseTable, support: ComparisonSet | None) -> Explanation:
        return Explanation(user, 1.0, (Part("everybody", 0.5),), 0.0, 0.5, 0)


class ExplainsAnother(Popularity):
    def explain(self, user: str, responses: ResponseTable, support: ComparisonSet | None) -> Explanation:
        return Explanation(user, 1e3, (Part("everybody", 1e3),), 0.0, 0.5, 0)


class Undecided(Popularity):
    continues: Any = "perhaps"


def check(kind: type) -> dict[str, CheckResult]:
    def build(options: NoOptions, *, stages: Stages) -> Any:
        return kind()

    component = Component("toy", NoOptions, build, "A toy.")
    return {result.name: result for result in check_component(Registered(component, "toy-package", "1"), "method")}


@pytest.mark.parametrize("kind", [Popularity, GoesOn])
def test_a_good_method_passes(kind: type) -> None:
    results = check(kind)
    assert {result.outcome for result in results.values()} == {"passed"}
    assert len(results) == 17


@pytest.mark.parametrize(
    ("kind", "finding"),
    [
        (Stranger, "build gave Stranger, which does not derive from it"),
        (ChangesData, "fit changed the data set"),
        (FailsToFit, "raised RuntimeError: no convergence"),
        (TakesYesterdaysResult, "no key of a stage has the code in it"),
        (ForgetsNewcomers, "no embedding for user-12, user-13"),
        (AnswersWithATensor, "adapt returned Tensor, not AdaptedUsers"),
        (ForgetsWhomItSaw, "seen_users are others after load"),
        (NoScoreForNewResponses, "scores are not finite"),
        (ClaimsToKnowNewcomers, "trained on 12 users, but seen_users are"),
        (KnowsOnlyTheSeen, "the score of an unknown user is not finite"),
        (Flat, "scores must be ["),
        (CentresTheBatch, "scores change with the order or size of the batch"),
        (NeverEmpty, "scores for requests that were not made"),
        (LoadsNothing, "a loaded method scores otherwise"),
        (GoesElsewhere, "going on without news moves scores by"),
        (GoesOnInSilence, "fit_from told of no part"),
        (Undecided, "continues must be True or False, got 'perhaps'"),
        (ExplainsTheHalf, "parts add up to 0.5, not to the score"),
        (ExplainsAnother, "explains 1e+03, not "),
        (Moody, "two fits with the same seed score differently"),
    ],
)
def test_a_broken_method_is_caught(kind: type, finding: str) -> None:
    assert finding in " | ".join(result.detail for result in check(kind).values() if not result.passed)


def test_the_tiny_model_is_a_backbone_and_leaves_randomness_alone(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    with global_randomness_untouched():
        directory = write_tiny_model(tmp_path / "model", ["a brief answer"])
    tokenizer = transformers.AutoTokenizer.from_pretrained(directory)
    assert tokenizer("a brief answer").input_ids == [3, 5, 4]  # after <unk>, <pad> and <end>, in alphabetical order
    model = transformers.AutoModel.from_pretrained(directory)
    assert sum(parameter.numel() for parameter in model.parameters()) < 20_000


def test_fingerprints_see_every_array(tmp_path: Path) -> None:
    one, other = {"a": np.zeros(2)}, {"a": np.array([0.0, 1.0])}
    assert fingerprint_of(one) != fingerprint_of(other)
    assert fingerprint_of((torch.zeros(2), "x")) == fingerprint_of((torch.zeros(2), "x"))
    assert fingerprint_of(torch.zeros(2)) != fingerprint_of(torch.zeros(2, dtype=torch.float64))
