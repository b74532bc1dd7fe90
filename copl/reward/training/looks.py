"""Looks at a model that is being trained: how good it is on comparisons that it is not fitted to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, final

from copl.experts.report import gate_report
from copl.records import Comparisons
from copl.reward.readings import Readings
from copl.reward.training.curve import CurvePoint
from copl.reward.training.setup import TrainingSetup


@final
class ValidationLooks:
    """Measures the model, and keeps what the adapters made of the texts at the best look.

    Args:
        setup: the model that is trained.
        judges: sets of comparisons that it is not fitted to; each counts the same.
    """

    def __init__(self, setup: TrainingSetup, judges: Sequence[Comparisons]) -> None:
        self._setup = setup
        self._judges = judges
        self._best: tuple[CurvePoint, Readings] | None = None

    def start(self) -> CurvePoint:
        """Measure the model before its adapters have learnt anything: the frozen features say it all."""
        return CurvePoint(0, *self._setup.measure(self._judges, self._setup.readings(zero=True)))

    def __call__(self, step: int) -> CurvePoint:
        """Measure the model after `step` steps."""
        readings = self._setup.readings()
        point = self.measured(step, readings)
        if self._best is None or point.validation_loss < self._best[0].validation_loss:
            self._best = point, readings
        return point

    def measured(self, step: int, readings: Readings) -> CurvePoint:
        """Measure the model by readings of its texts."""
        return CurvePoint(step, *self._setup.measure(self._judges, readings))

    def readings_at(self, step: int) -> Readings:
        """Return the readings of the model as it was after `step` steps, and is again.

        Those of the best look are there, unless it was taken before the run was killed.
        """
        if self._best is not None and self._best[0].step == step > 0:
            return self._best[1]
        return self._setup.readings(zero=step == 0)

    def notes(self) -> Mapping[str, float | str]:
        """Return how the gate uses its experts."""
        use = gate_use(self._setup)
        usage = " ".join(f"{share:.2f}" for share in use.get("usage", ()))
        return {"gate_entropy": use["entropy"], "gate_usage": usage} if use else {}


def gate_use(setup: TrainingSetup) -> dict[str, Any]:
    """How the gate uses its experts for the users of the material; empty without routed experts."""
    weights = setup.model.expert_weights(setup.users)
    if weights is None:
        return {}
    report = gate_report(weights.numpy())
    usage = [round(float(share), 4) for share in report.usage]
    return {"usage": usage, "entropy": round(report.entropy, 4), "finding": report.finding}
