"""The contract of a whole method."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from copl.errors import CoplError, OptionsError
from copl.interfaces.stages import OnlineUser
from copl.interfaces.work import Workspace
from copl.records import AdaptedUsers, ComparisonSet, Diagnostics, PreferenceData, ScoreRequests

if TYPE_CHECKING:
    from copl.records import BoolArray, FloatArray, ResponseTable
    from copl.records.explanation import Explanation


class FormerRun(Protocol):
    """A run to go on from. Nothing it has learnt from is missing in the data; what users changed their minds of may be
    another now."""

    @property
    def key(self) -> str:
        """A text that is equal exactly when two runs hold the same fitted method; belongs in the key of what goes on
        from it."""
        ...

    def stage(self, name: str) -> Path | None:
        """Return the directory of one of its stages, checked; None where it has no such stage.

        Raises:
            RunError: the stage is damaged.
        """
        ...

    def lacks(self, said: ComparisonSet) -> BoolArray:
        """Return which comparisons of the split ``train`` it has not learnt from [N]."""
        ...

    def tell(self, part: str, how: str) -> None:
        """Say for the record what became of a part of the method: ``continued``, or why it was learnt anew."""
        ...


class PreferenceModel(ABC):
    """A whole method: fitted on a data set, adapted to newcomers, scoring any response for any user."""

    @abstractmethod
    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        """Learn from the splits ``train`` and ``validation``; results are kept in the workspace's stages."""

    @property
    def continues(self) -> bool:
        """Whether `fit_from` makes use of a former run."""
        return False

    def fit_from(self, data: PreferenceData, former: FormerRun, *, seed: int, workspace: Workspace) -> None:
        """Learn from data that have grown, from a run of the same recipe on; asked where the method `continues`.

        Args:
            data: as in `fit`.
            former: the run to go on from.
            seed: as in `fit`.
            workspace: as in `fit`; what goes on from the run has its `FormerRun.key` in the keys of its stages.
        """
        self.fit(data, seed=seed, workspace=workspace)

    @abstractmethod
    def load(self, directory: Path) -> None:
        """Read back what `fit` and `fit_from` kept in the run directory.

        Raises:
            RunError: a stage is missing, damaged or from another version.
        """

    @abstractmethod
    def adapt(self, support: ComparisonSet) -> AdaptedUsers:
        """Find embeddings for unseen users."""

    def read_ahead(self, responses: ResponseTable) -> None:  # noqa: B027  # nothing where a method reads no texts
        """Read at once what several calls of `scores`, `adapt` and `online` are about to read; changes no result."""

    def online(self, user_id: str) -> OnlineUser:
        """Follow a user, seen or not, who answers one comparison after another.

        Raises:
            CoplError: the method takes no notice of users.
        """
        raise CoplError("this method takes no notice of users: there is nothing to learn about one")

    def explain(self, user: str, responses: ResponseTable, support: ComparisonSet | None) -> Explanation:
        """Say why a user prefers the first of two responses, or one to the average one, in parts that add up.

        Args:
            user: the user's id.
            responses: the response, and the other one where there is one.
            support: what the user has said since training.

        Raises:
            OptionsError: the method knows no users, or this run scores in a way that cannot be taken apart.
        """
        raise OptionsError("this method knows no users that could be explained; choose copl or graph")

    @abstractmethod
    def seen_users(self) -> Collection[str]:
        """Return the ids of the users the method was trained on; empty where it takes no notice of users."""

    @abstractmethod
    def scores(self, requests: ScoreRequests, adapted: AdaptedUsers | None = None) -> FloatArray:
        """Return the reward [N] of each request.

        A user found neither among the seen nor in `adapted` gets the method's documented fallback.
        """

    def margins(self, pairs: ComparisonSet, adapted: AdaptedUsers | None = None) -> FloatArray:
        """Return by how much [N] each user prefers the chosen response; positive means the label is predicted.

        Each distinct (user, response) is scored once.
        """
        rows = pairs.comparisons
        user = np.concatenate([rows.user, rows.user])
        response = np.concatenate([rows.chosen, rows.rejected])
        code, inverse = np.unique(user * max(len(pairs.responses), 1) + response, return_inverse=True)
        unique_user, unique_response = np.divmod(code, max(len(pairs.responses), 1))
        scores = self.scores(ScoreRequests(pairs.users, pairs.responses, unique_user, unique_response), adapted)
        chosen, rejected = scores[inverse].reshape(2, -1)
        margins: FloatArray = chosen - rejected
        return margins

    def diagnostics(self) -> Diagnostics:
        """Return what there is to show of the fitted method's inside."""
        return Diagnostics()

    def export(
        self, user: str, directory: Path, *, adapted: AdaptedUsers | None = None, merge: bool = False
    ) -> Mapping[str, Any]:
        """Write one user's reward model so that it works without this package; return what there is to say of it.

        Args:
            user: id of a user who is seen or in `adapted`.
            directory: where it goes; must not exist or be empty.
            adapted: newcomers.
            merge: write whole weights instead of an adapter.

        Raises:
            OptionsError: the method has no such form, or the directory holds something.
        """
        raise OptionsError(f"{type(self).__name__} has no reward model that could be exported")
