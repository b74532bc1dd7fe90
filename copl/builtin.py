"""Our own components, registered through the same hooks as anybody's: the map of the project.

Each module named below is one component (or a few that share their code) and lists what it adds in ``COMPONENTS``.
Modules are imported inside the hooks, so a registry loads only what its kind needs.
"""

from __future__ import annotations

from copl.plugins import Component


def copl_graph_encoders() -> list[Component]:
    from copl.graph.encoders import (
        gat,
        gcf,
        id,  # noqa: A004 - the name of the component
        latent_groups,
        lightgcn,
        mf,
        ngcf,
        none,
        signed_gcn,
        spectral,
        stacked,
        tastes,
    )

    modules = (stacked, tastes, latent_groups, gcf, mf, lightgcn, ngcf, signed_gcn, gat, spectral, id, none)
    return [component for module in modules for component in module.COMPONENTS]


def copl_expert_gates() -> list[Component]:
    from copl.experts import gates

    return [*gates.COMPONENTS]


def copl_adaptation_strategies() -> list[Component]:
    from copl.adapt.strategies import empirical, encode, knn, mean, population, posterior, refit, two_hop

    modules = (two_hop, mean, knn, posterior, empirical, encode, refit, population)
    return [component for module in modules for component in module.COMPONENTS]


def copl_preference_models() -> list[Component]:
    from copl.methods import btl, copl, graph

    return [*copl.COMPONENTS, *btl.COMPONENTS, *graph.COMPONENTS]


def copl_dataset_sources() -> list[Component]:
    from copl.data.sources import (
        chatbot_arena,
        events,
        facets,
        hh_rlhf,
        llmfao,
        opinion_tables,
        personalllm,
        planted,
        polis,
        prism,
        reference_pickle,
        subset,
        tables,
        tldr,
        trl,
        ultrafeedback_p,
    )

    own = (facets, planted, tables, opinion_tables, events, subset)
    published = (polis, llmfao, ultrafeedback_p, tldr, personalllm, prism, hh_rlhf, chatbot_arena, trl)
    return [component for module in (*own, *published, reference_pickle) for component in module.COMPONENTS]


def copl_backbones() -> list[Component]:
    from copl.reward.backbones import catalogue

    return [*catalogue.COMPONENTS]


def copl_metrics() -> list[Component]:
    from copl.evaluate import metrics

    return [*metrics.COMPONENTS]


def copl_generators() -> list[Component]:
    from copl.align.generators import facets, table

    return [component for module in (facets, table) for component in module.COMPONENTS]


def copl_aligners() -> list[Component]:
    from copl.align.aligners import best_of_n, none, oracle

    return [component for module in (best_of_n, none, oracle) for component in module.COMPONENTS]
