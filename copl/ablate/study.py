"""What a study asks for: a TOML file, flags, or both; flags win.

    title = "encoders and gates"
    seeds = 3                                  # 0, 1, 2; or a list
    reference = "btl"                          # the variant that the others are compared with

    [base]                                     # recipe values of all variants
    method = "copl"
    [base.reward]
    max_steps = 100

    [data.corpus]                              # made once, below --out
    source = "facets"
    options = { num_seen_users = 200 }
    [data.votes]
    directory = "votes/"                       # made before, by `copl data make`

    [vary]                                     # every combination is a variant
    method = ["copl", "btl"]
    encoder = ["gcf", "mf"]
    "encoder.embedding_dim" = [8, 16]

    [search]                                   # options chosen on validation first (`copl.ablate.ranges`)
    num_trials = 8

    [[variants]]                               # and these, by hand, each on the base
    name = "no shared expert"
    values = { "mixture.shared_rank" = 0 }

A name alone (``encoder = "mf"``) chooses a component, ``"stage.key"`` or a table sets options. The sections
``aligner``, ``generator`` and ``answers`` belong to no recipe (`copl.ablate.answers`). Paths are relative to the file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, final

import attrs
from attrs import field, frozen
from attrs.validators import ge, optional

from copl.ablate.ranges import MOST_RUNS, Search, parsed, read_search
from copl.errors import CoplError, OptionsError, quoted, suggest
from copl.options import option
from copl.runs.recipe import DEFAULTS, Draft, merge, parse_assignments
from copl.runs.toml_files import read_toml

NAME = "name"
"""The key of a section that chooses its component."""


@final
@frozen
class Axis:
    """One thing that is varied.

    Attributes:
        section: the section of the recipe, such as ``encoder``.
        key: its option, or ``name`` where the component itself is varied.
        values: the values it takes.
    """

    section: str
    key: str
    values: tuple[Any, ...]

    @property
    def label(self) -> str:
        return self.section if self.key == NAME else f"{self.section}.{self.key}"


@final
@frozen
class HandWritten:
    """A variant written by hand.

    Attributes:
        name: what it is called in tables.
        values: recipe values on top of the base.
        requires: package it needs; without that, the variant is left out, and the study says so.
    """

    name: str
    values: Draft
    requires: str = ""


@final
@frozen
class DataSpec:
    """A data set of the study: a directory made before, or a source to make one from.

    Attributes:
        name: what it is called in tables.
        directory: the directory, or None where there is a source.
        source: name of the source, or empty.
        options: its options.
        seed: seed of the source.
        per_seed: make it anew for each seed of the study, so that the interval covers the drawing of the data, too.
    """

    name: str
    directory: Path | None = None
    source: str = ""
    options: Mapping[str, Any] = field(factory=dict)
    seed: int = 0
    per_seed: bool = False


@final
@frozen
class Study:
    """What is asked; nothing is resolved yet.

    Attributes:
        title: heading of the tables.
        base: recipe values that all variants share.
        axes: what the grid varies.
        variants: variants by hand.
        data: the data sets.
        seeds: one run each.
        reference: name of the variant the others are compared with; chosen by `copl.ablate.grid.plan` where empty.
        root: directory that relative paths start from.
        search: how options are chosen before the study runs; None runs the recipes as they stand.
    """

    title: str = "ablation"
    base: Draft = field(factory=dict)
    axes: tuple[Axis, ...] = ()
    variants: tuple[HandWritten, ...] = ()
    data: tuple[DataSpec, ...] = ()
    seeds: tuple[int, ...] = (0,)
    reference: str = ""
    root: Path = Path()
    search: Search | None = None


@final
@frozen
class Flags:
    """What the command line adds to a study.

    Attributes:
        vary: texts such as ``encoder=gcf,mf``; each replaces the axis of the same name.
        data: names of data sets of the file, or directories; they replace those of the file.
        num_seeds: number of seeds.
        reference: name of the variant to compare with.
        settings: texts such as ``reward.max_steps=10``, for all variants.
    """

    vary: Sequence[str] = ()
    data: Sequence[str] = ()
    num_seeds: int | None = None
    reference: str | None = None
    settings: Sequence[str] = ()


def shown_value(value: Any) -> str:
    """Return a value of an axis as it is called in tables."""
    if isinstance(value, list | tuple):
        return ",".join(map(shown_value, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def source_paths(options: Any, root: Path) -> dict[str, Path]:
    """Return the options of a component that are paths, from `root` where they are relative."""
    values = {field.name: getattr(options, field.name) for field in attrs.fields(type(options))}
    return {name: (root / value).resolve() for name, value in values.items() if isinstance(value, Path)}


def load_study(config: Path | None, flags: Flags) -> Study:
    """Read a study and apply the flags.

    Raises:
        OptionsError: all faults of the file and of the flags.
    """
    faults: list[str] = []
    study = _read(config, faults) if config else Study()
    study = _with_flags(study, flags, faults)
    if not study.data and not faults:
        faults.append("no data set: name one with --data DIR, or write a table [data.NAME] into the study")
    if faults:
        raise OptionsError(faults)
    return study


def _distinct_seeds(_instance: object, _field: object, seeds: int | tuple[int, ...]) -> None:
    if isinstance(seeds, int):
        proper = 1 <= seeds <= MOST_RUNS
    else:
        proper = bool(seeds) and min(seeds) >= 0 and len(set(seeds)) == len(seeds)
    if not proper:
        raise ValueError(
            f"must be their number, at most {MOST_RUNS:,}, or a list of different whole numbers from 0 up to 2^63 - 1, "
            f"got {quoted(seeds)}"
        )


def _not_blank(_instance: object, _field: object, text: str) -> None:
    if not text.strip():
        raise ValueError("must not be blank")


@final
@frozen
class _StudyTable:
    """The file."""

    title: str | None = option(None, help="heading of the tables; none: the name of the file")
    seeds: int | tuple[int, ...] = option(1, help="number of seeds, or a list of them", validator=_distinct_seeds)
    reference: str = option("", help="the variant that the others are compared with")
    base: dict[str, Any] = option(attrs.Factory(dict), help="recipe values of all variants")
    data: dict[str, Any] = option(attrs.Factory(dict), help="data sets by name")
    vary: dict[str, Any] = option(attrs.Factory(dict), help="values by what is varied")
    variants: tuple[dict[str, Any], ...] = option((), help="variants by hand, each below [[variants]]")
    search: dict[str, Any] | None = option(None, help="how options are chosen before the study runs")


@final
@frozen
class _DataTable:
    """A data set: ``[data.NAME]``."""

    directory: Path | None = option(None, help="one made before")
    source: str = option("", help="source to make one from")
    options: dict[str, Any] = option(attrs.Factory(dict), help="options of the source")
    seed: int | None = option(None, help="seed of the source; none: 0", validator=optional(ge(0)))
    per_seed: bool = option(False, help="make it anew for each seed of the study")

    def __attrs_post_init__(self) -> None:
        if (self.directory is None) == (not self.source):
            raise ValueError("name either a directory or a source")
        if self.directory is not None and (self.options or self.per_seed or self.seed is not None):
            raise ValueError("options, seed and per_seed belong to a source; a directory is taken as it is")


@final
@frozen
class _VariantTable:
    """A variant by hand: ``[[variants]]``."""

    name: str = option(help="what it is called in tables", validator=_not_blank)
    values: dict[str, Any] = option(attrs.Factory(dict), help="recipe values on top of the base")
    requires: str = option("", help="package it needs")


def _read(path: Path, faults: list[str]) -> Study:
    mine: list[str] = []
    document = read_toml(path)
    table = parsed(_StudyTable, document, "study", mine) or _StudyTable(**_sound(_StudyTable, document))
    root = path.resolve().parent
    study = Study(
        title=path.stem if table.title is None else table.title,
        base=_draft(table.base, "base", mine),
        axes=tuple(axis for name, values in table.vary.items() for axis in _axes(name, values, mine)),
        variants=_variants(table.variants, mine),
        data=tuple(_data_spec(name, about, root, mine) for name, about in table.data.items()),
        seeds=tuple(range(table.seeds)) if isinstance(table.seeds, int) else table.seeds,
        reference=table.reference,
        root=root,
        search=None if table.search is None else read_search(table.search, mine),
    )
    faults += [f"{path}: {fault}" for fault in mine]
    return study


def _sound(options: type[Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of some values that are in order, so that what lies below them is looked at, too."""
    each = {name: parsed(options, {name: value}, "", []) for name, value in values.items()}
    return {name: getattr(table, name) for name, table in each.items() if table is not None}


