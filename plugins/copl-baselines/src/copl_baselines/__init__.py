"""Published methods of personal reward modelling for `copl`, all on the same frozen features.

Each module holds one method; ``catalogue`` lists them with their options. README.md says how one is put together.
"""

from __future__ import annotations

from copl.plugins import Component


def copl_preference_models() -> list[Component]:
    from copl_baselines import catalogue

    return [*catalogue.COMPONENTS]
