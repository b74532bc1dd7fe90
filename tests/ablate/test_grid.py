"""Combinations become variants: each distinct recipe once, called after what makes a difference to it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copl.ablate.grid import Plan
from copl.errors import OptionsError

MakePlan = Callable[..., Plan]


def names(plan: Plan) -> list[str]:
    return [variant.name for variant in plan.variants]


def test_a_part_that_a_method_does_not_have_is_not_varied_for_it(make_plan: MakePlan) -> None:
    plan = make_plan(vary=["gate=top1,none", "method=copl,btl,graph"])
    assert names(plan) == ["copl, gate=top1", "btl", "graph", "copl, gate=none"]
    assert plan.reference == "btl"
    assert plan.num_cells == 4 * 2


def test_gains_are_over_the_best_that_knows_no_users(make_plan: MakePlan) -> None:
    plan = make_plan(vary=["method=graph,length,consensus,copl"])
    assert (plan.reference, plan.unpersonalised) == ("best unpersonalised", ("length", "consensus"))
    assert make_plan(vary=["method=graph,length"]).reference == "length"
    assert make_plan(vary=["encoder=none,mf"]).unpersonalised == ("none",)  # no encoder, no user
    assert make_plan(vary=["encoder=mf,gcf"]).reference == "mf"
    with pytest.raises(OptionsError, match="no such variant"):
        make_plan(vary=["encoder=mf,gcf"], reference="best unpersonalised")


def test_an_option_is_varied_only_where_the_component_has_it(make_plan: MakePlan) -> None:
    plan = make_plan(vary=["encoder=mf,gcf", "encoder.num_epochs=1,2"])
    assert names(plan) == ["encoder=mf", "encoder=gcf, encoder.num_epochs=1", "encoder=gcf, encoder.num_epochs=2"]
    recipes = [variant.recipe for variant in plan.variants]
    assert [recipe.stages.parts["encoder"].name for recipe in recipes] == ["mf", "gcf", "gcf"]
    assert recipes[0].stages.parts["encoder"].options.num_steps == 5  # of the base, dropped where gcf is chosen
    assert [recipe.stages.parts["encoder"].options.num_epochs for recipe in recipes[1:]] == [1, 2]


def test_one_axis_names_variants_by_its_value(make_plan: MakePlan) -> None:
    assert names(make_plan(vary=["encoder=mf,gcf"])) == ["mf", "gcf"]
    assert names(make_plan(vary=["encoder.num_steps=1,2"])) == ["encoder.num_steps=1", "encoder.num_steps=2"]
    assert names(make_plan()) == ["graph"]


def test_variants_by_hand_stand_beside_the_grid(make_plan: MakePlan, tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    text = """
    [[variants]]
    name = "long"
    values = { "encoder.num_steps" = 9 }
    [[variants]]
    name = "elsewhere"
    values = { method = "never-heard-of" }
    requires = "no-such-package"
    """
    path.write_text(text)
    alone = make_plan(path)
    assert names(alone) == ["long"]
    assert alone.left_out == {"elsewhere": "no-such-package"}
    assert names(make_plan(path, vary=["encoder=mf,gcf"])) == ["mf", "gcf", "long"]


@pytest.mark.parametrize(
    ("flags", "faults"),
    [
        ({"vary": ["encodr=mf"]}, ["--vary encodr: unknown section 'encodr' (did you mean 'encoder'?)"]),
        ({"vary": ["encoder=gfc"]}, ["unknown encoder 'gfc' (did you mean 'gcf'?)"]),
        ({"vary": ["encoder.num_stps=1"]}, ["unknown option 'num_stps' (did you mean 'num_steps'?)"]),
        ({"vary": ["gate=top1"]}, ["--vary gate: makes no difference to any variant"]),
        ({"vary": ["encoder.num_steps=a,b"]}, ["encoder.mf.num_steps: expected int, got 'a'", "got 'b'"]),
        (
            {"vary": ["encoder=gfc", "adapter=men"], "settings": ["reward.max_stps=3"]},
            ["unknown encoder 'gfc'", "unknown adapter 'men'"],
        ),
        ({"vary": ["encoder=mf,gcf"], "reference": "mff"}, ["--reference mff: no such variant (did you mean 'mf'?)"]),
        ({"settings": ["encoders.num_steps=3"]}, ["unknown section 'encoders' (did you mean 'encoder'?)"]),
    ],
)
def test_mistakes_are_told_with_a_suggestion(make_plan: MakePlan, flags: dict[str, Any], faults: list[str]) -> None:
    with pytest.raises(OptionsError) as caught:
        make_plan(**flags)
    for fault in faults:
        assert fault in "\n".join(caught.value.faults)
    assert len(set(caught.value.faults)) == len(caught.value.faults)


def test_mistakes_of_data_and_variants(make_plan: MakePlan, tmp_path: Path, planted: Path) -> None:
    path = tmp_path / "study.toml"
    text = """
    [data.a]
    source = "fasets"
    [data.b]
    source = "facets"
    options = { num_promts = 3 }
    [data.c]
    source = "jsonl"
    options = { path = "rows.jsonl" }
    [data.d]
    directory = "nothing"
    [[variants]]
    name = "twice"
    values = { "gate.num_experts" = 3 }
    [[variants]]
    name = "twice"
    [[variants]]
    name = "twice"
    """
    path.write_text(text)
    with pytest.raises(OptionsError) as caught:
        make_plan(path, data=())
    found = "\n".join(caught.value.faults)
    for fault in (
        "data 'a': unknown source 'fasets' (did you mean 'facets'?)",
        "data 'b': data.b: unknown option 'num_promts' (did you mean 'num_prompts'?)",
        f"data 'c': path {tmp_path / 'rows.jsonl'}: no such file or directory",
        f"data 'd': {tmp_path / 'nothing'} is no data set",
        "variant 'twice': method 'graph' has no part 'gate'",
        "two variants are called 'twice'",
    ):
        assert fault in found, fault
