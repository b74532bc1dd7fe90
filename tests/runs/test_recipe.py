import importlib
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import frozen

from copl.errors import OptionsError
from copl.hookspecs import Place
from copl.options import option
from copl.plugins import Component, Plugins
from copl.runs.code import code_digest
from copl.runs.recipe import as_written, merge, parse_assignments, read_recipe, resolve, write_recipe


@frozen
class Nothing:
    pass


@frozen
class Layers:
    num_layers: int = option(2, help="number of layers")
    norm: str | None = option(None, help="kind of normalisation")


@frozen
class Training:
    steps: int = option(10, help="number of steps", before=7)


def _built(options: Any, **context: Any) -> Any:
    return options, context


def _plugins() -> Plugins:
    def copl_graph_encoders() -> list[Component]:
        presets = {"deep": {"num_layers": 9, "norm": "layer"}}
        return [
            Component("stacked", Layers, _built, "deep one", presets=presets),
            Component("mf", Nothing, _built, "flat one"),
        ]

    def copl_preference_models() -> list[Component]:
        uses, sections = ("encoder",), {"reward": Training}
        presets = {"paper": {"reward": {"steps": 1500}, "encoder": {"name": "stacked", "preset": "deep"}}}
        return [
            Component("copl", Nothing, _built, "both", uses=uses, sections=sections, presets=presets),
            Component("btl", Nothing, _built, "text alone", sections=sections),
        ]

    def copl_backbones() -> list[Component]:
        return []

    plugins = Plugins()
    hooks = (copl_graph_encoders, copl_preference_models, copl_backbones)
    plugins.register(SimpleNamespace(**{hook.__name__: hook for hook in hooks}), "toy", "toy", "1.0")
    return plugins


def test_defaults_fill_every_part() -> None:
    recipe = resolve({}, _plugins(), seed=3)
    assert recipe.to_dict() == {
        "seed": 3,
        "method": {"name": "copl"},
        "encoder": {"name": "stacked", "num_layers": 2},
        "reward": {"steps": 10},
    }
    assert recipe.stages.build("encoder", extra=1) == (Layers(), {"extra": 1})


def test_all_faults_of_a_recipe_come_at_once() -> None:
    draft = {
        "encoder": {"name": "stacked", "num_layer": "3", "norm": "x"},
        "reward": {"steps": "many"},
        "rewards": {"steps": 1},
    }
    with pytest.raises(OptionsError) as caught:
        resolve(draft, _plugins())
    assert len(caught.value.faults) == 3
    text = str(caught.value)
    assert "unknown section 'rewards' (did you mean 'reward'?)" in text
    assert "unknown option 'num_layer' (did you mean 'num_layers'?)" in text
    assert "reward.steps: expected int, got 'many'" in text


def test_an_unknown_component_is_named_with_a_suggestion() -> None:
    with pytest.raises(OptionsError, match=r"unknown encoder 'staked' \(did you mean 'stacked'\?\)"):
        resolve({"encoder": {"name": "staked"}}, _plugins())


def test_presets_are_expanded_under_the_values_given() -> None:
    recipe = resolve({"encoder": {"preset": "deep", "num_layers": "4"}, "reward": {"preset": "paper"}}, _plugins())
    assert recipe.stages.parts["encoder"].options == Layers(num_layers=4, norm="layer")
    assert recipe.stages.options("reward") == Training(steps=1500)
    with pytest.raises(OptionsError, match=r"unknown preset 'dep' \(did you mean 'deep'\?\)"):
        resolve({"encoder": {"preset": "dep"}}, _plugins())
    for section in ("encoder", "reward", "method"):
        with pytest.raises(OptionsError, match=rf"^{section}.*: unknown preset \['deep'\] ?.*; it has "):
            resolve({section: {"preset": ["deep"]}}, _plugins())


def test_a_preset_of_the_method_fills_all_parts_under_the_values_given() -> None:
    recipe = resolve({"method": {"preset": "paper"}, "encoder": {"num_layers": "4"}}, _plugins())
    assert recipe.stages.parts["encoder"].options == Layers(num_layers=4, norm="layer")
    assert recipe.stages.options("reward") == Training(steps=1500)
    other = resolve({"method": {"preset": "paper"}, "encoder": {"name": "mf"}}, _plugins())
    assert other.stages.parts["encoder"].options == Nothing()
    with pytest.raises(OptionsError, match=r"method: unknown preset 'papr' \(did you mean 'paper'\?\)"):
        resolve({"method": {"preset": "papr"}}, _plugins())


