from __future__ import annotations

import inspect
import re
import sys
import textwrap
from collections.abc import Callable
from importlib.metadata import EntryPoint
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

from copl.errors import OptionsError, PluginError, UnknownComponentError
from copl.options import option
from copl.plugins import KINDS, BrokenPlugin, Component, HookSpecs, Plugins

ROOT = Path(__file__).resolve().parents[1]


@attrs.frozen
class Options:
    size: int = option(3, help="how large", validator=attrs.validators.ge(1))


def component(name: str = "toy") -> Component:
    return Component(name, Options, lambda options, **context: (options, context), "A toy.")


def plugin(**hooks: Any) -> ModuleType:
    module = ModuleType("toy_plugin")
    for name, value in hooks.items():
        setattr(module, name, value)
    return module


def returning(value: list[Component]) -> Callable[[], list[Component]]:
    return lambda: value


def loaded(**hooks: Any) -> Plugins:
    plugins = Plugins()
    plugins.register(plugin(**hooks), "toy", "toy-package", "1.2")
    return plugins


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


NASTY: dict[str, str] = {
    "raises": "raise ValueError('two\\nlines')",
    "ends the program": "raise SystemExit(0)",
    "ends the process": "import os; os._exit(0)",
    "an error that is none": "raise GeneratorExit",
    "an error whose text is one": """
        class Unspeakable(Exception):
            def __str__(self):
                raise SystemExit
        raise Unspeakable""",
    "hangs": "while True: pass",
    "asks": "import time; time.sleep(1000)",
    "runs out of stack": "def f(): return f()\nf()",
    "is no Python": "this is no Python",
    "needs what is not there": "import a_module_that_is_not_installed",
    "prints": "print('{'); raise KeyError('x')",
}
"""What a module may do when it is imported, or a hook when it is called."""


