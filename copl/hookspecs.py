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

import math
import re
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, final

import attrs
import pluggy

from copl.errors import PluginError, quoted
from copl.system.foreign import describe

KINDS: Mapping[str, str] = {
    "encoder": "copl_graph_encoders",
    "gate": "copl_expert_gates",
    "adapter": "copl_adaptation_strategies",
    "method": "copl_preference_models",
    "source": "copl_dataset_sources",
    "backbone": "copl_backbones",
    "metric": "copl_metrics",
    "generator": "copl_generators",
    "aligner": "copl_aligners",
}
"""The kinds of components, as users type them, with the hook that collects each."""

_PLACE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
_NAME = re.compile(r"[a-z0-9]+([.-][a-z0-9]+)*")


def _is_text(value: Any) -> bool:
    return type(value) is str  # a class of its own could do anything when it is printed


def _is_name(value: Any) -> bool:
    return _is_text(value) and _NAME.fullmatch(value) is not None


def _is_line(value: Any) -> bool:
    return _is_text(value) and bool(value.strip()) and len(value.splitlines()) == 1


def _is_options(value: Any) -> bool:
    return isinstance(value, type) and attrs.has(value)


def _is_table(value: Any, fits: Callable[[Any], bool]) -> bool:
    return type(value) is dict and all(map(_is_text, value)) and all(map(fits, value.values()))


def _plain(value: Any) -> Any:
    return {name: _plain(inner) for name, inner in value.items()} if isinstance(value, Mapping) else value


def _be(expected: str, fits: Callable[[Any], bool]) -> Callable[[Any, Any, Any], None]:
    def check(component: Component, field: Any, value: Any) -> None:
        if not fits(value):
            name = quoted(component.name) if _is_text(component.name) else "?"
            raise TypeError(f"component {name}: {field.name} must be {expected}, got {quoted(value)}")

    return check


@final
@attrs.frozen
class Place:
    """A function or a class of a module that is imported when it is called.

    Attributes:
        module: full name of the module.
        name: name in it.
    """

    module: str
    name: str

    def __call__(self, *arguments: Any, **context: Any) -> Any:
        """Call what is there.

        Raises:
            PluginError: the module cannot be imported, or has no such name.
        """
        try:
            build = getattr(import_module(self.module), self.name)
        except (ImportError, AttributeError) as error:
            raise PluginError(f"{self.module}:{self.name} cannot be had: {describe(error)}") from error
        return build(*arguments, **context)


def _from_place(build: Callable[..., Any] | str) -> Callable[..., Any]:
    if isinstance(build, str) and _is_text(build) and _PLACE.fullmatch(build):
        return Place(*build.split(":"))
    return build  # type: ignore[return-value]  # whatever it is, the validator says so


@final
@attrs.frozen
class Range:
    """An interval that a search draws an option from.

    Attributes:
        low: lower end.
        high: upper end.
        log: draw the logarithm evenly, not the number.

    Raises:
        ValueError: the ends are not numbers in order, or not positive where logarithms are drawn.
    """

    low: float
    high: float
    log: bool = False

    def __attrs_post_init__(self) -> None:
        ends: tuple[Any, ...] = (self.low, self.high, self.log)
        if not all(type(end) in (int, float) and math.isfinite(end) for end in ends[:2]) or type(ends[2]) is not bool:
            raise ValueError(f"low and high must be numbers, and log true or false, got {ends}")
        if not self.low < self.high:
            raise ValueError(f"low must be below high, got {self.low} and {self.high}")
        if self.log and self.low <= 0:
            raise ValueError(f"low must be above 0 where logarithms are drawn, got {self.low}")

    @classmethod
    def around(cls, value: float, factor: float) -> Range:
        """Return the interval from a part of a value to as many times it, by logarithms."""
        return cls(value / factor, value * factor, log=True)


@final
@attrs.frozen
class Component:
    """One thing a user can choose by name.

    Attributes:
        name: the name users type, unique within its kind: lower-case letters, digits, dots and hyphens.
        options: a frozen attrs class; its fields carry type, default, validator and ``metadata={"help": ...}``. It is
            the single source of TOML keys, of ``--set stage.key=value``, of ``copl plugins show`` and of the docs.
        build: called with an instance of `options` (and what the kind's hook names), returns the object. Or where that
            function or class is, such as ``"package.module:Name"``: the module is imported when something is built, so
            that a list of components, or a recipe, needs no more than the options do.
        summary: one line for ``copl plugins list``.
        reference: where it is published: a citation or a link.
        uses: for preference models, the kinds of components the method is composed of, such as ``("encoder", "gate")``.
        sections: for preference models, further recipe sections and their options classes, such as ``{"reward": ...}``.
        presets: named sets of option values, such as the published settings.
        formerly: names that it had before; who asks by one of them is told the new one.
        personal: whether users can differ by it. Methods that know no users, and encoders that tell none apart, are the
            references that gains are quoted against.
        search: what a search of ``copl ablate`` draws options from, by option or ``section.option``: a `Range`, or a
            tuple of values.

    Raises:
        TypeError: a field is something else.
    """

    name: str = attrs.field(validator=_be("text like 'two-hop'", _is_name))
    options: type = attrs.field(validator=_be("an attrs class (@attrs.frozen)", _is_options))
    build: Callable[..., Any] = attrs.field(
        converter=_from_place,
        validator=_be("a function or a class, or where it is, such as 'package.module:Name'", callable),
    )
    summary: str = attrs.field(validator=_be("one line of text that says what it does", _is_line))
    reference: str = attrs.field(default="", validator=_be("text", _is_text))
    uses: tuple[str, ...] = attrs.field(
        default=(), validator=_be(f"a tuple out of {', '.join(KINDS)}", lambda v: _is_tuple(v, KINDS.__contains__))
    )
    sections: Mapping[str, type] = attrs.field(
        factory=dict,
        converter=_plain,
        validator=_be("a table of attrs classes", lambda v: _is_table(v, _is_options)),
    )
    presets: Mapping[str, Mapping[str, Any]] = attrs.field(
        factory=dict,
        converter=_plain,
        validator=_be("a table of tables of option values", lambda v: _is_table(v, lambda p: _is_table(p, _anything))),
    )
    formerly: tuple[str, ...] = attrs.field(
        default=(), validator=_be("a tuple of names", lambda v: _is_tuple(v, _is_name))
    )
    personal: bool = attrs.field(default=True, validator=_be("True or False", lambda v: isinstance(v, bool)))
    search: Mapping[str, Range | tuple[Any, ...]] = attrs.field(
        factory=dict,
        converter=_plain,
        validator=_be("a table of ranges and tuples of values", lambda v: _is_table(v, _is_range)),
    )


def _is_range(value: Any) -> bool:
    return isinstance(value, Range) or (type(value) is tuple and len(value) > 0)


def _is_tuple(value: Any, fits: Callable[[Any], bool]) -> bool:
    return type(value) is tuple and all(_is_text(part) and fits(part) for part in value)


def _anything(_: Any) -> bool:
    return True


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

    @_spec
    def copl_generators(self) -> list[Component]:
        """Generators, which write candidate answers to prompts: ``build(options) -> Generator``."""
        raise AssertionError

    @_spec
    def copl_aligners(self) -> list[Component]:
        """Aligners, which make of candidates what a user sees: ``build(options) -> Aligner``."""
        raise AssertionError
