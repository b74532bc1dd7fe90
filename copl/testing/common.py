"""Checks of what every component must have, whatever its kind, beyond what `Component` itself refuses."""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, final

import attrs

from copl.options import options_to_dict, parse_options
from copl.plugins import Component
from copl.testing.check import Check, CheckSkipped, CheckWarning, require

_RESERVED = {"name", "preset"}


@final
@attrs.frozen(eq=False)
class Described:
    """A component and the option values to check it with."""

    component: Component
    values: Mapping[str, Any] = attrs.field(factory=dict)

    def options(self) -> Any:
        """Return the options to build with.

        Raises:
            CheckSkipped: an option is required and was not given.
        """
        missing = [name for name in required_options(self.component.options) if name not in self.values]
        if missing:
            raise CheckSkipped(f"needs a value for {', '.join(missing)}")
        return parse_options(self.component.options, self.values, where=self.component.name)


def required_options(options: type) -> list[str]:
    """Return the names of the options that have no default."""
    return [field.name for field in attrs.fields(options) if field.default is attrs.NOTHING]


def summary_fits(subject: Described) -> None:
    """summary fits into a table"""
    summary = subject.component.summary
    if len(summary) > 120:
        raise CheckWarning(f"the summary has {len(summary)} characters and will be cut in tables; 120 fit")


def options_are_frozen(subject: Described) -> None:
    """options is a frozen attrs class"""
    options = subject.component.options
    try:
        object.__new__(options).__setattr__("probe", None)
    except attrs.exceptions.FrozenInstanceError:
        return
    except AttributeError:
        pass
    require(False, f"{options.__name__} can be changed after it was made; use @attrs.frozen")


def options_are_described(subject: Described) -> None:
    """every option has a help text and a type that text and TOML can express"""
    options = subject.component.options
    fields = attrs.fields(options)
    silent = [field.name for field in fields if not str(field.metadata.get("help", "")).strip()]
    require(not silent, f"no help text: {', '.join(silent)}; declare options with copl.options.option(..., help=...)")
    reserved = sorted(_RESERVED & {field.name for field in fields})
    require(not reserved, f"{', '.join(reserved)}: taken by recipes; call the option something else")
    hints = typing.get_type_hints(options)
    strange = [f"{field.name}: {hints.get(field.name)}" for field in fields if not _understood(hints.get(field.name))]
    require(
        not strange,
        f"type not understood: {'; '.join(strange)}; use int, float, bool, str, Path, Literal, X | None, "
        "tuple[X, ...] or dict[str, str]",
    )


def _understood(kind: object) -> bool:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return all(isinstance(choice, str | int) for choice in args)
    if origin in (types.UnionType, typing.Union):
        return all(arg is type(None) or _understood(arg) for arg in args)
    if origin is tuple:
        return len(args) == 2 and args[1] is Ellipsis and _understood(args[0])
    if origin is dict:
        return args == (str, str)
    return kind in (int, float, bool, str, Path)


def defaults_hold(subject: Described) -> None:
    """the defaults are valid and survive being written to a recipe and read back"""
    options = subject.options()
    written = options_to_dict(options)
    again: Any = parse_options(subject.component.options, written, where=subject.component.name)
    require(again == options, f"{written} became {options_to_dict(again)}; do the defaults have their declared types?")


def presets_hold(subject: Described) -> None:
    """every preset is valid"""
    component = subject.component
    for preset, table in component.presets.items():
        for section, values in _preset_sections(component, table).items():
            options = component.sections.get(section, component.options)
            needed = {name: subject.values.get(name) for name in required_options(options) if name in subject.values}
            missing = set(required_options(options)) - needed.keys() - set(values)
            if missing:
                raise CheckSkipped(f"needs a value for {', '.join(sorted(missing))}")
            parse_options(options, {**needed, **values}, where=f"preset {preset!r} of {component.name}")


def _preset_sections(component: Component, table: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """A method's preset holds values by section; any other component's holds its own values.

    What it holds for other components (``encoder``, ``gate``) is checked when a recipe uses it.
    """
    if not component.sections:
        return {"": {name: value for name, value in table.items() if name not in component.uses}}
    own = {"method": component.options, **component.sections}
    unknown = sorted(table.keys() - own.keys() - set(component.uses))
    require(not unknown, f"a preset of a method holds values by section; it has no section {', '.join(unknown)}")
    return {name: table[name] for name in table if name in own}


COMMON: list[Check[Described]] = [
    summary_fits,
    options_are_frozen,
    options_are_described,
    defaults_hold,
    presets_hold,
]
