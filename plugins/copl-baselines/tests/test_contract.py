"""Every method of the package: the conformance kit, files, seeds, the shared features."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import copl_baselines
from copl.errors import DataError, RunError
from copl.plugins import load
from copl.records import Comparisons, ComparisonSet, PreferenceData, ResponseTable, ScoreRequests, UserTable
from copl.runs.recipe import Stages
from copl.runs.workspace import RunWorkspace
from copl.system.progress import SilentProgress
from copl.testing import check_component

NAMES = [component.name for component in copl_baselines.copl_preference_models()]
SHORT = {"max_steps": "20"}


@pytest.mark.parametrize("name", NAMES)
def test_a_method_keeps_the_contract(name: str) -> None:
    results = check_component(load().registry("method").get(name), "method", SHORT)
    assert {result.name: result.detail for result in results if not result.passed} == {}


@pytest.mark.parametrize("name", NAMES)
def test_a_loaded_method_scores_and_adapts_exactly_alike(name: str, fit: Callable[..., Any]) -> None:
    fitted = fit(name, **SHORT)
    again = fitted.build()
    again.load(fitted.directory)
    support, heldout = fitted.data.split("support"), fitted.data.split("heldout")
    first, second = fitted.method.adapt(support), again.adapt(support)
    np.testing.assert_array_equal(first.embeddings.numpy(), second.embeddings.numpy())
    np.testing.assert_array_equal(fitted.method.margins(heldout, first), again.margins(heldout, second))


@pytest.mark.parametrize("name", NAMES)
def test_a_newcomer_is_placed_alone_as_among_others(name: str, fit: Callable[..., Any]) -> None:
    fitted = fit(name, **SHORT)
    support = fitted.data.split("support")
    together = fitted.method.adapt(support)
    for row in (0, 5):
        user = fitted.data.users.rows[together.user_ids[row]]
        own = ComparisonSet(
            support.users, support.responses, support.comparisons.take(support.comparisons.user == user)
        )
        alone = fitted.method.adapt(own)
        np.testing.assert_allclose(alone.embeddings[0], together.embeddings[row], atol=1e-4)


def test_features_are_computed_once_for_all_methods_and_seeds(fit: Callable[..., Any]) -> None:
    keys = {
        json.loads((fitted.directory / "features" / "stage.json").read_text())["key"]
        for fitted in (fit("dpl", **SHORT), fit("dpl", seed=1, **SHORT), fit("i2e", **SHORT))
    }
    assert len(keys) == 1


def test_a_text_that_was_not_in_the_data_is_read_when_asked_for(fit: Callable[..., Any]) -> None:
    fitted = fit("dpl", **SHORT)
    known, requests = fitted.data.responses, []
    for texts in (known.texts[:1], (known.texts[0], "short kind words")):
        table = ResponseTable([known.prompts[0]] * len(texts), texts)
        rows = np.arange(len(texts))
        requests.append(ScoreRequests(UserTable.ungrouped(["new"]), table, rows * 0, rows))
    alone, both = (fitted.method.scores(request) for request in requests)
    assert alone[0] == pytest.approx(both[0], abs=1e-6)
    assert both[0] != pytest.approx(both[1], abs=1e-6)


def test_a_data_set_without_training_comparisons_is_refused(
    data: PreferenceData, stages: Stages, tmp_path: Path
) -> None:
    empty = PreferenceData(data.name, data.users, data.responses, {"train": Comparisons.empty()})
    method = load().registry("method").create("dpl", {}, stages=stages)
    with pytest.raises(DataError, match="no comparisons in the split 'train'; dpl needs some"):
        method.fit(empty, seed=0, workspace=RunWorkspace(tmp_path, SilentProgress()))


def test_missing_and_damaged_files_are_errors_of_the_run(fit: Callable[..., Any], tmp_path: Path) -> None:
    fitted = fit("dpl", **SHORT)
    with pytest.raises(RunError, match="missing; train again"):
        fitted.build().load(tmp_path)
    (fitted.directory / "baseline" / "model.json").write_text("{")
    with pytest.raises(RunError, match=r"model\.json: damaged"):
        fitted.build().load(fitted.directory)


def test_a_user_nobody_knows_is_scored_as_the_average_one(fit: Callable[..., Any]) -> None:
    fitted = fit("i2e", **SHORT)
    requests = ScoreRequests(UserTable.ungrouped(["stranger", "user-0"]), fitted.data.responses, [0, 1], [3, 3])
    model = fitted.method.fitted
    codes = model.model.encode(model.texts.of(fitted.data.responses, np.array([3])))
    mean = model.states.mean(0, keepdim=True)
    stranger, known = fitted.method.scores(requests)
    assert stranger == pytest.approx(float(model.model.combine(codes, mean)), abs=1e-6)
    assert known == pytest.approx(float(model.model.combine(codes, model.states[:1])), abs=1e-6)
