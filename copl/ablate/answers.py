"""What a study asks of answers: who writes candidates and who decides what simulated users are shown.

    copl ablate --vary method=copl,btl --vary aligner=best-of-n,mixture-dpo --vary aligner.num_experts=0,4 --data corpus

The sections ``aligner``, ``generator`` and ``answers`` of a study are no part of a recipe, for nothing that is trained
depends on them: every aligner is measured with every generator in every cell.

    [base.answers]
    num = 8                                    # candidates to each prompt
    [vary]
    aligner = ["best-of-n", "in-context"]
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import product
from typing import Any, final

import attrs
from attrs import field, frozen
from attrs.validators import ge, optional

from copl.ablate.study import NAME, Axis, Study, shown_value, source_paths
from copl.errors import CoplError, suggest
from copl.options import option, options_to_dict, parse_options
from copl.plugins import Plugins
from copl.runs.recipe import Choice, choose

ANSWERS = "answers"
_FIRST: Mapping[str, str] = {"aligner": "best-of-n", "generator": "facets"}
"""Kinds of components that answer, with the one that is measured where a study names none."""

SECTIONS = (*_FIRST, ANSWERS)


@final
@frozen
class AnswersOptions:
    """How much is measured of answers."""

    num: int = option(8, help="candidates to each prompt", validator=ge(2))
    prompts: int | None = option(12, help="at most so many new prompts; none: all", validator=optional(ge(1)))
    users: int | None = option(
        100, help="at most so many seen and so many unseen users; none: all", validator=optional(ge(1))
    )


@final
@frozen
class Named:
    """A component with its options, as plain values that can be sent to another process.

    Attributes:
        label: what it is called in tables.
        name: its name.
        options: its options.
    """

    label: str
    name: str
    options: Mapping[str, Any]

    def choice(self, kind: str, plugins: Plugins) -> Choice:
        """Return it as chosen.

        Raises:
            OptionsError: it is no longer there.
        """
        registered = plugins.registry(kind).get(self.name)
        options: object = parse_options(registered.component.options, self.options, where=f"{kind}.{self.name}")
        return Choice(kind, self.name, options, registered)


def _named(values: Iterable[Named]) -> tuple[Named, ...]:
    return tuple(values)


@final
@frozen
class Answers:
    """What is measured of answers in every cell.

    Attributes:
        aligners: who decides.
        generators: who writes.
        size: how much is measured.
    """

    aligners: tuple[Named, ...] = field(converter=_named)
    generators: tuple[Named, ...] = field(converter=_named)
    size: AnswersOptions


def without_answers(study: Study) -> Study:
    """Return a study of recipes alone."""
    return attrs.evolve(
        study,
        base={section: values for section, values in study.base.items() if section not in SECTIONS},
        axes=tuple(axis for axis in study.axes if axis.section not in SECTIONS),
    )


def answers_of(study: Study, plugins: Plugins, faults: list[str]) -> Answers | None:
    """Return what a study asks of answers, None where it asks nothing; what is wrong is added to the faults."""
    base = {section: study.base[section] for section in SECTIONS if section in study.base}
    axes = [axis for axis in study.axes if axis.section in SECTIONS]
    if not base and not axes:
        return None
    faults += [f"--vary {axis.label}: is the same for the whole study" for axis in axes if axis.section == ANSWERS]
    size = AnswersOptions()
    try:
        size = parse_options(AnswersOptions, base.get(ANSWERS, {}), where=ANSWERS)
    except CoplError as error:
        faults += error.faults
    aligners, generators = (_components(kind, study, plugins, faults) for kind in _FIRST)
    return Answers(aligners, generators, size)


def _components(kind: str, study: Study, plugins: Plugins, faults: list[str]) -> list[Named]:
    """Return every component of a kind that is named, with every combination of the options that are varied."""
    given = dict(study.base.get(kind, {}))
    axes = {axis.key: axis for axis in study.axes if axis.section == kind}
    first = (given.pop(NAME, _FIRST[kind]),)
    names = axes.pop(NAME, Axis(kind, NAME, first)).values
    named: dict[str, Named] = {}
    unused = {*given, *axes}
    for name in map(str, names):
        registry = plugins.registry(kind)
        has = {f.name for f in attrs.fields(registry.get(name).component.options)} if name in registry else set()
        unused -= has
        varied = [axis for key, axis in axes.items() if key in has]
        fixed = {key: value for key, value in given.items() if key in has}
        for values in product(*(axis.values for axis in varied)):
            own = {axis.key: value for axis, value in zip(varied, values, strict=True)}
            label = ", ".join([name, *(f"{key}={shown_value(value)}" for key, value in own.items())])
            choice = choose(kind, {NAME: name, **fixed, **own}, plugins, faults)
            if choice is not None:
                options = attrs.evolve(choice.options, **source_paths(choice.options, study.root))
                named[label] = Named(label, name, options_to_dict(options))
    known = {f.name for r in plugins.registry(kind) for f in attrs.fields(r.component.options)}
    faults += [f"{kind}.{key}: no {kind} of this study has it{suggest(key, known)}" for key in sorted(unused)]
    return list(named.values())
