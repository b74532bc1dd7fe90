"""A recipe: which component plays each part of a run, with all options, resolved and checked.

A recipe is written as TOML, as flags, or both; flags win. The section of a component holds its ``name``, optionally a
``preset`` (named option values of the component), and its options:

    seed = 0
    [method]
    name = "copl"
    [encoder]
    name = "gcf"
    num_layers = 2
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from attrs import field, frozen

from copl.errors import CoplError, OptionsError, quoted, suggest
from copl.options import describe_options, options_to_dict, parse_options, values_before
from copl.plugins import KINDS, Plugins, Registered, Registry
from copl.runs.code import code_digest
from copl.runs.toml_files import read_toml

if TYPE_CHECKING:
    from copl.interfaces import AdaptationStrategy, Backbone, GraphEncoder
    from copl.interfaces.gate import ExpertGate

DEFAULTS: Mapping[str, str] = {
    "method": "copl",
    "encoder": "stacked",
    "gate": "cluster",
    "adapter": "empirical",
    "backbone": "minilm",
}
"""The component that plays each part unless another is chosen."""

ANY_BACKBONE = "hf"
"""The backbone that is any model by its Hugging Face id or path."""

Draft = dict[str, dict[str, Any]]
"""Option values by section, before they are checked."""


@final
@frozen(eq=False)
class Choice:
    """One component chosen for one part, with its options."""

    kind: str
    name: str
    options: Any
    registered: Registered

    def build(self, **context: object) -> Any:
        """Build the component."""
        return self.registered.component.build(self.options, **context)

    def key(self) -> dict[str, object]:
        """Return all that the component's results depend on, as plain JSON values."""
        return {
            "name": self.name,
            "package": self.registered.package,
            "version": self.registered.package_version,
            "code": code_digest(self.registered.component.build),
            "options": options_to_dict(self.options),
        }


@final
@frozen(eq=False)
class Stages:
    """The parts a method is composed of, as chosen in a recipe; what ``build`` of a method receives."""

    parts: Mapping[str, Choice]
    sections: Mapping[str, Any]

    def build(self, kind: str, **context: object) -> Any:
        """Build the component chosen for `kind`, with the context its hook names."""
        return self.parts[kind].build(**context)

    def encoder(self) -> GraphEncoder:
        """Build the graph encoder."""
        encoder: GraphEncoder = self.build("encoder")
        return encoder

    def gate(self, embedding_dim: int) -> ExpertGate:
        """Build the gate for user embeddings of some size, with weights of its own, which are trained."""
        gate: ExpertGate = self.build("gate", embedding_dim=embedding_dim)
        return gate

    def adapter(self) -> AdaptationStrategy:
        """Build the strategy that places newcomers."""
        adapter: AdaptationStrategy = self.build("adapter")
        return adapter

    def backbone(self) -> Backbone:
        """Return the backbone, the same whenever it is asked for, so that its files are looked at once."""
        return self._backbone

    @cached_property
    def _backbone(self) -> Backbone:
        backbone: Backbone = self.build("backbone")
        return backbone

    def options(self, section: str) -> Any:
        """Return the options object of a section the method declared."""
        return self.sections[section]

    def key(self, *names: str) -> dict[str, Any]:
        """Return what the named parts and sections depend on, for the key of a stage."""
        return {
            name: self.parts[name].key() if name in self.parts else options_to_dict(self.sections[name])
            for name in names
        }


