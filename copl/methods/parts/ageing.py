"""How evidence grows old: half of its weight for each half-life."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from attrs import evolve

from copl.records import Comparisons
from copl.records.dataset import with_implied
from copl.records.judgements import Judgements
from copl.system.converters import latest_of

if TYPE_CHECKING:
    from copl.records import ComparisonSet, FloatArray, PreferenceData

_DAY = 86_400.0
_LEAST = 1e-6


def discounted(data: PreferenceData, half_life: float) -> PreferenceData:
    r"""Return a data set whose older evidence counts less in training.

    .. math:: w' = w\, 2^{-(T - t) / h}

    with T the time of the latest evidence of the split, of whatever kind; what has no time keeps its weight.

    Args:
        data: the data set; splits ``train`` and ``support`` are changed.
        half_life: h in days.
    """
    splits, judgements = dict(data.splits), dict(data.judgements)
    for name in ("train", "support"):
        given, judged = splits.get(name, Comparisons.empty()), judgements.get(name, Judgements.empty())
        latest = np.full(1, _latest(given.time, judged.time))
        if name in splits:
            splits[name] = evolve(given, weight=_faded(given, latest, half_life))
        if name in judgements:
            judgements[name] = evolve(judged, weight=_faded(judged, latest, half_life))
    return evolve(data, splits=splits, judgements=judgements)


def faded(said: ComparisonSet, half_life: float) -> ComparisonSet:
    """Return what newcomers say with less weight on what is older; see `discounted`.

    T is the time of the latest that the same user says: nobody else's words make older what one has said.
    """
    given, judged = said.given, said.judgements
    user, time = np.concatenate([given.user, judged.user]), np.concatenate([given.time, judged.time])
    latest = latest_of(user, time, len(said.users))
    given = evolve(given, weight=_faded(given, latest[given.user], half_life))
    judged = evolve(judged, weight=_faded(judged, latest[judged.user], half_life))
    return with_implied(said.users, said.responses, given, judged, said.features)


def _latest(*times: FloatArray) -> float:
    return float(np.nanmax(np.concatenate(times), initial=-np.inf))


def _faded(part: Comparisons | Judgements, latest: FloatArray, half_life: float) -> FloatArray:
    """Return weights [N] by the age of each at `latest` [N] or [1]; nothing becomes of weight 0 that had one."""
    age = np.nan_to_num(latest - part.time, nan=0.0, posinf=0.0, neginf=0.0)
    weight: FloatArray = part.weight * 0.5 ** (age / (_DAY * half_life))
    return np.maximum(weight, np.minimum(part.weight, _LEAST))


def half_lives(data: PreferenceData) -> tuple[float, ...]:
    """Return half-lives to choose among, in days: the span of training evidence, its half and so on."""
    times = np.concatenate([part["train"].time for part in (data.splits, data.judgements) if "train" in part])
    times = times[np.isfinite(times)]
    span = float(np.ptp(times)) / _DAY if len(times) else 0.0
    return tuple(span / 2**power for power in range(5)) if span > 0 else ()