def _entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, attribute: str = "") -> EntryPoint:
    name = f"nasty_{abs(hash(source))}"
    (tmp_path / f"{name}.py").write_text(textwrap.dedent(source) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("copl.system.foreign.PATIENCE", 0.2)
    return EntryPoint("nasty", f"{name}{attribute}", "copl")


def _unharmed(plugins: Plugins) -> BrokenPlugin:
    """Check that everybody else's components are there and return what is said of the one plugin that is broken."""
    plugins.register(plugin(copl_graph_encoders=lambda: [component("fine")]), "fine", "fine-package", "1")
    registry = plugins.registry("encoder")
    assert registry.names() == ["fine"]
    assert registry.get("fine").package == "fine-package"
    (broken,) = registry.broken
    assert broken.entry_point == "nasty"
    assert "\n" not in broken.cause
    with pytest.raises(UnknownComponentError, match="nasty"):
        registry.get("other")
    return broken


@pytest.mark.parametrize("what", NASTY)
def test_a_plugin_takes_nothing_with_it_whatever_its_import_does(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plugins = Plugins([_entry(tmp_path, monkeypatch, textwrap.dedent(NASTY[what]))])
    assert _unharmed(plugins).cause
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("what", [what for what in NASTY if what != "is no Python"])
def test_a_plugin_takes_nothing_with_it_whatever_its_hooks_do(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = textwrap.indent(textwrap.dedent(NASTY[what]).strip(), "    ")
    plugins = Plugins([_entry(tmp_path, monkeypatch, f"def copl_graph_encoders():\n{body}")])
    assert _unharmed(plugins).cause.startswith("copl_graph_encoders: ")


@pytest.mark.parametrize(
    "method",
    [
        "__dir__(self): raise SystemExit",
        "__getattr__(self, name): raise SystemExit",
        "__dir__(self): return ['copl_x']",
    ],
)
def test_a_plugin_object_that_does_as_it_likes_takes_nothing_with_it(
    method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = f"class Odd:\n    def __repr__(self): raise SystemExit\n    def {method}\nodd = Odd()\ncopl_metrics = odd"
    broken = _unharmed(Plugins([_entry(tmp_path, monkeypatch, source, "" if "getattr" in method else ":odd")]))
    assert broken.cause


def test_an_interrupt_by_a_person_is_no_fault_of_a_plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plugins = Plugins([_entry(tmp_path, monkeypatch, "raise KeyboardInterrupt")])
    with pytest.raises(KeyboardInterrupt):
        plugins.registry("encoder").names()


def test_packages_of_others_are_only_imported_when_something_is_not_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = """
    from copl.plugins import Component
    import tests.test_plugins as toys

    def copl_graph_encoders():
        return [toys.component("theirs")]
    """
    entry = _entry(tmp_path, monkeypatch, source)
    plugins = Plugins([entry])
    plugins.register(plugin(copl_graph_encoders=lambda: [component("ours")]), "builtin", "copl", "1")
    registry = plugins.registry("encoder")
    assert registry.get("ours").package == "copl"
    assert "ours" in registry
    assert entry.module not in sys.modules
    assert registry.get("theirs").package == entry.value
    assert registry.names() == ["ours", "theirs"]


class Evil(str):
    """Text that does as it likes when it is printed."""

    def __str__(self) -> str:
        raise SystemExit

    def __format__(self, spec: str) -> str:
        raise SystemExit


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("name", value) for value in ("Two Hop", "", "a/b", "a\nb", "\x1b[31m", 3, None, Evil("toy"), ["toy"])),
        *(("options", value) for value in (None, {}, Options(), "Options", int, object)),
        *(("build", value) for value in (None, "build", 3, Options())),
        *(("summary", value) for value in (None, 3, "", "  ", "two\nlines", "two\u2028lines", Evil("toy"))),
        *(("reference", value) for value in (None, 3, Evil("toy"))),
        *(("uses", value) for value in (None, "encoder", ["encoder"], ("encodr",), (3,), ([],))),
        *(
            ("sections", value)
            for value in (None, 3, [], {"a": 3}, {"a": Options()}, {3: Options}, {Evil("a"): Options})
        ),
        *(("presets", value) for value in (None, "paper", {"paper": 3}, {"paper": {3: 1}}, {3: {}}, [])),
        *(("formerly", value) for value in (None, "old", ["old"], ("Old Name",), (3,))),
    ],
)
def test_a_component_whose_fields_are_something_else_is_refused_with_what_was_expected(field: str, value: Any) -> None:
    fields = {"name": "toy", "options": Options, "build": component, "summary": "A toy.", field: value}
    with pytest.raises(TypeError, match=rf"^component .*: {field} must be .*, got "):
        Component(**fields)
    registry = loaded(copl_graph_encoders=lambda: [Component(**fields)]).registry("encoder")
    assert registry.names() == []
    assert f"{field} must be" in registry.broken[0].cause


def test_build_may_be_named_by_its_place_and_is_imported_when_something_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "later_toy.py").write_text("def build(options, **context): return options.size, context")
    monkeypatch.syspath_prepend(str(tmp_path))
    registry = loaded(copl_expert_gates=lambda: [Component("toy", Options, "later_toy:build", "A toy.")]).registry(
        "gate"
    )
    assert registry.get("toy").component.build.module == "later_toy"
    assert "later_toy" not in sys.modules
    assert registry.create("toy", {"size": 5}, embedding_dim=2) == (5, {"embedding_dim": 2})
    monkeypatch.delitem(sys.modules, "later_toy")


@pytest.mark.parametrize(("place", "cause"), [("no_such_toy:build", "no_such_toy"), ("json:toy", "has no attribute")])
def test_a_place_where_nothing_is_is_an_error_that_names_it(place: str, cause: str) -> None:
    toy = Component("toy", Options, place, "A toy.")
    with pytest.raises(PluginError, match=rf"^{place} cannot be had: .*{cause}"):
        toy.build(Options())


def test_tables_of_a_component_are_its_own() -> None:
    from types import MappingProxyType

    presets: dict[str, Any] = {"paper": MappingProxyType({"size": 4})}
    made = attrs.evolve(component(), presets=presets, sections=MappingProxyType({"more": Options}))
    presets.clear()
    assert made.presets == {"paper": {"size": 4}}
    assert made.sections == {"more": Options}


HOOKS = [name for name in vars(HookSpecs) if name.startswith("copl_")]


def test_every_hook_has_a_kind_and_every_kind_a_hook() -> None:
    assert sorted(KINDS.values()) == sorted(HOOKS)


@pytest.mark.parametrize("hook", HOOKS)
def test_every_hook_is_documented_with_the_call_that_build_must_take(hook: str) -> None:
    text = inspect.getdoc(getattr(HookSpecs, hook)) or ""
    signature = re.search(r"``(build\(.*?\) -> \w+)``", text)
    assert signature is not None, f"the docstring of {hook} gives no build signature"
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    section = page.partition(f"`{hook}`")[2].partition("\n## ")[0]
    assert signature[1] in section, f"docs/plugins.md does not give {signature[1]} under {hook}"
