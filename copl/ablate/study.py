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

from copl.ablate.ranges import MOST_RUNS, Search, read_search
from copl.errors import CoplError, OptionsError, quoted, suggest
from copl.runs.recipe import DEFAULTS, Draft, is_seed, merge, parse_assignments, read_toml

NAME = "name"
"""The key of a section that chooses its component."""

_STUDY_KEYS = ("title", "seeds", "reference", "base", "data", "vary", "variants", "search")
_DATA_KEYS = ("directory", "source", "options", "seed", "per_seed")
_VARIANT_KEYS = ("name", "values", "requires")


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


def _read(path: Path, faults: list[str]) -> Study:
    document = read_toml(path)
    mine: list[str] = []
    _known(document, _STUDY_KEYS, "the study", mine)
    title, reference = document.get("title", path.stem), document.get("reference", "")
    mine += [
        f"{name} must be text, got {v!r}" for name, v in (("title", title), ("reference", reference)) if not _text(v)
    ]
    root = path.resolve().parent
    data = _table(document, "data", mine).items()
    vary = _table(document, "vary", mine).items()
    study = Study(
        title=str(title),
        base=_draft(_table(document, "base", mine), "base", mine),
        axes=tuple(axis for name, values in vary for axis in _axes(name, values, mine)),
        variants=_variants(document.get("variants", []), mine),
        data=tuple(_data_spec(name, about, root, mine) for name, about in data),
        seeds=_seeds(document.get("seeds", 1), mine),
        reference=str(reference),
        root=root,
        search=read_search(document, mine),
    )
    faults += [f"{path}: {fault}" for fault in mine]
    return study


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _known(table: Mapping[str, Any], keys: Sequence[str], where: str, faults: list[str]) -> None:
    faults += [
        f"{where}: unknown key {key!r}{suggest(key, keys)}; there are {', '.join(keys)}"
        for key in table
        if key not in keys
    ]


def _table(document: Mapping[str, Any], name: str, faults: list[str]) -> Mapping[str, Any]:
    value = document.get(name, {})
    if isinstance(value, Mapping):
        return value
    faults.append(f"{name} must be a table, such as [{name}]")
    return {}


def _draft(values: Mapping[str, Any], where: str, faults: list[str]) -> Draft:
    """Read ``stage = "name"``, ``"stage.key" = value`` and ``[stage]`` tables alike."""
    draft: Draft = {}
    for key, value in values.items():
        section, dot, option = key.partition(".")
        if isinstance(value, Mapping) and not dot:
            draft.setdefault(section, {}).update(value)
        elif dot:
            draft.setdefault(section, {})[option] = value
        elif _text(value):
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


def _variants(tables: Any, faults: list[str]) -> tuple[HandWritten, ...]:
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        faults.append("variants must be tables, each below [[variants]]")
        return ()
    found = []
    for number, table in enumerate(tables, 1):
        where = f"variant {table.get('name', number)!r}"
        _known(table, _VARIANT_KEYS, where, faults)
        name, values, requires = table.get("name", ""), table.get("values", {}), table.get("requires", "")
        if not (_text(name) and name.strip() and isinstance(values, Mapping) and _text(requires)):
            faults.append(f"{where}: a variant has a name, a table of values, and may have a package it requires")
            continue
        found.append(HandWritten(name, _draft(values, where, faults), requires))
    return tuple(found)


def _data_spec(name: str, about: Any, root: Path, faults: list[str]) -> DataSpec:
    where = f"data.{name}"
    if not isinstance(about, Mapping):
        faults.append(f"{where} must be a table with a directory or a source")
        return DataSpec(name)
    _known(about, _DATA_KEYS, where, faults)
    directory, source = about.get("directory"), about.get("source", "")
    options, seed, per_seed = about.get("options", {}), about.get("seed", 0), about.get("per_seed", False)
    types = _text(source) and isinstance(options, Mapping) and is_seed(seed) and isinstance(per_seed, bool)
    if not types or not (directory is None or _text(directory)):
        faults.append(
            f"{where}: directory and source are text, options is a table, seed a whole number from 0 up to 2^63 - 1, "
            "per_seed true or false"
        )
        return DataSpec(name)
    if (directory is None) == (not source):
        faults.append(f"{where}: name either a directory or a source")
    elif directory is not None and (options or per_seed or "seed" in about):
        faults.append(f"{where}: options, seed and per_seed belong to a source; a directory is taken as it is")
    if not re.fullmatch(r"[\w.-]+", name):
        faults.append(f"{where}: the name of a data set is made of letters, digits, dots, hyphens and underscores")
    return DataSpec(name, None if directory is None else root / directory, source, dict(options), seed, per_seed)


def _seeds(value: Any, faults: list[str]) -> tuple[int, ...]:
    if is_seed(value) and 0 < value <= MOST_RUNS:
        return tuple(range(value))
    if isinstance(value, list) and value and all(map(is_seed, value)) and len(set(value)) == len(value):
        return tuple(value)
    faults.append(
        f"seeds must be their number, at most {MOST_RUNS:,}, or a list of different whole numbers from 0 up to "
        f"2^63 - 1, got {quoted(value)}"
    )
    return (0,)


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
    found: dict[str, DataSpec] = {}
    for text in (part.strip() for words in texts for part in words.split(",") if part.strip()):
        spec = own.get(text) or DataSpec(Path(text).resolve().name, Path(text))
        if spec.name not in own and spec.directory is not None and not spec.directory.exists():
            named = suggest(text, own)
            faults.append(f"--data {text}: neither a directory nor a data set of the study{named}")
        elif spec.name in found:
            faults.append(f"--data {text}: two data sets are called {spec.name!r}; rename a directory")
        found[spec.name] = spec
    return tuple(found.values())
