"""Loads the plugins of the installed packages and finds their components by name; the contract is `copl.hookspecs`.

pluggy takes the hooks and refuses what is none. What is added here: a plugin that does not work takes nothing with it
but its own components, and the packages of others are only imported when something is asked for that is not ours.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, final

import attrs
import pluggy

from copl.errors import OptionsError, PluginError, UnknownComponentError, quoted, suggest
from copl.hookspecs import KINDS, Component, HookSpecs, Range
from copl.options import parse_options
from copl.system.foreign import ForeignCodeError, contained, describe

__all__ = ["KINDS", "BrokenPlugin", "Component", "HookSpecs", "Plugins", "Range", "Registered", "Registry", "load"]

ENTRY_POINT_GROUP = "copl"
OWN_PACKAGE = "copl"


@final
@attrs.frozen
class Registered:
    """A component together with the package that registered it."""

    component: Component
    package: str
    package_version: str


@final
@attrs.frozen
class BrokenPlugin:
    """A plugin, or a part of one, that does not work; an error only when one of its components is asked for."""

    entry_point: str
    package: str
    cause: str

    def __str__(self) -> str:
        plugin = f"plugin {self.entry_point!r} of package" if self.entry_point else "package"
        return f"broken {plugin} {self.package!r}: {self.cause}"


class _Plugin(pluggy.PluginManager):
    """One plugin; each of its functions whose name begins with ``copl_`` is taken for a hook."""

    def __init__(self, module: object, entry_point: str, package: str, package_version: str) -> None:
        super().__init__("copl")
        self.module, self.entry_point = module, entry_point
        self.package, self.package_version = package, package_version
        self.add_hookspecs(HookSpecs)
        self.register(module, entry_point)
        unknown = [hook.name for hook in self.get_hookcallers(module) or () if not hook.has_spec()]
        if unknown:
            raise PluginError(f"no hook {unknown[0]!r}{suggest(unknown[0], KINDS.values())}")

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        if not name.startswith("copl_"):
            return None
        if not inspect.isroutine(getattr(plugin, name)):
            if name in KINDS.values():
                raise PluginError(f"hook {name!r} must be a function that takes no arguments")
            return None
        return pluggy.HookimplOpts(
            wrapper=False, hookwrapper=False, optionalhook=False, tryfirst=False, trylast=False, specname=None
        )

    def components(self, kind: str) -> list[Registered]:
        """Return what the plugin adds of a kind.

        Raises:
            ForeignCodeError: its hook fails or returns something else.
        """
        components: list[Registered] = []
        for hook in getattr(self.hook, KINDS[kind]).get_hookimpls():
            with _guarded(self.package):
                added = hook.function()
                if type(added) is not list or not all(type(component) is Component for component in added):
                    raise PluginError(f"{KINDS[kind]} must return a list of Component records")
            components += [Registered(component, self.package, self.package_version) for component in added]
        return components

    def broken(self, cause: str) -> BrokenPlugin:
        return BrokenPlugin(self.entry_point, self.package, cause)


def _guarded(package: str) -> AbstractContextManager[None]:
    return nullcontext() if package == OWN_PACKAGE else contained()  # an error of ours is a bug and keeps its traceback


@final
class Registry:
    """The components of one kind, by name."""

    def __init__(self, kind: str, plugins: Plugins) -> None:
        self.kind = kind
        self._plugins = plugins
        self._asked: list[_Plugin] = []
        self._by_name: dict[str, list[Registered]] = {}
        self._broken: list[BrokenPlugin] = []

    def _ask(self, *, everybody: bool) -> dict[str, list[Registered]]:
        """Collect what the loaded plugins add; with `everybody`, those of others are loaded first."""
        for plugin in self._plugins.loaded(everybody=everybody)[len(self._asked) :]:
            self._asked.append(plugin)
            try:
                components = plugin.components(self.kind)
            except ForeignCodeError as error:
                self._broken.append(plugin.broken(f"{KINDS[self.kind]}: {error}"))
                continue
            for registered in components:
                name = registered.component.name
                same = self._by_name.setdefault(name, [])
                if same and same[0].package == OWN_PACKAGE != plugin.package:  # nobody else's stands in for ours
                    cause = f"{self.kind} {name!r} is registered by package {OWN_PACKAGE!r} already; rename it"
                    self._broken.append(plugin.broken(cause))
                else:
                    same.append(registered)
        return self._by_name

    def __iter__(self) -> Iterator[Registered]:
        return (same[0] for same in self._ask(everybody=True).values())

    def names(self) -> list[str]:
        return sorted(self._ask(everybody=True))

    def __contains__(self, name: object) -> bool:
        return name in self._ask(everybody=False) or name in self._ask(everybody=True)

    @property
    def broken(self) -> tuple[BrokenPlugin, ...]:
        """What does not work of all plugins, as far as it bears on this kind."""
        twice = [same for same in self._ask(everybody=True).values() if len(same) > 1]
        doubtful = [BrokenPlugin("", same[1].package, self._twice(same)) for same in twice]
        return (*self._plugins.broken, *self._broken, *doubtful)

    def _twice(self, same: list[Registered]) -> str:
        what, (first, second) = f"{self.kind} {same[0].component.name!r}", (same[0].package, same[1].package)
        if first == second:
            return f"{what} is registered twice by package {first!r}"
        return f"{what} is registered by package {first!r} and by package {second!r}; uninstall one of them"

    def get(self, name: str) -> Registered:
        """Return the component called `name`.

        Raises:
            UnknownComponentError: nothing has this name; the message suggests the closest one and names the plugins
                that are broken, since the component may be one of theirs.
            PluginError: two packages register the name.
        """
        same = self._ask(everybody=False).get(name) or self._ask(everybody=True).get(name)
        if same:
            if len(same) > 1:
                raise PluginError(self._twice(same))
            return same[0]
        renamed = [new for new, (registered, *_) in self._by_name.items() if name in registered.component.formerly]
        hint = f" (now called {renamed[0]!r})" if renamed else suggest(name, self._by_name)
        faults = [f"unknown {self.kind} {quoted(name)}{hint}; `copl plugins list {self.kind}` shows all"]
        raise UnknownComponentError([*faults, *(f"it may be one of the {broken}" for broken in self.broken)])

    def create(self, name: str, options: Mapping[str, Any] | None = None, /, **context: Any) -> Any:
        """Parse `options` and build the component called `name`.

        Raises:
            OptionsError: all faults of the options.
        """
        component = self.get(name).component
        return component.build(parse_options(component.options, options or {}, where=f"{self.kind}.{name}"), **context)


@final
class Plugins:
    """The plugins of the installed packages; `load` makes one."""

    def __init__(self, entry_points: Iterable[EntryPoint] = ()) -> None:
        self._waiting = list(entry_points)
        self._loaded: list[_Plugin] = []
        self._registries: dict[str, Registry] = {}
        self.broken: list[BrokenPlugin] = []

    def register(self, module: object, entry_point: str, package: str, package_version: str) -> None:
        """Add one plugin: a module, or another object with hooks.

        Raises:
            PluginError: a function named ``copl_...`` matches no hook, or a hook is no function, takes arguments, or
                is here already.
        """
        try:
            with _guarded(package):
                plugin = _Plugin(module, entry_point, package, package_version)
        except ForeignCodeError as error:
            raise PluginError(f"plugin {entry_point!r} of package {package!r}: {error}") from error
        if any(other.module is module for other in self._loaded):
            raise PluginError(
                f"plugin {entry_point!r} of package {package!r}: another entry point names the same module; remove one"
            )
        self._loaded.append(plugin)

    def register_entry_point(self, entry_point: EntryPoint) -> None:
        """Import the plugin an entry point names; one that does not work is kept as a `BrokenPlugin`."""
        package = entry_point.dist.name if entry_point.dist else entry_point.value
        package_version = entry_point.dist.version if entry_point.dist else "unknown"
        try:
            with _guarded(package):
                module = entry_point.load()
            self.register(module, entry_point.name, package, package_version)
        except (ForeignCodeError, PluginError) as error:
            self.broken.append(BrokenPlugin(entry_point.name, package, describe(error)))

    def loaded(self, *, everybody: bool) -> list[_Plugin]:
        """Return the loaded plugins, in a fixed order; with `everybody`, those that wait are loaded first."""
        while everybody and self._waiting:
            self.register_entry_point(self._waiting.pop(0))
        return self._loaded

    def registry(self, kind: str) -> Registry:
        """Return the registry of one of `KINDS`.

        Raises:
            OptionsError: there is no such kind.
        """
        if kind not in KINDS:
            raise OptionsError(f"unknown kind {quoted(kind)}{suggest(kind, KINDS)}; there are {', '.join(KINDS)}")
        return self._registries.setdefault(kind, Registry(kind, self))


@cache
def load() -> Plugins:
    """Return the plugins of all installed packages, ours among them; the same object each time."""
    points = sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: (not _is_ours(e), e.name, e.value))
    plugins = Plugins(point for point in points if not _is_ours(point))
    for point in filter(_is_ours, points):
        plugins.register_entry_point(point)
    return plugins


def _is_ours(entry_point: EntryPoint) -> bool:
    return entry_point.dist is not None and entry_point.dist.name == OWN_PACKAGE
