"""Our own components, registered through the same hooks as anybody's.

Each module below holds one component family member and lists it in ``COMPONENTS``. Modules are imported inside the
hooks, so a registry loads only what its kind needs.
"""

from __future__ import annotations

from copl.plugins import Component


def copl_graph_encoders() -> list[Component]:
    from copl.graph import gcf, mf

    return [*gcf.COMPONENTS, *mf.COMPONENTS]


def copl_expert_gates() -> list[Component]:
    from copl.experts import gates

    return [*gates.COMPONENTS]


def copl_adaptation_strategies() -> list[Component]:
    from copl.adapt import empirical, mean, population, posterior, two_hop

    modules = (two_hop, mean, posterior, empirical, population)
    return [component for module in modules for component in module.COMPONENTS]


def copl_preference_models() -> list[Component]:
    from copl.methods import graph_only, personal, uniform

    return [*personal.COMPONENTS, *uniform.COMPONENTS, *graph_only.COMPONENTS]


def copl_dataset_sources() -> list[Component]:
    from copl.data import facets, llmfao, polis, tables

    return [*facets.COMPONENTS, *tables.COMPONENTS, *polis.COMPONENTS, *llmfao.COMPONENTS]


def copl_backbones() -> list[Component]:
    from copl.reward import backbones

    return [*backbones.COMPONENTS]


def copl_metrics() -> list[Component]:
    from copl.evaluate import metrics

    return [*metrics.COMPONENTS]
