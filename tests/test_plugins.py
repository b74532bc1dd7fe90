from __future__ import annotations

import sys
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

from copl.errors import OptionsError, PluginError, UnknownComponentError
from copl.plugins import BrokenPlugin, Component, Plugins
from tests.toy_plugins import Options, component, loaded, plugin, returning


def test_a_component_is_found_by_name_with_its_package() -> None:
    registry = loaded(copl_graph_encoders=lambda: [component("b"), component("a")]).registry("encoder")
    found = registry.get("a")
    assert (found.component.name, found.package, found.package_version) == ("a", "toy-package", "1.2")
    assert registry.names() == ["a", "b"]
    assert "a" in registry
    assert "c" not in registry
    assert [registered.component.name for registered in registry] == ["b", "a"]


def test_create_parses_the_options_and_passes_the_context_on() -> None:
    registry = loaded(copl_expert_gates=lambda: [component()]).registry("gate")
    assert registry.create("toy", {"size": "4"}, embedding_dim=8) == (Options(4), {"embedding_dim": 8})
    assert registry.create("toy") == (Options(3), {})
    with pytest.raises(OptionsError, match=r"gate\.toy\.size: must be >= 1: 0"):
        registry.create("toy", {"size": 0})


def test_hooks_of_other_kinds_are_not_called() -> None:
    def fail() -> list[Component]:
        raise AssertionError("called")

    plugins = loaded(copl_graph_encoders=lambda: [component()], copl_metrics=fail)
    assert plugins.registry("encoder").names() == ["toy"]


def test_an_unknown_name_suggests_the_closest() -> None:
    registry = loaded(copl_graph_encoders=lambda: [component("lightgcn")]).registry("encoder")
    with pytest.raises(UnknownComponentError, match=r"unknown encoder 'ligthgcn' \(did you mean 'lightgcn'\?\)"):
        registry.get("ligthgcn")


def test_a_former_name_tells_the_new_one() -> None:
    moved = attrs.evolve(component("latent-groups"), formerly=("mixture",))
    registry = loaded(copl_graph_encoders=lambda: [moved, component("mixtures")]).registry("encoder")
    with pytest.raises(UnknownComponentError, match=r"unknown encoder 'mixture' \(now called 'latent-groups'\)"):
        registry.get("mixture")


def test_an_unknown_kind_suggests_the_closest() -> None:
    with pytest.raises(OptionsError, match=r"unknown kind 'encoders' \(did you mean 'encoder'\?\)"):
        Plugins().registry("encoders")


def test_a_duplicate_name_names_both_packages() -> None:
    plugins = loaded(copl_graph_encoders=lambda: [component()])
    plugins.register(plugin(copl_graph_encoders=lambda: [component()]), "other", "other-package", "1")
    registry = plugins.registry("encoder")
    with pytest.raises(PluginError) as caught:
        registry.get("toy")
    fault = "encoder 'toy' is registered by package 'toy-package' and by package 'other-package'; uninstall one of them"
    assert caught.value.faults == (fault,)
    assert [b.cause for b in registry.broken] == [fault]


def test_a_duplicate_name_takes_no_other_with_it_and_nobody_stands_in_for_ours() -> None:
    plugins = Plugins()
    plugins.register(plugin(copl_graph_encoders=lambda: [component("gcf")]), "builtin", "copl", "1")
    for package in ("one", "two"):
        added = [component("gcf"), component("both"), component(package)]
        plugins.register(plugin(copl_graph_encoders=returning(added)), "toy", package, "1")
    registry = plugins.registry("encoder")
    assert registry.get("gcf").package == "copl"
    assert registry.get("two").package == "two"
    assert {b.cause for b in registry.broken} == {
        "encoder 'gcf' is registered by package 'copl' already; rename it",
        "encoder 'both' is registered by package 'one' and by package 'two'; uninstall one of them",
    }


def test_a_duplicate_name_inside_one_package() -> None:
    plugins = loaded(copl_graph_encoders=lambda: [component(), component()])
    with pytest.raises(PluginError, match="registered twice by package 'toy-package'"):
        plugins.registry("encoder").get("toy")


def test_the_same_name_under_two_kinds_is_no_duplicate() -> None:
    plugins = loaded(copl_graph_encoders=lambda: [component()], copl_expert_gates=lambda: [component()])
    assert "toy" in plugins.registry("encoder")
    assert "toy" in plugins.registry("gate")


def test_entry_points_of_two_packages_may_share_a_name() -> None:
    plugins = loaded(copl_graph_encoders=lambda: [component("a")])
    plugins.register(plugin(copl_graph_encoders=lambda: [component("b")]), "toy", "other-package", "1")
    assert plugins.registry("encoder").names() == ["a", "b"]
    assert plugins.registry("encoder").get("b").package == "other-package"