def _draft(values: Mapping[str, Any], where: str, faults: list[str]) -> Draft:
    """Read ``stage = "name"``, ``"stage.key" = value`` and ``[stage]`` tables alike."""
    draft: Draft = {}
    for key, value in values.items():
        section, dot, option = key.partition(".")
        if isinstance(value, Mapping) and not dot:
            draft.setdefault(section, {}).update(value)
        elif dot:
            draft.setdefault(section, {})[option] = value
        elif isinstance(value, str):
            draft.setdefault(section, {})[NAME] = value
        else:
            faults.append(f"{where}: {key} must be the name of a component or a table of options, got {value!r}")
    return draft


def _axes(name: str, values: Any, faults: list[str]) -> list[Axis]:
    if isinstance(values, Mapping):  # [vary.encoder] or an unquoted encoder.num_layers
        return [axis for key, more in values.items() for axis in _axes(f"{name}.{key}", more, faults)]
    section, _, key = name.partition(".")
    if not isinstance(values, list | tuple) or not values:
        faults.append(f"vary: {name} must be a list of values, got {values!r}")
        return []
    return [Axis(section, key or NAME, tuple(values))]


def _variants(tables: Sequence[Mapping[str, Any]], faults: list[str]) -> tuple[HandWritten, ...]:
    named = [(f"variant {table.get('name', number)!r}", table) for number, table in enumerate(tables, 1)]
    read = [(where, parsed(_VariantTable, table, where, faults)) for where, table in named]
    return tuple(
        HandWritten(table.name, _draft(table.values, where, faults), table.requires)
        for where, table in read
        if table is not None
    )


