"""Population adaptation: every newcomer gets the mean of the seen users."""

from __future__ import annotations

from typing import final

from copl.adapt.estimates import Estimates
from copl.adapt.support import match
from copl.options import NoOptions
from copl.records import AdaptedUsers, ComparisonSet, NodeEmbeddings


@final
class Population:
    """The mean of all seen users, whatever the newcomer says: what any other strategy has to beat."""

    def __init__(self, options: NoOptions) -> None:
        self._options = options

    def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
        return Estimates(match(support, trained), trained).result()
