"""From a study to its variants: every combination resolved and checked, those that come to the same run once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, version
from itertools import product
from typing import final

import attrs
from attrs import frozen

from copl.ablate.answers import SECTIONS, Answers, answers_of, without_answers
from copl.ablate.study import NAME, Axis, DataSpec, HandWritten, Study, shown_value, source_paths
from copl.data.fetching import advice
from copl.errors import CoplError, OptionsError, suggest
from copl.options import parse_options
from copl.plugins import KINDS, Component, Plugins
from copl.runs.recipe import ANY_BACKBONE, DEFAULTS, Draft, Recipe, canonical_hash, is_model_name, merge, resolve

BEST_UNPERSONALISED = "best unpersonalised"
"""The reference where none is named and several variants know no users: the best of those, on each split."""


@final
@frozen(eq=False)
class Variant:
    """One recipe of the study.

    Attributes:
        name: what it is called in tables.
        recipe: the resolved recipe; its seed is set for each cell.
        settings: value of each axis that makes a difference to it.
    """

    name: str
    recipe: Recipe
    settings: Mapping[str, str]


@final
@frozen(eq=False)
class Plan:
    """A study that can be run.

    Attributes:
        study: what was asked.
        variants: what is compared, in order.
        reference: name of the variant the others are compared with, or `BEST_UNPERSONALISED`.
        left_out: variants whose package is not installed, with its name.
        answers: what is measured of answers in every cell; None for nothing.
    """

    study: Study
    variants: tuple[Variant, ...]
    reference: str
    left_out: Mapping[str, str]
    answers: Answers | None = None

    @property
    def unpersonalised(self) -> tuple[str, ...]:
        """Names of the variants that know no users."""
        return tuple(variant.name for variant in self.variants if not variant.recipe.personal)

    @property
    def num_cells(self) -> int:
        return len(self.variants) * len(self.study.data) * len(self.study.seeds)


def plan(study: Study, plugins: Plugins) -> Plan:
    """Resolve every variant and check every data set.

    Raises:
        OptionsError: all faults of all variants and data sets, each once.
    """
    faults: list[str] = []
    answers = answers_of(study, plugins, faults)
    study = without_answers(study)
    left_out = {v.name: v.requires for v in study.variants if v.requires and not _installed(v.requires)}
    variants = [*_grid(study, plugins, faults), *_hand_written(study, left_out, plugins, faults)]
    for spec in study.data:
        _check_data(spec, plugins, study, faults)
    names = [variant.name for variant in variants]
    faults += [
        f"two variants are called {name!r}; rename one" for name in sorted({n for n in names if names.count(n) > 1})
    ]
    reference = study.reference or _reference(variants)
    wanted = [*names, BEST_UNPERSONALISED] if any(not v.recipe.personal for v in variants) else names
    if not faults and reference not in wanted:
        faults.append(
            f"--reference {reference}: no such variant{suggest(reference, wanted)}; there are {'; '.join(wanted)}"
        )
    if faults:
        raise OptionsError(list(dict.fromkeys(faults)))
    return Plan(study, tuple(variants), reference, left_out, answers)


def _reference(variants: Iterable[Variant]) -> str:
    """Return what gains are quoted against: the variant that knows no users, or the best of several, else the first."""
    names = [variant.name for variant in variants]
    unpersonalised = [variant.name for variant in variants if not variant.recipe.personal]
    if len(unpersonalised) > 1:
        return BEST_UNPERSONALISED
    return (unpersonalised or names or [""])[0]


def _installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True


def _hand_written(study: Study, left_out: Mapping[str, str], plugins: Plugins, faults: list[str]) -> Iterable[Variant]:
    for variant in study.variants:
        if variant.name in left_out:
            continue
        try:
            recipe = _resolve_by_hand(study, variant, plugins)
        except CoplError as error:
            faults += [f"variant {variant.name!r}: {fault}" for fault in error.faults]
            continue
        yield Variant(variant.name, recipe, {})


def _resolve_by_hand(study: Study, variant: HandWritten, plugins: Plugins) -> Recipe:
    return resolve(merge(study.base, variant.values), plugins, explicit=variant.values)


def _grid(study: Study, plugins: Plugins, faults: list[str]) -> list[Variant]:
    """Resolve every combination; one that a varied option makes no difference to is there once."""
    if not study.axes and study.variants:
        return []
    # a method decides which parts there are, and a component which options
    order = sorted(study.axes, key=lambda axis: (axis.key != NAME, axis.section != "method"))
    used: set[str] = set()
    variants: dict[str, Variant] = {}
    for values in product(*(axis.values for axis in study.axes)):
        chosen = dict(zip((axis.label for axis in study.axes), values, strict=True))
        draft: Draft = study.base
        settings: dict[str, str] = {}
        for axis in order:
            if _applies(axis, draft, plugins):
                draft = merge(draft, {axis.section: {axis.key: chosen[axis.label]}})
                settings[axis.label] = shown_value(chosen[axis.label])
        used |= settings.keys()
        try:
            recipe = resolve(draft, plugins)
        except CoplError as error:
            faults.extend(error.faults)
            continue
        listed = sorted((axis.label for axis in study.axes), key=lambda label: label != "method")
        settings = {label: settings[label] for label in listed if label in settings}
        name = _name(study.axes, settings) or recipe.method.name
        variants.setdefault(canonical_hash(recipe.to_dict()), Variant(name, recipe, settings))
    faults += [_unused(axis, plugins) for axis in study.axes if axis.label not in used]
    return list(variants.values())


def _name(axes: tuple[Axis, ...], settings: Mapping[str, str]) -> str:
    """Return what a combination is called: values of components by themselves where that says enough.

    >>> _name((Axis("encoder", "name", ()),), {"encoder": "mf"})
    'mf'
    >>> _name((Axis("method", "name", ()), Axis("gate", "top_k", ())), {"method": "copl", "gate.top_k": "2"})
    'copl, gate.top_k=2'
    """
    plain = {axes[0].label} if len(axes) == 1 and axes[0].key == NAME else {"method"}
    return ", ".join(value if label in plain else f"{label}={value}" for label, value in settings.items())


def _applies(axis: Axis, draft: Draft, plugins: Plugins) -> bool:
    """Whether the method and the component chosen so far have what the axis varies."""
    method = _component("method", draft, plugins)
    if method is None or (axis.section, axis.key) == ("method", NAME):
        return True  # `resolve` says what is wrong
    if axis.section in method.sections:
        presets = [table for table in method.presets.values() if axis.section in table]
        return bool(presets) if axis.key == "preset" else axis.key in _fields(method.sections[axis.section])
    if axis.section != "method" and axis.section not in method.uses:
        return False
    if axis.key == NAME:
        return True
    component = method if axis.section == "method" else _component(axis.section, draft, plugins)
    if component is None:
        return True
    return bool(component.presets) if axis.key == "preset" else axis.key in _fields(component.options)


def _component(kind: str, draft: Draft, plugins: Plugins) -> Component | None:
    name = str(draft.get(kind, {}).get(NAME, DEFAULTS.get(kind, "")))
    registry = plugins.registry(kind)
    if kind == "backbone" and is_model_name(name, registry):
        name = ANY_BACKBONE
    return registry.get(name).component if name in registry else None


def _fields(options: type) -> list[str]:
    return [field.name for field in attrs.fields(options)]


def _unused(axis: Axis, plugins: Plugins) -> str:
    """Say why an axis makes no difference to anything."""
    where = f"--vary {axis.label}"
    methods = [registered.component for registered in plugins.registry("method")]
    known = {"method", *DEFAULTS, *SECTIONS, *(section for method in methods for section in method.sections)}
    if axis.section not in known:
        unlike = suggest(axis.section, known)
        return f"{where}: unknown section {axis.section!r}{unlike}; there are {', '.join(sorted(known))}"
    classes = [method.sections[axis.section] for method in methods if axis.section in method.sections]
    if axis.section in KINDS:
        classes += [registered.component.options for registered in plugins.registry(axis.section)]
    keys = {NAME, "preset"} | {name for options in classes for name in _fields(options)}
    if axis.key not in keys:
        unlike = suggest(axis.key, keys)
        return f"{where}: unknown option {axis.key!r}{unlike}; there are {', '.join(sorted(keys - {NAME}))}"
    return f"{where}: makes no difference to any variant; vary the method or component that has it, too"


def _check_data(spec: DataSpec, plugins: Plugins, study: Study, faults: list[str]) -> None:
    if spec.directory is not None:
        if not (spec.directory / "dataset.json").is_file():
            faults.append(f"data {spec.name!r}: {spec.directory} is no data set; `copl data make` writes data sets")
        return
    try:
        component = plugins.registry("source").get(spec.source).component
        options: object = parse_options(component.options, spec.options, where=f"data.{spec.name}")
    except CoplError as error:
        faults.extend(f"data {spec.name!r}: {fault}" for fault in error.faults)
        return
    for name, path in source_paths(options, study.root).items():
        if not path.exists():
            faults.append(f"data {spec.name!r}: {name} {path}: no such file or directory{advice(path)}")