def _data_spec(name: str, about: Any, root: Path, faults: list[str]) -> DataSpec:
    where = f"data.{name}"
    if not isinstance(about, Mapping):
        faults.append(f"{where} must be a table with a directory or a source")
        return DataSpec(name)
    if not re.fullmatch(r"[\w.-]+", name):
        faults.append(f"{where}: the name of a data set is made of letters, digits, dots, hyphens and underscores")
    table = parsed(_DataTable, about, where, faults)
    if table is None:
        return DataSpec(name)
    directory = None if table.directory is None else root / table.directory
    return DataSpec(name, directory, table.source, table.options, table.seed or 0, table.per_seed)


def _with_flags(study: Study, flags: Flags, faults: list[str]) -> Study:
    axes = {axis.label: axis for axis in study.axes}
    for text in flags.vary:
        target, equals, listed = text.partition("=")
        section, dot, key = target.strip().partition(".")
        values = tuple(value.strip() for value in listed.split(",") if value.strip())
        if not (equals and section and values) or (dot and not key):
            faults.append(f"--vary {text}: expected stage=a,b or stage.key=1,2, such as encoder=gcf,mf")
            continue
        axis = Axis(section, key or NAME, values)
        axes[axis.label] = axis
    try:
        settings = parse_assignments(flags.settings)
    except CoplError as error:
        faults.extend(error.faults)
        settings = {}
    base = merge({section: _named(section, values) for section, values in study.base.items()}, settings)
    if flags.num_seeds is not None and not 1 <= flags.num_seeds <= MOST_RUNS:
        faults.append(f"--seeds {flags.num_seeds}: at least one, and at most {MOST_RUNS:,}")
        flags = attrs.evolve(flags, num_seeds=None)
    return attrs.evolve(
        study,
        axes=tuple(axes.values()),
        base={section: _named(section, values) for section, values in base.items()},
        data=_data_flags(study, flags.data, faults) if flags.data else study.data,
        seeds=tuple(range(flags.num_seeds)) if flags.num_seeds else study.seeds,
        reference=flags.reference or study.reference,
    )


def _named(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Say whose options these are, so that they are dropped where another component is chosen."""
    return {NAME: DEFAULTS[section], **values} if section in DEFAULTS else dict(values)


def _data_flags(study: Study, texts: Sequence[str], faults: list[str]) -> tuple[DataSpec, ...]:
    own = {spec.name: spec for spec in study.data}
    specs: dict[str, DataSpec] = {}
    for text in (part.strip() for words in texts for part in words.split(",") if part.strip()):
        spec = own.get(text) or DataSpec(Path(text).resolve().name, Path(text))
        if spec.name not in own and spec.directory is not None and not spec.directory.exists():
            named = suggest(text, own)
            faults.append(f"--data {text}: neither a directory nor a data set of the study{named}")
        elif spec.name in specs:
            faults.append(f"--data {text}: two data sets are called {spec.name!r}; rename a directory")
        specs[spec.name] = spec
    return tuple(specs.values())
