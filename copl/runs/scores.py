"""The rewards of a fitted run: on one scale for all users where asked, and with one that is the same for everybody."""

from __future__ import annotations

import threading
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, final

import numpy as np

from copl.errors import DataError, RunError, UnknownUserWarning, quoted
from copl.interfaces import PreferenceModel
from copl.records import AdaptedUsers, ComparisonSet, FloatArray, ResponseTable, ScoreRequests, UserTable
from copl.reward.calibration import fitted_weight, levels_and_spreads
from copl.runs.directory import Run
from copl.runs.reference import reference_of

if TYPE_CHECKING:
    from copl.reward.quality import QualityReward


@final
class RunScores:
    """What the methods of `copl.Model` that score have in common, with its lock: one call after the other."""

    def __init__(self, run: Run, method: PreferenceModel, lock: threading.RLock) -> None:
        self._run, self._method, self._lock = run, method, lock

    def __call__(
        self,
        requests: ScoreRequests,
        adapted: AdaptedUsers | None = None,
        *,
        calibrated: bool = False,
        quality: QualityReward | None = None,
    ) -> FloatArray:
        """Return the reward [N] of each request, as `Model.scores`.

        Raises:
            RunError: `adapted` belongs to another run, a reward is no finite number, or the run has no reference
                responses.
        """
        own = self.own(adapted)
        with self._lock:
            rewards = self._personal(requests, own)
            if calibrated:
                level, spread = levels_and_spreads(
                    lambda asked: self._personal(asked, own), requests.users, self._reference
                )
                rewards = (rewards - level[requests.user]) / spread[requests.user]
            if quality is not None:
                rewards = rewards + quality.weight * quality.standardised(requests, self._reference)
        return rewards

    def told(
        self, requests: ScoreRequests, adapted: AdaptedUsers | None, *, calibrated: bool, quality: QualityReward | None
    ) -> FloatArray:
        """Return the same, with a warning of users nobody knows, to whoever has called the caller."""
        unknown = {*requests.users.ids} - self.known_users(requests.users, adapted)
        placed = unknown & adapted.user_rows.keys() if adapted else set[str]()
        reasons = {"is neither trained nor adapted": unknown - placed, "has said nothing that tells": placed}
        for why, users in reasons.items():
            if users:
                names = ", ".join(map(quoted, sorted(users)[:3])) + f" and {len(users) - 3} more" * (len(users) > 3)
                message = f"user {names} {why}: these are the scores of the average user"
                warnings.warn(message, UnknownUserWarning, stacklevel=3)
        return self(requests, adapted, calibrated=calibrated, quality=quality)

    def weigh(
        self, quality: QualityReward, pairs: ComparisonSet, adapted: AdaptedUsers | None, *, calibrated: bool
    ) -> QualityReward:
        """Return a quality reward with the weight that explains comparisons best, as `Model.weigh`.

        Raises:
            DataError: there is no comparison.
        """
        if not len(pairs):
            raise DataError("no comparisons to choose the weight of a quality reward by; give the weight itself")
        rows = pairs.comparisons
        user, response = np.tile(rows.user, 2), np.concatenate([rows.chosen, rows.rejected])
        requests = ScoreRequests(pairs.users, pairs.responses, user, response)
        personal = self(requests, adapted, calibrated=calibrated).reshape(2, -1)
        general = quality.standardised(requests, self._reference).reshape(2, -1)
        return quality.weighted(fitted_weight(personal[0] - personal[1], general[0] - general[1]))

    def known_users(self, users: UserTable, adapted: AdaptedUsers | None) -> frozenset[str]:
        """Return those of `users` of whom something is known: trained, or adapted by words that tell something.

        All of them where the method knows no users.
        """
        seen = self._method.seen_users()
        newcomers = adapted.known if adapted else frozenset[str]()
        return frozenset(user for user in users.ids if not seen or user in seen or user in newcomers)

    def own(self, adapted: AdaptedUsers | None) -> AdaptedUsers | None:
        """Return adapted users, unless they were adapted for another run, where their embeddings mean nothing."""
        if adapted is not None and adapted.run not in ("", self.fingerprint):
            raise RunError(f"these users were adapted for another run than {self._run.root}; adapt them for this one")
        return adapted

    @cached_property
    def fingerprint(self) -> str:
        """A text that is equal exactly when two runs hold the same fitted model."""
        return self._run.fingerprint

    @cached_property
    def _reference(self) -> ResponseTable:
        return reference_of(self._run)

    def _personal(self, requests: ScoreRequests, adapted: AdaptedUsers | None) -> FloatArray:
        rewards = self._method.scores(requests, adapted)
        if not np.isfinite(rewards).all():
            raise RunError(f"{self._run.root}: gives rewards that are no finite numbers; train it again")
        return rewards
