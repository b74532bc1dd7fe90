"""The search: the same budget for everybody, ranges checked beforehand, decided on validation alone, taken up again."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from copl.ablate.cells import Cell, Outcome, Validation
from copl.ablate.conduct import Found
from copl.ablate.grid import Plan
from copl.ablate.ranges import draw
from copl.ablate.search import declared, judge, search_table, trial_name, trials_of
from copl.errors import OptionsError
from copl.plugins import Range, load
from copl.runs.recipe import resolve
from copl.system.documents import write_document

MakePlan = Callable[..., Plan]
RunPlan = Callable[..., tuple[Found, list[str]]]

STUDY = """
[search]
num_trials = 4
seed = 77
[search.ranges.steps]
"encoder.num_steps" = [1, 60]
encoder.bias_precision = { low = 0.1, high = 2.0, log = true }
[[variants]]
name = "steps"
[[variants]]
name = "length"
values = { method = "length" }
"""


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "study.toml"
    path.write_text(STUDY)
    return path


def test_the_best_on_validation_is_what_the_study_runs(
    study: Path, make_plan: MakePlan, run_plan: RunPlan, tmp_path: Path
) -> None:
    plan, out = make_plan(study, num_seeds=2), tmp_path / "out"
    found, said = run_plan(plan, out)
    assert any("10 trials: 0 finished, 0 failed, 10 to run" in line for line in said)  # 4 + 1 on two data sets
    assert {(one.variant, one.data) for one in found.searched if one.chosen} == {
        (variant, data) for variant in ("steps", "length") for data in ("one", "two")
    }
    for data in ("one", "two"):
        here = [one for one in found.searched if (one.variant, one.data) == ("steps", data)]
        assert [one.number for one in here] == [0, 1, 2, 3]
        assert here[0].values == {}
        assert all(one.loss is not None for one in here)
        (best,) = [one for one in here if one.chosen]
        assert best.loss == min(one.loss for one in here if one.loss is not None)
        for cell in json.loads((out / "study.json").read_text())["cells"]:
            if cell["data"] == data and cell["variants"] == ["steps"]:
                recipe = (Path(cell["run"]) / "config.toml").read_text()
                assert f"num_steps = {best.values.get('encoder.num_steps', 5)}\n" in recipe
    assert list((out / "trials").rglob("metrics.json")) == []  # nothing but validation was looked at
    assert "| steps | one | 4 |" in (out / "table.md").read_text()
    assert json.loads((out / "search.json").read_text())[0]["variant"] == "steps"

    again, said = run_plan(plan, out)
    assert any("10 trials: 10 finished, 0 failed, 0 to run" in line for line in said)
    assert again.searched == found.searched
    assert [r.measured for r in again.results] == [r.measured for r in found.results]


def test_a_trial_is_drawn_from_seed_name_and_number_alone(study: Path, make_plan: MakePlan) -> None:
    plan = make_plan(study)
    assert plan.study.search is not None
    trials = trials_of(plan, plan.study.search, load())
    study.write_text(STUDY.replace("num_trials = 4", "num_trials = 6").replace('name = "length"', 'name = "other"'))
    more = make_plan(study)
    assert more.study.search is not None
    longer = trials_of(more, more.study.search, load())
    values = [trial.values for trial in trials if trial.variant == "steps"]
    assert [trial.values for trial in longer if trial.variant == "steps"][:4] == values
    assert len({json.dumps(dict(v), sort_keys=True) for v in values}) == 4


def test_every_method_declares_what_can_be_searched() -> None:
    """All but those without options, or that choose their own on validation."""
    for registered in load().registry("method"):
        name = registered.component.name
        draft = {"method": {"name": name}, "backbone": {"name": "minilm"}}
        ranges = declared(resolve(draft, load()))
        assert bool(ranges) == (name not in {"consensus", "length"}), name


@pytest.mark.parametrize(
    ("table", "fault"),
    [
        ("[search]\nnum_trials = 0", "search.num_trials: must be >= 1: 0"),
        (f"[search]\nnum_trials = {2**62}", "search.num_trials: must be <= 10000"),
        ("[search]\nnum_trials = 2\ntrails = 3", "search: unknown option 'trails'"),
        ("[search]\nnum_trials = true", "search.num_trials: expected int, got True"),
        ("[search]\nnum_trials = 2\nseed = -1", "search.seed: must be >= 0: -1"),
        (f"[search]\nnum_trials = 2\nseed = {2**63}", f"search.seed: expected int, got {2**63}"),
        ("[search]\nnum_trials = 2\n[search.ranges.graph]\nlow = 3", "expected section.option"),
        ('[search]\nnum_trials = 2\n[search.ranges.graph]\n"encoder.num_steps" = 3', "expected a list of values"),
        (
            '[search]\nnum_trials = 2\n[search.ranges.graph]\n"encoder.x" = {low = 2, high = 1}',
            "low must be below high",
        ),
        ('[search]\nnum_trials = 2\n[search.ranges.graph]\n"encoder.x" = {low = 0, high = 1, log = true}', "above 0"),
        ("search = 3", "search: expected table"),
        ("[search]\nnum_trials = 2\nranges = 3", "search.ranges: expected table, got 3"),
    ],
)
def test_a_search_that_makes_no_sense_is_refused(table: str, fault: str, make_plan: MakePlan, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    path.write_text(table)
    with pytest.raises(OptionsError, match=fault):
        make_plan(path)


@pytest.mark.parametrize(
    ("ranges", "fault"),
    [
        ("[search.ranges.grph]", "no variant 'grph' \\(did you mean 'graph'"),
        ('[search.ranges.graph]\n"encoder.num_stps" = [1]', "unknown option 'num_stps'"),
        ('[search.ranges.graph]\n"encoder.num_steps" = [1, 0]', "num_steps"),
        ('[search.ranges.graph]\n"encoder.bias_precision" = { low = -1, high = 1 }', "bias_precision"),
    ],
)
def test_a_range_beyond_what_an_option_may_be_is_found_first(
    ranges: str, fault: str, make_plan: MakePlan, run_plan: RunPlan, tmp_path: Path
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(f"[search]\nnum_trials = 3\n{ranges}\n")
    plan = make_plan(path)
    with pytest.raises(OptionsError, match=fault):
        run_plan(plan, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_trial_that_fails_is_passed_over(study: Path, make_plan: MakePlan, tmp_path: Path) -> None:
    plan = make_plan(study)
    assert plan.study.search is not None
    trials = trials_of(plan, plan.study.search, load())
    cells = [
        Cell((trial_name(trial),), "one", 77, {}, tmp_path, tmp_path / str(place), tmp_path, is_trial=True)
        for place, trial in enumerate(trials)
    ]
    for place, loss in ((1, 0.6), (2, 0.5), (4, 0.7)):  # the fourth of "steps" and its first have failed
        cells[place].run.mkdir()
        write_document(cells[place].run / "validation.json", Validation(loss, 0.75))
    judged = judge(trials, cells, {cells[0]: Outcome(("the loss is not finite",))})
    assert [one.loss for one in judged] == [None, 0.6, 0.5, None, 0.7]
    assert [one.chosen for one in judged] == [False, False, True, False, True]
    row = next(row for row in search_table(judged).rows if row[0] == "steps")
    assert row[2:7] == ("2 of 4", "", ".500", ".550", ".600")
    nothing = judge(trials[:4], cells[:4], dict.fromkeys(cells, Outcome(("gone",))))
    assert [one.chosen for one in nothing] == [True, False, False, False]  # as it stands: the study says why it fails


@given(st.floats(1e-6, 1e3), st.floats(1.01, 1e3), st.booleans(), st.sampled_from([1, 1.0, True]), st.integers(0, 99))
def test_what_is_drawn_lies_in_the_range(low: float, times: float, log: bool, like: Any, seed: int) -> None:
    value = draw(Range(low, low * times, log=log), like, np.random.default_rng(seed))
    assert low - 0.5 <= value <= low * times + 0.5
    assert isinstance(value, int) == (like == 1 and type(like) is int)
