"""How a package adds components to `copl`: the whole plugin contract on one page.

A plugin is a module named by an entry point in the group ``copl``. It defines functions named as the hooks below, each
returning the `Component` records it adds:

    # my_package/plugin.py                       # pyproject.toml
    def copl_graph_encoders():                   [project.entry-points.copl]
        return [Component("mine", ...)]          mine = "my_package.plugin"

There is nothing to decorate and nothing is registered by importing. The built-in components go through the same hooks
(`copl.builtin`). `copl plugins check NAME` runs the conformance kit (`copl.testing`) on a component.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from types import ModuleType
from typing import Any, final

import attrs
import pluggy

from copl.errors import OptionsError, PluginError, UnknownComponentError, suggest
from copl.options import parse_options

ENTRY_POINT_GROUP = "copl"
OWN_PACKAGE = "copl"


@final
@attrs.frozen
class Component:
    """One thing a user can choose by name.

    Attributes:
        name: the name users type, unique within its kind: lower-case letters, digits, dots and hyphens.
        options: a frozen attrs class; its fields carry type, default, validator and ``metadata={"help": ...}``. It is
            the single source of TOML keys, of ``--set stage.key=value``, of ``copl plugins show`` and of the docs.
        build: called with an instance of `options` (and what the kind's hook names), returns the object.
        summary: one line for ``copl plugins list``.
        reference: where it is published: a citation or a link.
        uses: for preference models, the kinds of components the method is composed of, such as ``("encoder", "gate")``.
        sections: for preference models, further recipe sections and their options classes, such as ``{"reward": ...}``.
        presets: named sets of option values, such as the published settings.
        formerly: names that it had before; who asks by one of them is told the new one.
    """

    name: str
    options: type
    build: Callable[..., Any]
    summary: str
    reference: str = ""
    uses: tuple[str, ...] = ()
    sections: Mapping[str, type] = attrs.field(factory=dict)
    presets: Mapping[str, Mapping[str, Any]] = attrs.field(factory=dict)
    formerly: tuple[str, ...] = ()


_spec = pluggy.HookspecMarker("copl")


class HookSpecs:
    """The hooks. Each takes nothing and returns a list of `Component`; the call that `build` must take is given."""

    @_spec
    def copl_graph_encoders(self) -> list[Component]:
        """Graph encoders: ``build(options) -> GraphEncoder``."""
        raise AssertionError

    @_spec
    def copl_expert_gates(self) -> list[Component]:
        """Expert gates: ``build(options, embedding_dim=D) -> ExpertGate``."""
        raise AssertionError

    @_spec
    def copl_adaptation_strategies(self) -> list[Component]:
        """Adaptation strategies for unseen users: ``build(options) -> AdaptationStrategy``."""
        raise AssertionError

    @_spec
    def copl_preference_models(self) -> list[Component]:
        """Whole methods: ``build(options, stages=copl.runs.recipe.Stages) -> PreferenceModel``."""
        raise AssertionError

    @_spec
    def copl_dataset_sources(self) -> list[Component]:
        """Sources of data sets: ``build(options) -> DatasetSource``."""
        raise AssertionError

    @_spec
    def copl_backbones(self) -> list[Component]:
        """Transformers under the reward model: ``build(options) -> Backbone``."""
        raise AssertionError

    @_spec
    def copl_metrics(self) -> list[Component]:
        """Metrics of an evaluation: ``build(options) -> Metric``."""
        raise AssertionError


KINDS: Mapping[str, str] = {
    "encoder": "copl_graph_encoders",
    "gate": "copl_expert_gates",
    "adapter": "copl_adaptation_strategies",
    "method": "copl_preference_models",
    "source": "copl_dataset_sources",
    "backbone": "copl_backbones",
    "metric": "copl_metrics",
}
"""The kinds of components, as users type them, with the hook that collects each."""

_HOOKS = tuple(name for name in vars(HookSpecs) if name.startswith("copl_"))


class _PluginManager(pluggy.PluginManager):
    """Takes every function of a plugin whose name starts with ``copl_`` as a hook implementation."""

    def parse_hookimpl_opts(self, plugin: object, name: str) -> Any:
        if name in _HOOKS:
            return pluggy.HookimplOpts(
                wrapper=False, hookwrapper=False, optionalhook=False, tryfirst=False, trylast=False, specname=None
            )
        return None


def _callable_without_arguments(member: object) -> bool:
    if not inspect.isroutine(member):
        return False
    parameters = inspect.signature(member).parameters.values()
    return all(p.default is not p.empty or p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)


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
    """A plugin that could not be loaded; it is an error only when one of its components is asked for."""

    entry_point: str
    package: str
    cause: str


@final
class Registry:
    """All components of one kind, by name."""

    def __init__(self, kind: str, found: Mapping[str, Registered], broken: tuple[BrokenPlugin, ...]) -> None:
        self.kind = kind
        self._found = dict(found)
        self.broken = broken

    def __iter__(self) -> Iterator[Registered]:
        return iter(self._found.values())

    def names(self) -> list[str]:
        return sorted(self._found)

    def __contains__(self, name: object) -> bool:
        return name in self._found

    def get(self, name: str) -> Registered:
        """Return the component called `name`.

        Raises:
            UnknownComponentError: nothing has this name; the message suggests the closest one and names the plugins
                that failed to import, since the component may be one of theirs.
        """
        if name in self._found:
            return self._found[name]
        renamed = [new for new, registered in self._found.items() if name in registered.component.formerly]
        hint = f" (now called {renamed[0]!r})" if renamed else suggest(name, self._found)
        faults = [f"unknown {self.kind} {name!r}{hint}; `copl plugins list {self.kind}` shows all"]
        faults += [
            f"it may belong to package {b.package!r}, whose plugin {b.entry_point!r} is broken: {b.cause}"
            for b in self.broken
        ]
        raise UnknownComponentError(faults)

    def create(self, name: str, options: Mapping[str, Any] | None = None, /, **context: Any) -> Any:
        """Parse `options` and build the component called `name`.

        Raises:
            OptionsError: all faults of the options.
        """
        component = self.get(name).component
        return component.build(parse_options(component.options, options or {}, where=f"{self.kind}.{name}"), **context)


@final
class Plugins:
    """The loaded plugins; `load` makes one for the installed packages."""

    def __init__(self) -> None:
        self._manager = _PluginManager("copl")
        self._manager.add_hookspecs(HookSpecs)
        self._packages: dict[str, tuple[str, str]] = {}
        self._registries: dict[str, Registry] = {}
        self.broken: list[BrokenPlugin] = []

    def register(self, plugin: ModuleType | object, name: str, package: str, package_version: str) -> None:
        """Add one plugin object.

        Raises:
            PluginError: a function named ``copl_...`` matches no hook, or a hook is no function, takes arguments, or
                is here already.
        """
        where = f"plugin {name!r} of package {package!r}"
        members = {member: getattr(plugin, member) for member in dir(plugin) if member.startswith("copl_")}
        faults = [
            f"{where}: no hook {member!r}{suggest(member, _HOOKS)}"
            for member, value in members.items()
            if member not in _HOOKS and inspect.isroutine(value)
        ]
        faults += [
            f"{where}: hook {member!r} must be a function that takes no arguments"
            for member, value in members.items()
            if member in _HOOKS and not _callable_without_arguments(value)
        ]
        if self._manager.is_registered(plugin):
            faults.append(f"{where}: another entry point names the same module; remove one of them")
        if faults:
            raise PluginError(faults)
        full_name = f"{package}:{name}"  # entry points of two packages may share a name
        self._manager.register(plugin, full_name)
        self._packages[full_name] = (package, package_version)
        self._registries.clear()

    def register_entry_point(self, entry_point: EntryPoint) -> None:
        """Import the plugin an entry point names; a failing import is kept as a `BrokenPlugin`."""
        package = entry_point.dist.name if entry_point.dist else entry_point.value
        package_version = entry_point.dist.version if entry_point.dist else "unknown"
        try:
            plugin = entry_point.load()
        except Exception as error:  # a foreign module may raise anything on import
            if package == OWN_PACKAGE:
                raise
            self.broken.append(BrokenPlugin(entry_point.name, package, f"{type(error).__name__}: {error}"))
            return
        self.register(plugin, entry_point.name, package, package_version)

    def registry(self, kind: str) -> Registry:
        """Return the registry of one of `KINDS`; hooks of this kind are called on first use.

        Raises:
            PluginError: two packages register the same name, or a hook returns something else than components.
            OptionsError: there is no such kind.
        """
        if kind not in KINDS:
            raise OptionsError(f"unknown kind {kind!r}{suggest(kind, KINDS)}; there are {', '.join(KINDS)}")
        if kind not in self._registries:
            self._registries[kind] = self._collect(kind)
        return self._registries[kind]

    def _collect(self, kind: str) -> Registry:
        found: dict[str, Registered] = {}
        faults: list[str] = []
        broken = list(self.broken)
        for implementation in getattr(self._manager.hook, KINDS[kind]).get_hookimpls():
            package, package_version = self._packages[implementation.plugin_name]
            try:
                components = implementation.function()
            except Exception as error:  # a foreign hook may raise anything
                if package == OWN_PACKAGE:
                    raise
                entry_point = implementation.plugin_name.partition(":")[2]
                cause = f"{KINDS[kind]} raised {type(error).__name__}: {error}"
                broken.append(BrokenPlugin(entry_point, package, cause))
                continue
            if not isinstance(components, list) or not all(isinstance(c, Component) for c in components):
                faults.append(f"package {package!r}: {KINDS[kind]} must return a list of Component records")
                continue
            for component in components:
                if component.name in found:
                    faults.append(_duplicate(kind, component.name, found[component.name].package, package))
                found[component.name] = Registered(component, package, package_version)
        if faults:
            raise PluginError(faults)
        return Registry(kind, found, tuple(broken))


def _duplicate(kind: str, name: str, first: str, second: str) -> str:
    if first == second:
        return f"{kind} {name!r} is registered twice by package {first!r}"
    return f"{kind} {name!r} is registered by package {first!r} and by package {second!r}; uninstall one of them"


@cache
def load() -> Plugins:
    """Return the components of all installed packages, our own among them; the same object each time.

    Raises:
        PluginError: one fault for each misspelt hook and each wrong signature in any package.
    """
    plugins = Plugins()
    faults: list[str] = []
    for entry_point in sorted(entry_points(group=ENTRY_POINT_GROUP), key=lambda e: e.name):
        try:
            plugins.register_entry_point(entry_point)
        except PluginError as error:
            faults += error.faults
    if faults:
        raise PluginError(faults)
    return plugins
