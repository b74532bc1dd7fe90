"""Plugins that do as they like: they take nothing with them but their own components."""

from __future__ import annotations

import sys
import textwrap
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from copl.errors import UnknownComponentError
from copl.plugins import BrokenPlugin, Plugins
from tests.toy_plugins import component, plugin

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
    import tests.toy_plugins as toys

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
