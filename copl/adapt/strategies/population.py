"""Population adaptation: every newcomer gets the mean of the seen users."""

from __future__ import annotations

from typing import final

import attrs

from copl.adapt.estimates import Estimates
from copl.adapt.support import match
from copl.plugins import Component
from copl.records import AdaptedUsers, ComparisonSet, NodeEmbeddings


@final
@attrs.frozen
class PopulationOptions:
    """There is nothing to choose."""


@final
class Population:
    """The mean of all seen users, whatever the newcomer says: what any other strategy has to beat."""

    def __init__(self, options: PopulationOptions) -> None:
        self._options = options

    def adapt(self, support: ComparisonSet, trained: NodeEmbeddings) -> AdaptedUsers:
        return Estimates(match(support, trained), trained).result()


COMPONENTS = [
    Component(
        name="population",
        options=PopulationOptions,
        build=Population,
        summary="the mean of all seen users, without a look at the comparisons: the floor for the others",
    )
]
