"""Methods that go on from a former run by the way they are fitted from nothing."""

from __future__ import annotations

from abc import abstractmethod

from copl.interfaces import FormerRun, PreferenceModel, Workspace
from copl.records import PreferenceData


class GoesOn(PreferenceModel):
    """A method with one way to be fitted, which makes use of a former run where there is one."""

    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        self._fit(data, None, seed, workspace)

    @property
    def continues(self) -> bool:
        return True

    def fit_from(self, data: PreferenceData, former: FormerRun, *, seed: int, workspace: Workspace) -> None:
        self._fit(data, former, seed, workspace)

    @abstractmethod
    def _fit(self, data: PreferenceData, former: FormerRun | None, seed: int, workspace: Workspace) -> None:
        """Learn from data, from a run of the same recipe on or from nothing."""