def test_two_entry_points_to_one_module_are_an_error() -> None:
    plugins, module = Plugins(), plugin(copl_graph_encoders=lambda: [component()])
    plugins.register(module, "one", "toy-package", "1")
    with pytest.raises(PluginError, match=r"plugin 'two' .* names the same module"):
        plugins.register(module, "two", "toy-package", "1")


@pytest.mark.parametrize(
    ("hook", "value", "fault"),
    [
        (
            "copl_graph_encoder",
            lambda: [component()],
            "no hook 'copl_graph_encoder' (did you mean 'copl_graph_encoders'?)",
        ),
        ("copl_backbones", [component()], "hook 'copl_backbones' must be a function that takes no arguments"),
        ("copl_metrics", lambda config: [], "Argument(s) {'config'} are declared in the hookimpl but can not be found"),
    ],
)
def test_a_misspelt_hook_or_a_wrong_signature_is_an_error(hook: str, value: Any, fault: str) -> None:
    with pytest.raises(PluginError) as caught:
        loaded(copl_graph_encoders=lambda: [component()], **{hook: value})
    (line,) = caught.value.faults
    assert line.startswith("plugin 'toy' of package 'toy-package': ")
    assert fault in line


def test_a_refused_plugin_leaves_nothing_behind() -> None:
    plugins = Plugins()
    with pytest.raises(PluginError):
        plugins.register(
            plugin(copl_graph_encoders=lambda: [component()], copl_x=lambda: [component()]), "toy", "toy-package", "1"
        )
    assert plugins.registry("encoder").names() == []
    plugins.register(plugin(copl_graph_encoders=lambda: [component()]), "toy", "toy-package", "1")
    assert plugins.registry("encoder").names() == ["toy"]


def test_other_names_that_begin_alike_do_no_harm() -> None:
    plugins = loaded(copl_graph_encoders=lambda: [component()], copl_toy=ModuleType("copl_toy"), copl_version="1")
    assert plugins.registry("encoder").names() == ["toy"]


def test_methods_of_an_object_are_hooks_too() -> None:
    class Toy:
        def copl_metrics(self) -> list[Component]:
            return [component()]

    plugins = Plugins()
    plugins.register(Toy(), "toy", "toy-package", "1")
    assert plugins.registry("metric").names() == ["toy"]


@pytest.mark.parametrize("returned", [None, component(), (component(),), [Options], ["toy"]])
def test_a_hook_that_returns_something_else_is_broken(returned: Any) -> None:
    registry = loaded(copl_graph_encoders=lambda: returned).registry("encoder")
    assert registry.names() == []
    assert [b.cause for b in registry.broken] == [
        "copl_graph_encoders: copl_graph_encoders must return a list of Component records"
    ]


def test_a_hook_that_raises_makes_the_plugin_broken_for_that_kind_only() -> None:
    def fail() -> list[Component]:
        raise ImportError("no module named 'missing'")

    plugins = loaded(copl_graph_encoders=fail, copl_metrics=lambda: [component()])
    assert plugins.registry("metric").broken == ()
    registry = plugins.registry("encoder")
    assert registry.broken == (
        BrokenPlugin("toy", "toy-package", "copl_graph_encoders: ImportError: no module named 'missing'"),
    )
    with pytest.raises(UnknownComponentError) as caught:
        registry.get("mine")
    assert (
        "it may be one of the broken plugin 'toy' of package 'toy-package': copl_graph_encoders"
        in caught.value.faults[1]
    )


def test_a_plugin_that_fails_to_import_is_listed_and_raises_only_when_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken_toy_plugin.py").write_text("import a_module_that_is_not_installed\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins = loaded(copl_graph_encoders=lambda: [component()])
    plugins.register_entry_point(EntryPoint("broken", "broken_toy_plugin", "copl"))
    assert [(b.entry_point, b.package) for b in plugins.broken] == [("broken", "broken_toy_plugin")]
    assert "ModuleNotFoundError" in plugins.broken[0].cause
    registry = plugins.registry("encoder")
    assert registry.broken == tuple(plugins.broken)
    assert registry.get("toy").component.name == "toy"
    with pytest.raises(UnknownComponentError, match="broken_toy_plugin"):
        registry.get("other")
    assert "broken_toy_plugin" not in sys.modules


def test_a_plugin_registered_later_is_seen() -> None:
    plugins = loaded(copl_graph_encoders=lambda: [component("a")])
    assert plugins.registry("encoder").names() == ["a"]
    plugins.register(plugin(copl_graph_encoders=lambda: [component("b")]), "other", "other-package", "1")
    assert plugins.registry("encoder").names() == ["a", "b"]
