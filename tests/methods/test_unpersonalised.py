"""Methods that know no users: the same reward for everybody, on responses met and never met."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from copl.data.dataset import load_dataset
from copl.interfaces import PreferenceModel
from copl.methods.length import LengthMethod
from copl.options import NoOptions
from copl.plugins import load
from copl.records import Comparisons, PreferenceData, ResponseTable, ScoreRequests, UserTable
from copl.runs.recipe import Stages, resolve
from copl.runs.workspace import RunWorkspace
from copl.system.progress import SilentProgress

UNPERSONALISED = {"btl", "consensus", "length", "dpl"}


def fitted(name: str, data: PreferenceData, model: Path, run: Path) -> tuple[PreferenceModel, PreferenceModel]:
    """A method as fitted, and as read back."""
    recipe = resolve(
        {"method": {"name": name}, "backbone": {"name": str(model)}}
        if name != "length"
        else {"method": {"name": name}},
        load(),
        seed=0,
    )
    first, second = recipe.build(), recipe.build()
    run.mkdir()
    first.fit(data, seed=0, workspace=RunWorkspace(run, SilentProgress()))
    second.load(run)
    return first, second


@pytest.mark.parametrize("name", ["consensus", "length"])
def test_everybody_gets_the_same_reward(name: str, small_data: Path, tiny_model: Path, tmp_path: Path) -> None:
    data = load_dataset(small_data)
    method, again = fitted(name, data, tiny_model, tmp_path / "run")
    users = UserTable.ungrouped([data.users.ids[0], "never seen"])
    responses = ResponseTable([*data.responses.prompts[:6], "new"], [*data.responses.texts[:6], "Never met before."])
    requests = ScoreRequests(users, responses, np.repeat([0, 1], 7), np.tile(np.arange(7), 2))
    one, other = method.scores(requests).reshape(2, -1)
    np.testing.assert_array_equal(one, other)
    assert len(np.unique(one)) > 1
    np.testing.assert_array_equal(again.scores(requests), method.scores(requests))
    adapted = method.adapt(data.split("support"))
    assert set(adapted.how) == {"unpersonalised"}
    assert method.seen_users() == ()


def test_consensus_beats_chance_on_what_users_agree_on(small_data: Path, tiny_model: Path, tmp_path: Path) -> None:
    data = load_dataset(small_data)
    method, _ = fitted("consensus", data, tiny_model, tmp_path / "run")
    pairs = data.split("train")
    agreed = pairs.comparisons.controversial == 0
    right = method.margins(pairs)[agreed] > 0
    assert right.mean() > 0.5 + 3 * 0.5 / agreed.sum() ** 0.5


@pytest.mark.parametrize("sign", [1, -1])
def test_length_learns_which_way_it_goes(sign: int, tmp_path: Path) -> None:
    texts = ["a" * number for number in range(1, 21)]
    pairs = np.array([(b, a) for a in range(20) for b in range(a + 1, 20)])[:, ::sign]
    rows = Comparisons(np.zeros(len(pairs), dtype=int), pairs[:, 0], pairs[:, 1])
    data = PreferenceData("toy", UserTable.ungrouped(["u"]), ResponseTable(["p"] * 20, texts), {"train": rows})
    method = LengthMethod(NoOptions(), stages=Stages({}, {}))
    method.fit(data, seed=0, workspace=RunWorkspace(tmp_path, SilentProgress()))
    assert (method.margins(data.split("train")) > 0).all()


def test_who_knows_no_users_says_so() -> None:
    """The components that call themselves unpersonalised are those whose name this test knows."""
    methods = {r.component.name for r in load().registry("method") if not r.component.personal}
    assert methods <= UNPERSONALISED
    assert methods >= {"btl", "consensus", "length"}
    assert {r.component.name for r in load().registry("encoder") if not r.component.personal} == {"none"}