@final
@frozen(eq=False)
class Recipe:
    """A resolved recipe."""

    method: Choice
    stages: Stages
    seed: int = field(default=0)

    @property
    def personal(self) -> bool:
        """Whether users can differ by what it makes of a response."""
        knowing = [self.method, *(part for part in (self.stages.parts.get("encoder"),) if part is not None)]
        return all(choice.registered.component.personal for choice in knowing)

    @property
    def reading(self) -> Mapping[str, object] | None:
        """How texts are read: the backbone with its options, and the limit in tokens; None where none are."""
        backbone = self.stages.parts.get("backbone")
        if backbone is None:
            return None
        reward = self.stages.sections.get("reward")
        limit = getattr(self.method.options if reward is None else reward, "max_length", None)
        return {"backbone": backbone.name, **options_to_dict(backbone.options), "max_length": limit}

    def build(self) -> Any:
        """Build the method (a `PreferenceModel`)."""
        return self.method.build(stages=self.stages)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as it is written to ``config.toml``."""
        document: dict[str, object] = {"seed": self.seed}
        for choice in (self.method, *self.stages.parts.values()):
            document[choice.kind] = {"name": choice.name, **options_to_dict(choice.options)}
        for section, options in self.stages.sections.items():
            document[section] = options_to_dict(options)
        return document

    def key(self) -> dict[str, object]:
        """Return all that a run of this recipe depends on, but for the data."""
        return {
            "seed": self.seed,
            "method": self.method.key(),
            "stages": self.stages.key(*self.stages.parts, *self.stages.sections),
        }


def is_seed(value: object) -> bool:
    """Whether a value can be a seed: a whole number that every generator takes."""
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def read_recipe(path: Path) -> tuple[Draft, int | None]:
    """Read a TOML recipe.

    Raises:
        OptionsError: the file is missing or is not TOML, or a section is not a table.
    """
    document = read_toml(path)
    seed = document.pop("seed", None)
    faults = [
        f"{path}: {name!r} must be a table, such as [{name}]"
        for name, section in document.items()
        if not isinstance(section, dict)
    ]
    if seed is not None and not is_seed(seed):
        faults.append(f"{path}: seed must be a whole number from 0 up to 2^63 - 1, got {quoted(seed)}")
    if faults:
        raise OptionsError(faults)
    return document, seed


def parse_assignments(assignments: Iterable[str]) -> Draft:
    """Parse ``stage.key=value`` texts.

    Raises:
        OptionsError: one fault for each text of another form.

    >>> parse_assignments(["encoder.num_layers=3"])
    {'encoder': {'num_layers': '3'}}
    """
    draft: Draft = {}
    faults = []
    for text in assignments:
        target, equals, value = text.partition("=")
        section, dot, key = target.strip().partition(".")
        if not (equals and dot and section and key):
            faults.append(f"--set {text}: expected stage.key=value, such as encoder.num_layers=3")
            continue
        draft.setdefault(section, {})[key] = value.strip()
    if faults:
        raise OptionsError(faults)
    return draft


def merge(*drafts: Draft) -> Draft:
    """Merge drafts; later ones win, and choosing another component drops the options meant for the former one."""
    merged: Draft = {}
    for draft in drafts:
        for section, values in draft.items():
            current = merged.setdefault(section, {})
            if "name" in values and "name" in current and values["name"] != current["name"]:
                current.clear()
            current.update(values)
    return merged


def as_written(draft: Draft, plugins: Plugins) -> Draft:
    """Return what a run has written, with the values of before for options that there were not yet (`option`)."""
    classes: dict[str, type] = {}
    for kind in draft.keys() & set(KINDS):
        name = str(draft[kind].get("name", DEFAULTS.get(kind, "")))
        if name in plugins.registry(kind):  # `resolve` reports others
            component = plugins.registry(kind).get(name).component
            classes |= {kind: component.options, **component.sections}
    before = {section: values_before(options) for section, options in classes.items()}
    return {section: {**before.get(section, {}), **draft.get(section, {})} for section in {**draft, **classes}}


def resolve(draft: Draft, plugins: Plugins, *, seed: int = 0, explicit: Iterable[str] = ()) -> Recipe:
    """Choose components, parse all options and report every fault of the recipe at once.

    Args:
        draft: option values by section.
        plugins: where components come from.
        seed: seed of the whole run.
        explicit: sections named on the command line; one that the method does not use is a fault there, while a
            recipe file may carry sections for several methods.

    Raises:
        OptionsError: all faults.
    """
    faults: list[str] = []
    draft = _with_method_preset(draft, plugins)
    method = choose("method", draft.get("method", {}), plugins, faults)
    if method is None:
        raise OptionsError(faults)
    component = method.registered.component
    known = {"method", *component.uses, *component.sections}
    everywhere = known | set(DEFAULTS)
    if not everywhere.issuperset(draft):  # else nobody else's package is imported
        everywhere |= {section for other in plugins.registry("method") for section in other.component.sections}
    for section in draft:
        if section not in everywhere:
            faults.append(
                f"unknown section {section!r}{suggest(section, everywhere)}; there are {_listing(everywhere)}"
            )
        elif section in set(explicit) - known:
            faults.append(f"method {method.name!r} has no part {section!r}; it has {_listing(known)}")
    parts = {}
    for kind in component.uses:
        choice = choose(kind, draft.get(kind, {}), plugins, faults)
        if choice is not None:
            parts[kind] = choice
    sections: dict[str, object] = {}
    for section, options in component.sections.items():
        values = dict(draft.get(section, {}))
        presets = {name: table[section] for name, table in component.presets.items() if section in table}
        try:
            preset = _preset_of(values, presets, section)
            sections[section] = parse_options(options, {**preset, **values}, where=section)
        except CoplError as error:
            faults.extend(error.faults)
    if faults:
        raise OptionsError(faults)
    return Recipe(method, Stages(parts, sections), seed)


def _with_method_preset(draft: Draft, plugins: Plugins) -> Draft:
    """Expand ``preset`` in ``[method]``: values for all parts of the recipe, under those that are given."""
    values = dict(draft.get("method", {}))
    if "preset" not in values:
        return draft
    presets = plugins.registry("method").get(str(values.get("name", DEFAULTS["method"]))).component.presets
    wanted: Draft = {section: dict(given) for section, given in _preset_of(values, presets, "method").items()}
    return merge(wanted, {**draft, "method": values})


def _preset_of(values: dict[str, object], presets: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    """Take ``preset`` out of some values and return what it stands for; nothing where none is named.

    Raises:
        OptionsError: there is no such preset.
    """
    preset = values.pop("preset", None)
    if preset is None:
        return {}
    if not isinstance(preset, str) or preset not in presets:
        raise OptionsError(
            f"{where}: unknown preset {quoted(preset)}{suggest(str(preset), presets)}; it has {_listing(presets)}"
        )
    chosen: Mapping[str, object] = presets[preset]
    return chosen


def _listing(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def is_model_name(name: str, registry: Registry) -> bool:
    """Whether what is given as a backbone's name is that of a model: an id on the hub or a path."""
    return bool(name) and name not in registry and ("/" in name or Path(name).exists())


