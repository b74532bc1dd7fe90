"""What a component is made of, and the hooks that bring components."""

from __future__ import annotations

import inspect
import re
import sys
from pathlib import Path
from typing import Any

import attrs
import pytest

from copl.errors import PluginError
from copl.plugins import KINDS, Component, HookSpecs
from tests.toy_plugins import Options, component, loaded

ROOT = Path(__file__).resolve().parents[1]


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
