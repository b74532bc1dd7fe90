"""What strategies begin and end with that place newcomers by their comparisons of trained responses."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, final

from copl.adapt.estimates import Estimates
from copl.adapt.support import match

if TYPE_CHECKING:
    from copl.adapt.support import MatchedSupport
    from copl.records import AdaptedUsers, ComparisonSet, NodeEmbeddings


class PlacingStrategy(ABC):
    """Matches what newcomers say with what is trained and has them placed.

    Whoever is not placed has the mean of all seen users; where nobody was seen, nobody is placed.
    """

    @final
    def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
        """Return an embedding for every user of `support.users` that has comparisons there."""
        matched = match(support, trained)
        estimates = Estimates(matched, trained)
        if len(trained.user_ids):
            self._place(matched, trained, estimates)
        return estimates.result()

    @abstractmethod
    def _place(self, matched: MatchedSupport, trained: NodeEmbeddings, estimates: Estimates) -> None:
        """Put the newcomers of `matched` whose comparisons tell something into `estimates`; there are seen users."""
