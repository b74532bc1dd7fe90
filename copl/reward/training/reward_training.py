"""Training a reward model: the head on frozen features, adapters, the head again, and what was held out."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
from attrs import asdict, evolve, frozen

from copl.interfaces import Progress
from copl.records import Comparisons
from copl.reward.heads import Head
from copl.reward.options import RewardOptions
from copl.reward.readings import Readings
from copl.reward.training.batches import scheduled
from copl.reward.training.checkpoint import load_trainable, trainable
from copl.reward.training.curve import CurvePoint, best_of
from copl.reward.training.divisions import Division, drawn, hold_out_texts
from copl.reward.training.head_fit import FittedHead, HeadFit, add_head_weights, head_weights, set_head_weights
from copl.reward.training.looks import ValidationLooks
from copl.reward.training.loop import TrainingLoop
from copl.reward.training.setup import TrainingSetup
from copl.system.processes import num_processes

if TYPE_CHECKING:
    from torch import nn

    from copl.records import BoolArray, IntArray

_DIVISIONS = 4  # ways to hold texts out, for choosing the penalty of the head; one of them is too noisy
_REPLAYED = 4  # old comparisons that training on goes over again, for each new one
_REFIT_COMPARISONS = 10_000  # of a gate that learns, every user has texts read for itself alone


@final
@frozen(eq=False)
class HeadChoice:
    """A fitted head, and what it takes to fit it to more.

    Attributes:
        fit: fits the head.
        fitted: what it found.
        train: all comparisons to learn from, as `fit` numbers texts.
    """

    fit: HeadFit
    fitted: FittedHead
    train: Comparisons

    def add_held_out(self, head: Head) -> FittedHead:
        """Add to a head what the comparisons held out from choosing would have changed; return the fit to all."""
        whole = self.fit.whole(self.fitted, self.train)
        add_head_weights(head, whole, less=self.fitted.whole)
        return evolve(self.fitted, whole=whole)


@final
@frozen(eq=False)
class Adapted:
    """The model once adapters have trained.

    Attributes:
        curve: the looks.
        kept_step: the step whose adapters were kept; 0 where they are zero.
        readings: what these make of the texts.
        head: how the head was fitted, where what was held out from that can still be added.
        refit: losses without adapters and with the head refitted, where that was tried.
        completed: the head as fitted to everything, for whoever goes on from it.
    """

    curve: Sequence[CurvePoint]
    kept_step: int
    readings: Readings
    head: HeadChoice | None
    refit: Mapping[str, Any] | None = None
    completed: FittedHead | None = None


@final
@frozen(eq=False)
class FormerModel:
    """A trained model to go on from, the weights of which the model of the setup has.

    Attributes:
        kept_step: the step whose adapters it kept, of all training so far; 0 where they are zero.
        zero: whether its adapters are zero.
        head: its head as fitted to everything, where that is known.
        is_new: which training comparisons it has not learnt from [N].
    """

    kept_step: int
    zero: bool
    head: FittedHead | None
    is_new: BoolArray


@final
class RewardTraining:
    """Trains the model of a setup, a method a paragraph.

    `fit_head`: the head is fitted on the backbone's frozen features. That is the frozen model, which every other one
    has to beat.

    `train_experts`: the personal part of the head is set aside, and adapters, gate and the part of the head that all
    users share train together, adapters starting at zero; all that is personal has to come through the experts. Then
    the whole head is fitted again (`refit_head`) on what the adapters made of the texts. Whichever of this and the
    frozen model has the lower loss on comparisons that neither was fitted to is kept (decision 20).

    `train_together`: without routed experts, and where users train along, the whole head trains with the adapters
    instead; the best look is kept, the frozen model included.

    Last, what the texts that were held out say of the head is added to it (`HeadChoice.add_held_out`, decision 15).

    Everything is judged on the validation split and on training comparisons of texts held out, both counting the same.

    Args:
        setup: the model and what it is trained on.
        seed: the same seed gives the same model on the same machine.
        scratch: where the checkpoint goes.
        progress: where to show progress.
    """

    def __init__(self, setup: TrainingSetup, *, seed: int, scratch: Path, progress: Progress) -> None:
        self._setup = setup
        self._seed = seed
        self._scratch = scratch
        self._progress = progress
        material, count = setup.material, setup.options.eval_comparisons
        self._divisions = [hold_out_texts(material.train, material.groups, seed + n) for n in range(_DIVISIONS)]
        judges = [drawn(part, count, seed) for part in (material.validation, self._divisions[0].new_text)]
        self._looks = ValidationLooks(setup, [part for part in judges if len(part)])

    def run(self) -> tuple[Adapted, HeadChoice | None]:
        """Train the model; return how adapters trained, and how the head was fitted before them, if it was."""
        frozen = self.fit_head() if self._setup.options.warm_start else None
        if frozen is not None and self._experts_can_learn_what_is_personal:
            adapted = self.train_experts(frozen)
        else:
            adapted = self.train_together(frozen)
        return self._completed(adapted), frozen

    def go_on(self, former: FormerModel) -> Adapted:
        """Train a model that has learnt before on; see `train_on` for adapters that are not zero.

        Where adapters are zero, the head moves by what the new comparisons change in a fit to everything: it keeps
        what training has made of it, and the penalties that were chosen.
        """
        if not former.zero or former.head is None:
            return self._completed(self.train_on(former))
        model, material = self._setup.model, self._setup.material
        features = model.scaled(self._setup.texts.pooled.to(model.device))
        fit = HeadFit(model.head, features, model.tell(material.users), self._seed)
        readings = self._setup.readings(zero=True)
        choice = HeadChoice(fit, former.head, material.train)
        return self._completed(Adapted([self._looks.measured(0, readings)], 0, readings, choice))

    def train_on(self, former: FormerModel) -> Adapted:
        """Train adapters on for a few steps, on the new comparisons and four times as many old ones, then the head.

        So many steps as these comparisons are a part of all. The personal part of the head is held fixed where experts
        have learnt what is personal, and the head is fitted anew to what they make of the texts, by the penalties that
        were chosen. What was there before stays where that does not lower the loss on comparisons held out.
        """
        setup, material = self._setup, self._setup.material
        zero = former.zero
        start = self._looks.measured(0, setup.readings(zero=zero))
        weights = trainable(setup.objective)
        train = self._replayed(former.is_new)
        share = len(train) / max(len(material.train), 1)
        num_steps = math.ceil(share * setup.options.max_steps) if len(train) else 0
        options = evolve(setup.options, max_steps=num_steps, eval_every=max(1, -(-num_steps // 2)))
        personal = setup.model.head.personal_parameters() if self._experts_can_learn_what_is_personal else []
        with _held_fixed(personal):
            curve = self._train(train, options, start) if num_steps else [start]
        best = best_of(curve).step
        readings = self._looks.readings_at(best) if best else setup.readings(zero=zero)
        choice = None
        if personal and former.head is not None:
            choice = self._head_by(former.head, readings)
            if self._looks.measured(best, readings).validation_loss > start.validation_loss:
                load_trainable(setup.objective, weights)
                best, readings, choice = 0, setup.readings(zero=zero), None
        completed = former.head if choice is None else choice.fitted
        return Adapted(curve, former.kept_step + best, readings, None, completed=completed)

    def _replayed(self, is_new: BoolArray) -> Comparisons:
        """Return the new training comparisons and some old ones, none of them about texts held out to judge by."""
        train, fitted = self._setup.material.train, self._divisions[0].fitted
        known = np.unique(np.concatenate([fitted.chosen, fitted.rejected]))
        use = np.isin(train.chosen, known) & np.isin(train.rejected, known)
        new, old = train.take(use & is_new), train.take(use & ~is_new)
        return Comparisons.concat([new, drawn(old, _REPLAYED * len(new), self._seed)])

    def _head_by(self, former: FittedHead, readings: Readings) -> HeadChoice:
        """Fit the head, from where it is and with the penalties of a former one, to what adapters make of the texts."""
        model, material = self._setup.model, self._setup.material
        train = drawn(material.train, _REFIT_COMPARISONS, self._seed)
        features, reading = self._setup.read(train, readings, self._progress)
        (numbered,) = _numbered((train,), reading)
        fit = HeadFit(model.head, features, model.tell(self._setup.users), self._seed)
        fitted = evolve(former, whole=fit.whole(evolve(former, whole=head_weights(model.head)), numbered))
        set_head_weights(model.head, fitted.whole)
        return HeadChoice(fit, fitted, numbered)

    def _completed(self, adapted: Adapted) -> Adapted:
        if adapted.head is None:
            return adapted
        return evolve(adapted, completed=adapted.head.add_held_out(self._setup.model.head))

    def fit_head(self) -> HeadChoice:
        """Fit the head on frozen features."""
        model, material = self._setup.model, self._setup.material
        features = model.scaled(self._setup.texts.pooled.to(model.device))
        fit = HeadFit(model.head, features, model.tell(material.users), self._seed)
        fitted = fit.choose(self._divisions, material.validation)
        set_head_weights(model.head, fitted.whole)
        judged = {"new_text_loss": fitted.new_text_loss, "new_text_accuracy": fitted.new_text_accuracy}
        self._progress.log("reward", step=0, **judged)
        return HeadChoice(fit, fitted, material.train)

    def train_experts(self, frozen: HeadChoice) -> Adapted:
        """Train adapters under the shared part of the head, then refit it whole; keep that or the frozen model."""
        setup, head = self._setup, self._setup.model.head
        without, frozen_weights = self._looks.start(), trainable(setup.objective)
        set_head_weights(head, frozen.fitted.shared)
        with _held_fixed(head.personal_parameters()):
            curve = self._train()
        best, refitted = best_of(curve).step, None
        adapted = Adapted(curve, 0, self._looks.readings_at(0), frozen)
        if best > 0:
            readings = self._looks.readings_at(best)
            again = self.refit_head(readings)
            refitted = self._looks.measured(best, readings)
            if refitted.validation_loss < without.validation_loss:
                adapted = Adapted(curve, best, readings, again)
            # Names of their own: they are no points of the curve of training.
            losses = {"without_adapters_loss": without.validation_loss, "refitted_loss": refitted.validation_loss}
            self._progress.log("reward", step=best, kept_step=adapted.kept_step, **losses)
        if adapted.kept_step == 0:
            load_trainable(setup.objective, frozen_weights)
            self._tell_of_dropped(curve, without, refitted)
        refit = {
            "without_adapters": asdict(without),
            "refitted": None if refitted is None else asdict(refitted),
            "head": None if adapted.head is None else adapted.head.fitted.facts(),
        }
        return evolve(adapted, refit=refit)

    def refit_head(self, readings: Readings) -> HeadChoice:
        """Fit the head on the texts as trained adapters read them, penalties chosen anew, and leave it fitted."""
        model, material = self._setup.model, self._setup.material
        train = drawn(material.train, _REFIT_COMPARISONS, self._seed)
        # Other texts than these the adapters have learnt from.
        division = hold_out_texts(train, material.groups, self._seed)
        validation = drawn(material.validation, _REFIT_COMPARISONS, self._seed)
        whole = (division.fitted, division.new_text, validation, train)
        features, reading = self._setup.read(Comparisons.concat(whole), readings, self._progress)
        fitted, new_text, validation, train = _numbered(whole, reading)
        fit = HeadFit(model.head, features, model.tell(self._setup.users), self._seed)
        found = fit.choose([Division(fitted, new_text)], validation)
        set_head_weights(model.head, found.whole)
        return HeadChoice(fit, found, train)

    def train_together(self, frozen: HeadChoice | None) -> Adapted:
        """Train all there is to train; keep the best look."""
        curve = self._train()
        best = best_of(curve).step
        if best == 0 and self._setup.options.adapts:
            self._tell_of_dropped(curve)
        can_be_completed = best == 0 or _head_stays_comparable(self._setup)
        return Adapted(curve, best, self._looks.readings_at(best), frozen if can_be_completed else None)

    def _tell_of_dropped(
        self, curve: Sequence[CurvePoint], without: CurvePoint | None = None, refitted: CurvePoint | None = None
    ) -> None:
        """Say that adapters have trained for nothing, where any have: most of the time went there."""
        if len(curve) < 2:
            return
        said = f"the loss on comparisons held out was lower at none of {len(curve) - 1} looks"
        if without is not None and refitted is not None:
            losses = without.validation_loss, refitted.validation_loss
            said = "the loss on comparisons held out is {:.3f} without them and {:.3f} with them".format(*losses)
        self._progress.log(
            "reward", finding=f"no adapters are kept: {said}; reward.mode=frozen trains none, in a fraction of the time"
        )

    @property
    def _experts_can_learn_what_is_personal(self) -> bool:
        """Whether adapters train before the head reads the user.

        Not where no expert could learn what is personal, nor with users that train along, which learn it by the head.
        """
        setup = self._setup
        has_experts = bool(setup.model.head.personal_parameters()) and setup.model.gate.num_experts > 0
        return has_experts and setup.objective.user_table is None and setup.options.adapts

    def _train(
        self,
        train: Comparisons | None = None,
        options: RewardOptions | None = None,
        start: CurvePoint | None = None,
    ) -> Sequence[CurvePoint]:
        """Train what is to be trained; return the looks.

        Args:
            train: comparisons to train on; what the first division leaves to fit unless given.
            options: how to train; those of the setup unless given.
            start: the model as it is, where it has been measured.
        """
        setup = self._setup
        train, options = self._divisions[0].fitted if train is None else train, options or setup.options
        per_step = options.gradient_accumulation * num_processes()
        epoch = setup.epochs(train, self._seed)
        start = start or self._looks.start()
        num_steps = min(options.max_steps, math.ceil(options.epochs * len(epoch()) / per_step))
        if num_steps == 0:
            return [start]
        loop = TrainingLoop(
            setup.objective,
            options,
            scheduled(epoch, num_steps * per_step),
            setup.collator(train),
            looks=self._looks,
            directory=self._scratch,
            progress=self._progress,
        )
        return loop.run(start, self._seed)


def _numbered(whole: Sequence[Comparisons], reading: IntArray) -> list[Comparisons]:
    """Return the comparisons, each about readings instead of texts."""
    every = Comparisons.concat(whole)
    chosen, rejected = reading.reshape(2, -1)
    numbered = evolve(every, chosen=chosen, rejected=rejected)
    rows = np.split(np.arange(len(every)), np.cumsum([len(part) for part in whole])[:-1])
    return [numbered.take(part) for part in rows]


def _head_stays_comparable(setup: TrainingSetup) -> bool:
    """Whether a head that has trained on and one fitted before can be added up: not layers, nor weights of a gate that
    has trained as well."""
    model = setup.model
    learns = any(parameter.requires_grad for parameter in model.gate.parameters())
    return model.head.linear_in_features and not (model.head.reads_gate and learns)


@contextmanager
def _held_fixed(parameters: Sequence[nn.Parameter]) -> Iterator[None]:
    """Leave some parameters out of training."""
    for parameter in parameters:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in parameters:
            parameter.requires_grad_(True)
