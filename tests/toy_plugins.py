"""What the tests of plugins have in common: a toy component, and plugins that bring one."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import attrs

from copl.options import option
from copl.plugins import Component, Plugins


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
