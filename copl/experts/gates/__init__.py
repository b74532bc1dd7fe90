"""Expert gates: from the user embedding to the weight of each routed expert."""

from __future__ import annotations

from copl.experts.gates import bound, fixed, learned, noisy
from copl.experts.gates.fixed import NoGate
from copl.plugins import Component

__all__ = ["COMPONENTS", "NoGate"]

COMPONENTS: list[Component] = [*learned.COMPONENTS, *noisy.COMPONENTS, *bound.COMPONENTS, *fixed.COMPONENTS]
