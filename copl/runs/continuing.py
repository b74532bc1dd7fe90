"""A run that goes on from a former one: whether it may, what it makes use of, and what it says of that."""

from __future__ import annotations

from pathlib import Path
from typing import final

from attrs import evolve, frozen

from copl.errors import OptionsError, RunError
from copl.interfaces import PreferenceModel, Progress
from copl.records import BoolArray, ComparisonSet, PreferenceData
from copl.runs.directory import Run
from copl.runs.facts import FormerFacts
from copl.runs.learnt import Changes, LearntRows, learnt_of
from copl.runs.recipe import Recipe, differences
from copl.runs.stages import FEATURES, fitted_stages, read_stage, verify_stage

CONTINUED = "continued"
UNCHANGED = "unchanged"
WHOLE = "method"
"""Part under which it is said what became of the method as a whole."""

_GROWTH = 0.25
"""Settings are chosen anew once there is so much more than what they were chosen on."""


@final
@frozen(eq=False)
class Former:
    """A former run as its successor sees it.

    Attributes:
        run: the run.
        facts: what the successor's ``run.json`` says of it, but for what became of the parts.
        changes: what has become of what it learnt from.
        learnt: what there is to learn from now.
        is_same: whether the data say the same as before, in the same order.
    """

    run: Run
    facts: FormerFacts
    changes: Changes
    learnt: LearntRows
    is_same: bool

    @classmethod
    def of(cls, run: Run, recipe: Recipe, data: PreferenceData, *, everyone: bool) -> Former:
        """Look at a run to go on from.

        Raises:
            CoplError: it is not finished, damaged, of other settings, or has learnt from what is held out now; a line
                a fault.
        """
        run.require_finished()
        require_same_recipe(run, recipe)
        if run.facts.data.everyone and not everyone:
            raise RunError(
                f"{run.root}: learned from everyone and everything (--all), which leaves nothing to hold out; "
                "add --all, or leave out --from"
            )
        then, now = learnt_of(run), LearntRows.of(data)
        changes = Changes.between(then, now)
        if changes.moved:
            raise RunError(
                f"{run.root}: {changes.moved:,} of the comparisons it has learnt from are in another split of the data "
                "now, where they would be judged by what it knows of them; grow a data set by `copl data add`, which "
                "moves none, or leave out --from"
            )
        before = run.facts.former
        settled_on = len(then.said["train"]) if before is None else before.settled_on
        facts = FormerFacts(
            path=str(run.root.resolve()),
            fingerprint=run.fingerprint,
            data=run.facts.data.fingerprint,
            new=changes.new,
            changed=changes.changed,
            gone=changes.gone,
            settled_on=settled_on,
        )
        is_same = then.digest == now.digest
        for stage in fitted_stages(run.root):  # damage is found before anything is written
            if is_same or stage.name != FEATURES:
                verify_stage(stage)
        return cls(run, facts, changes, now, is_same)

    @property
    def weights_of_backbone(self) -> str | None:
        """The fingerprint of the weights that the run read texts by; None where it read none."""
        place = self.run.root / FEATURES
        weights = read_stage(place).inputs.get("weights") if place.is_dir() else None
        return weights if isinstance(weights, str) else None

    def why_not(self, method: PreferenceModel, name: str) -> str | None:
        """Return why nothing of the run can be made use of; None where something can."""
        changes, settled_on = self.changes, self.facts.settled_on
        if changes.gone or changes.texts_gone:
            return (
                f"{changes.gone:,} comparisons and {changes.texts_gone:,} texts it has learnt from are gone, of which "
                "nothing is to survive"
            )
        if changes.total > (1 + _GROWTH) * settled_on:
            return (
                f"there are {changes.total:,} comparisons now, and its settings were chosen on {settled_on:,}: they "
                "are chosen anew"
            )
        return None if method.continues else f"method {name!r} does not go on from a former run"


@final
class Continuation:
    """A former run as a method goes on from it (`copl.interfaces.FormerRun`); keeps what is told of the parts."""

    def __init__(self, run: Run, progress: Progress) -> None:
        self._run = run
        self._progress = progress
        self.parts: dict[str, str] = {}

    @property
    def key(self) -> str:
        return self._run.fingerprint

    def stage(self, name: str) -> Path | None:
        place = self._run.root / name
        if not place.is_dir():
            return None
        verify_stage(place)
        return place

    def lacks(self, said: ComparisonSet) -> BoolArray:
        return learnt_of(self._run).lacks(said)

    def tell(self, part: str, how: str) -> None:
        said = how if how in (CONTINUED, UNCHANGED) else f"starts anew: {how}"
        if self.parts.get(part) != said:
            self.parts[part] = said
            self._progress.log("from", part=part, how=said, finding=f"{part}: {said}")


def require_same_recipe(run: Run, recipe: Recipe) -> None:
    """Refuse a run of other settings; how newcomers are adapted may be another, and where the backbone lies.

    Raises:
        OptionsError: a line for each setting.
    """

    def compared(document: dict[str, object]) -> dict[str, object]:
        kept = {section: values for section, values in document.items() if section != "adapter"}
        backbone = kept.get("backbone")
        if isinstance(backbone, dict):
            kept["backbone"] = {name: value for name, value in backbone.items() if name != "path"}
        return kept

    faults = differences(compared(run.recipe.to_dict()), compared(recipe.to_dict()))
    if faults:
        raise OptionsError(
            [f"{run.root}: --from goes on with the settings of the run; drop the options, or --from", *faults]
        )


def with_parts(facts: FormerFacts, parts: dict[str, str], total: int) -> FormerFacts:
    """Return what is said of a former run once it is known what became of the parts.

    Args:
        facts: what was said before.
        parts: what became of each.
        total: comparisons and judgements there are to train on now.
    """
    anew = parts.get(WHOLE, CONTINUED) not in (CONTINUED, UNCHANGED)
    return evolve(facts, parts=parts, settled_on=total if anew else facts.settled_on)