def choose(kind: str, values: Mapping[str, object], plugins: Plugins, faults: list[str]) -> Choice | None:
    """Return the component of a kind that ``name`` among `values` says, with its options; None adds faults.

    Args:
        kind: one of `copl.plugins.KINDS`.
        values: ``name``, ``preset`` and options; without a name, the default of the kind.
        plugins: where components come from.
        faults: what is wrong is added here.
    """
    values = dict(values)
    name = str(values.pop("name", DEFAULTS.get(kind, "")))
    registry = plugins.registry(kind)
    if kind == "backbone" and is_model_name(name, registry):
        name, values = ANY_BACKBONE, {"path": name, **values}
    try:
        registered = registry.get(name)
        preset = _preset_of(values, registered.component.presets, f"{kind}.{name}")
        options: object = parse_options(registered.component.options, {**preset, **values}, where=f"{kind}.{name}")
    except CoplError as error:
        faults.extend(error.faults)
        return None
    return Choice(kind, name, options, registered)


def write_recipe(recipe: Recipe, *, help_texts: bool = False) -> str:
    """Return the recipe as TOML, with each option's help as a comment if asked."""
    import tomlkit

    document = tomlkit.document()
    document.add("seed", recipe.seed)
    classes = {choice.kind: type(choice.options) for choice in (recipe.method, *recipe.stages.parts.values())}
    classes |= {section: type(options) for section, options in recipe.stages.sections.items()}
    for section, values in recipe.to_dict().items():
        if section == "seed":
            continue
        table = tomlkit.table()
        helps = {info.name: info.help for info in describe_options(classes[section])}
        for name, value in values.items():
            if help_texts and name in helps:
                table.add(tomlkit.comment(helps[name]))
            table.add(name, value)
        if help_texts:
            for name in helps.keys() - values.keys():
                table.add(tomlkit.comment(f"{name} = none  # {helps[name]}"))
        document.add(section, table)
    return tomlkit.dumps(document)


def canonical_hash(value: object) -> str:
    """Return a hash of plain JSON values that does not depend on the order of keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def differences(old: object, new: object, where: str = "", *, but: frozenset[str] = frozenset()) -> list[str]:
    """Return a line for each value that differs between two tables of settings, but for those at some places."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        return [
            line
            for key in sorted(old.keys() | new.keys())
            for line in differences(old.get(key), new.get(key), f"{where}.{key}" if where else key, but=but)
        ]
    return [] if old == new or where in but else [f"{where}: {quoted(old)} there, {quoted(new)} now"]


assert set(DEFAULTS) <= set(KINDS)
