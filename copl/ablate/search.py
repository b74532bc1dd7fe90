"""The search of a study: every variant is tried with the same number of recipes, and the validation loss decides.

Random search (Bergstra and Bengio 2012, "Random Search for Hyper-Parameter Optimization", JMLR 13). The first trial is
the recipe as it stands. A trial is trained with the search's own seed, on the data drawn with that seed, and judged on
the split ``validation`` alone. What is best on a data set is what the study then runs there. Where each seed splits the
same answers anew, validation comparisons of the search may be held out in another seed: they have decided between
trials, by one number each. Margins of different methods are on different scales, and a loss should not reward a lucky
one: it is the Bradley-Terry loss at the factor that suits the margins best.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, final

import attrs
import numpy as np
from attrs import field, frozen

from copl.ablate.cells import Cell, Outcome
from copl.ablate.grid import Plan, Variant
from copl.ablate.ranges import Choices, Search, draw, ends
from copl.errors import CoplError, OptionsError, suggest
from copl.evaluate.tables import Table, number
from copl.plugins import Plugins
from copl.runs.recipe import Draft, Recipe, resolve


@final
@frozen(eq=False)
class Trial:
    """One recipe of a variant.

    Attributes:
        variant: name of the variant.
        number: 0 for the recipe as it stands.
        values: the options that were drawn, by ``section.option``.
        recipe: all of it.
    """

    variant: str
    number: int
    values: Mapping[str, Any]
    recipe: Recipe


@final
@frozen
class Judged:
    """A trial on a data set, as kept in ``search.json``.

    Attributes:
        variant: name of the variant.
        data: name of the data set.
        number: 0 for the recipe as it stands.
        values: the options that were drawn.
        loss: validation loss, None where the trial failed.
        accuracy: validation accuracy.
        chosen: whether the study goes on with it.
    """

    variant: str
    data: str
    number: int
    values: Mapping[str, Any] = field(factory=dict)
    loss: float | None = None
    accuracy: float | None = None
    chosen: bool = False


def trials_of(plan: Plan, search: Search, plugins: Plugins) -> list[Trial]:
    """Return the trials of all variants, each drawn from the search's seed, its name and its number alone.

    A variant whose components declare no range, and for which the study gives none, has one.

    Raises:
        OptionsError: a range is given for no variant, for no option, or beyond what the option may be; all at once.
    """
    names = [variant.name for variant in plan.variants]
    faults = [
        f"search.ranges: no variant {name!r}{suggest(name, names)}"
        for name in search.ranges
        if name not in names and name not in plan.left_out
    ]
    trials: list[Trial] = []
    for variant in plan.variants:
        ranges = {**declared(variant.recipe), **search.ranges.get(variant.name, {})}
        drafts = [_with(variant.recipe, {key: end}) for key, choices in ranges.items() for end in ends(choices)]
        for draft in drafts:
            try:
                resolve(draft, plugins)
            except CoplError as error:
                faults += [f"search.ranges.{variant.name}: {fault}" for fault in error.faults]
        trials.append(Trial(variant.name, 0, {}, variant.recipe))
        if faults or not ranges:
            continue
        for trial in range(1, search.num_trials):
            values = _drawn(variant, ranges, search, trial)
            trials.append(Trial(variant.name, trial, values, resolve(_with(variant.recipe, values), plugins)))
    if faults:
        raise OptionsError(list(dict.fromkeys(faults)))
    return trials


def declared(recipe: Recipe) -> dict[str, Choices]:
    """Return the ranges that the components of a recipe declare, by ``section.option``."""
    ranges: dict[str, Choices] = {}
    for choice in (recipe.method, *recipe.stages.parts.values()):
        for key, choices in choice.registered.component.search.items():
            ranges[key if "." in key else f"{choice.kind}.{key}"] = choices
    return ranges


def _drawn(variant: Variant, ranges: Mapping[str, Choices], search: Search, trial: int) -> dict[str, object]:
    generator = np.random.default_rng([search.seed, zlib.crc32(variant.name.encode()), trial])
    document = variant.recipe.to_dict()
    return {
        key: draw(choices, document.get(section, {}).get(option), generator)
        for key, choices in sorted(ranges.items())
        for section, _, option in [key.partition(".")]
    }


def _with(recipe: Recipe, values: Mapping[str, object]) -> Draft:
    draft = {name: dict(table) for name, table in recipe.to_dict().items() if name != "seed"}
    for key, value in values.items():
        section, _, option = key.partition(".")
        draft.setdefault(section, {})[option] = value
    return draft


def judge(trials: Sequence[Trial], cells: Sequence[Cell], failed: Mapping[Cell, Outcome]) -> list[Judged]:
    """Return what became of each trial on each data set; the lowest loss is chosen, among equals the first.

    Where every trial of a variant has failed, the recipe as it stands is chosen: the study then says why it fails.
    """
    by_place = {(name, cell.data): cell for cell in cells for name in cell.variants}
    verdicts: list[Judged] = []
    for data in dict.fromkeys(cell.data for cell in cells):
        for name in dict.fromkeys(trial.variant for trial in trials):
            judged = []
            for trial in (trial for trial in trials if trial.variant == name):
                cell = by_place[trial_name(trial), data]
                validation = None if cell in failed or cell.state() != "finished" else cell.validation()
                loss, accuracy = (validation.loss, validation.accuracy) if validation else (None, None)
                judged.append(Judged(name, data, trial.number, trial.values, loss, accuracy))
            losses = [np.inf if one.loss is None else one.loss for one in judged]
            best = int(np.argmin(losses))
            verdicts += [attrs.evolve(one, chosen=place == best) for place, one in enumerate(judged)]
    return verdicts


def trial_name(trial: Trial) -> str:
    """Return what the cell of a trial is called."""
    return f"{trial.variant} / trial {trial.number}"


def as_variants(trials: Sequence[Trial]) -> tuple[Variant, ...]:
    """Return trials as variants, for cells to be made of."""
    return tuple(Variant(trial_name(trial), trial.recipe, {}) for trial in trials)


def tuned(trials: Sequence[Trial], judged: Sequence[Judged]) -> dict[tuple[str, str], Recipe]:
    """Return the recipe of each variant on each data set."""
    recipes = {(trial.variant, trial.number): trial.recipe for trial in trials}
    return {(one.variant, one.data): recipes[one.variant, one.number] for one in judged if one.chosen}


def search_notes(search: Search | None) -> list[str]:
    """Return in a sentence how options were chosen."""
    if search is None:
        return []
    return [
        f"Options were chosen by the loss on validation among {search.num_trials} trials of every variant on every "
        f"data set (seed {search.seed}), the recipe as it stands among them."
    ]


def search_table(judged: Sequence[Judged]) -> Table:
    """Return how far trials lie apart: what a choice of options is worth, and what a lucky one would be."""
    rows = []
    for variant, data in dict.fromkeys((one.variant, one.data) for one in judged):
        here = [one for one in judged if (one.variant, one.data) == (variant, data)]
        losses = [one.loss for one in here if one.loss is not None]
        accuracies = [one.accuracy for one in here if one.accuracy is not None]
        (best,) = [one for one in here if one.chosen]
        spread = ("", "", "")
        if losses:
            spread = (number(min(losses)), number(float(np.median(losses))), number(max(losses)))
        rows.append(
            (
                variant,
                data,
                f"{len(losses)} of {len(here)}" if len(losses) < len(here) else str(len(here)),
                "" if here[0].loss is None else number(here[0].loss),
                *spread,
                f"{number(min(accuracies))} to {number(max(accuracies))}" if accuracies else "",
                ", ".join(f"{key}={value}" for key, value in best.values.items()) or "as it stands",
            )
        )
    header = ("variant", "data", "trials", "loss as it stands", "best", "median", "worst", "accuracy", "chosen")
    return Table("Search, on validation", header, tuple(rows))