def test_a_part_the_method_lacks_is_a_fault_on_the_command_line_but_not_in_a_file() -> None:
    draft = {"method": {"name": "btl"}, "encoder": {"name": "mf"}}
    assert "encoder" not in resolve(draft, _plugins()).to_dict()
    with pytest.raises(OptionsError, match="method 'btl' has no part 'encoder'"):
        resolve(draft, _plugins(), explicit=["method", "encoder"])


def test_choosing_another_component_drops_options_of_the_former() -> None:
    document = {"encoder": {"name": "stacked", "num_layers": 3}}
    assert merge(document, {"encoder": {"name": "mf"}}) == {"encoder": {"name": "mf"}}
    assert merge(document, {"encoder": {"norm": "x"}}) == {"encoder": {"name": "stacked", "num_layers": 3, "norm": "x"}}
    assert document == {"encoder": {"name": "stacked", "num_layers": 3}}


def test_what_a_run_wrote_before_an_option_goes_by_what_held_then() -> None:
    written = {"method": {"name": "copl"}, "encoder": {"name": "stacked"}}
    assert as_written(written, _plugins()) == {**written, "reward": {"steps": 7}}
    assert as_written({**written, "reward": {"steps": 3}}, _plugins())["reward"] == {"steps": 3}
    unknown = {"method": {"name": "copy"}, "rewards": {"steps": 3}}
    assert as_written(unknown, _plugins()) == unknown  # to be reported by whoever resolves it


def test_assignments_need_a_stage_a_key_and_a_value() -> None:
    with pytest.raises(OptionsError) as caught:
        parse_assignments(["encoder.num_layers=3", "num_layers=3", "encoder.num_layers"])
    assert len(caught.value.faults) == 2


def test_a_written_recipe_is_read_back_as_the_same(tmp_path: Path) -> None:
    recipe = resolve({"encoder": {"norm": 'a "quoted" one'}}, _plugins(), seed=7)
    for help_texts in (False, True):
        path = tmp_path / "config.toml"
        path.write_text(write_recipe(recipe, help_texts=help_texts))
        draft, seed = read_recipe(path)
        assert seed == 7
        assert resolve(draft, _plugins(), seed=seed).to_dict() == recipe.to_dict()
    assert "number of layers" in path.read_text()


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("seed = 'x'", "seed must be a whole number"),
        ("encoder = 3", "must be a table"),
        ("[", "not a readable TOML"),
        ("seed = " + "9" * 5000, "a whole number of thousands of digits"),
        ("a = " + "[" * 100_000, "nested too deeply"),
        ("a = '\udcff'", "not text in UTF-8"),
    ],
)
def test_a_malformed_file_is_refused(tmp_path: Path, text: str, fault: str) -> None:
    path = tmp_path / "r.toml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(OptionsError, match=fault):
        read_recipe(path)
    with pytest.raises(OptionsError, match="no such file"):
        read_recipe(tmp_path / "absent.toml")


def test_the_key_follows_options_and_code() -> None:
    plain, other = resolve({}, _plugins()), resolve({"encoder": {"num_layers": 3}}, _plugins())
    assert plain.key() != other.key()
    assert plain.key() == resolve({}, _plugins()).key()
    assert len(code_digest(resolve)) == 16


def test_what_a_partial_or_a_place_stands_for_is_digested(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = tmp_path / "edited_toy.py"
    monkeypatch.syspath_prepend(str(tmp_path))
    module.write_text("def build(options): return 1")
    build = importlib.import_module("edited_toy").build
    stands = [build, partial(build, 1), partial(partial(build, 1)), Place("edited_toy", "build")]
    (before,) = {code_digest(stand) for stand in stands}
    module.write_text("def build(options): return 2")
    (after,) = {code_digest(stand) for stand in stands}
    assert len(before) == 16
    assert before != after
    monkeypatch.delitem(sys.modules, "edited_toy")
