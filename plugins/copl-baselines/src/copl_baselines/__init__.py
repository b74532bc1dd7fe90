"""Published methods of personal reward modelling for `copl`, all on the same frozen features.

Each module holds one method and lists it in ``COMPONENTS``; README.md says how one is put together.
"""

from __future__ import annotations

from copl.plugins import Component


def copl_preference_models() -> list[Component]:
    # Imported here: listing the plugins must not load torch.
    from copl_baselines import dpl, gpo, groups, i2e, lore, mrm, pal, pref, prlhf, pttt, vpl

    modules = (dpl, i2e, groups, vpl, pal, lore, prlhf, pref, mrm, gpo, pttt)
    return [component for module in modules for component in module.COMPONENTS]
