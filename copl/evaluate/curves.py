"""Training curves out of the records of a run's log."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from copl.records import FloatArray

Panels: TypeAlias = "dict[str, dict[str, tuple[FloatArray, FloatArray]]]"
"""By quantity, by series, the steps and the values."""

_STEPS = ("step", "iteration", "epoch")
_TOO_LARGE = 1e30
"""Nothing that is learnt reaches it, and no axis can show it."""
_QUANTITIES = ("loss", "accuracy")


def training_panels(records: Iterable[Mapping[str, Any]]) -> dict[str, Panels]:
    """Return what to plot of each stage: losses in one panel, accuracies in another.

    A record belongs to the stage it names under ``stage`` (and, where it has one, to its ``method``). Its ``step`` (or
    ``iteration``, or ``epoch``) is the abscissa, its place among the stage's records where it has none. Series are the
    fields whose name ends in "loss" or "accuracy"; those with fewer than two points are left out, and values that no
    training has.

    >>> log = [{"stage": "graph", "step": s, "loss": 1 / s, "seconds": 9} for s in (1, 2)]
    >>> training_panels(log)["graph"]["loss"]["loss"][1].tolist()
    [1.0, 0.5]
    """
    points: dict[str, dict[str, dict[str, list[tuple[float, float]]]]] = {}
    seen: dict[str, int] = {}
    for record in records:
        stage = ": ".join(str(record[key]) for key in ("method", "stage") if record.get(key))
        seen[stage] = seen.get(stage, 0) + 1
        step = next((float(record[key]) for key in _STEPS if _is_number(record.get(key))), float(seen[stage]))
        for name, value in record.items():
            quantity = next((q for q in _QUANTITIES if name.endswith(q)), None)
            if quantity and _is_number(value):
                panel = points.setdefault(stage, {}).setdefault(quantity, {})
                panel.setdefault(name, []).append((step, float(value)))
    panels: dict[str, Panels] = {}
    for stage, quantities in points.items():
        for quantity in _QUANTITIES:
            for name, series in quantities.get(quantity, {}).items():
                if len(series) > 1:
                    steps, values = np.array(series, dtype=np.float64).T
                    order = np.argsort(steps, kind="stable")
                    panels.setdefault(stage, {}).setdefault(quantity, {})[name] = (steps[order], values[order])
    return panels


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < _TOO_LARGE
