"""Our own components, registered through the same hooks as anybody's.

Each module below holds one component family member and lists it in ``COMPONENTS``. Modules are imported inside the
hooks, so a registry loads only what its kind needs.
"""

from __future__ import annotations

from copl.plugins import Component


def copl_graph_encoders() -> list[Component]:
    from copl.graph import (
        free_users,
        gat,
        gcf,
        lightgcn,
        mf,
        mixture,
        ngcf,
        none,
        signed_gcn,
        spectral_encoder,
        stacked,
    )

    modules = (stacked, mixture, gcf, mf, lightgcn, ngcf, signed_gcn, gat, spectral_encoder, free_users, none)
    return [component for module in modules for component in module.COMPONENTS]


def copl_expert_gates() -> list[Component]:
    from copl.experts import gates

    return [*gates.COMPONENTS]


def copl_adaptation_strategies() -> list[Component]:
    from copl.adapt import empirical, encode, knn, mean, population, posterior, refit, two_hop

    modules = (two_hop, mean, knn, posterior, empirical, encode, refit, population)
    return [component for module in modules for component in module.COMPONENTS]


def copl_preference_models() -> list[Component]:
    from copl.methods import graph_only, personal, uniform

    return [*personal.COMPONENTS, *uniform.COMPONENTS, *graph_only.COMPONENTS]


def copl_dataset_sources() -> list[Component]:
    from copl.data import (
        chatbot_arena,
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
        ultrafeedback,
    )

    own = (facets, planted, tables, opinion_tables, subset)
    published = (polis, llmfao, ultrafeedback, tldr, personalllm, prism, hh_rlhf, chatbot_arena, trl, reference_pickle)
    return [component for module in (*own, *published) for component in module.COMPONENTS]


def copl_backbones() -> list[Component]:
    from copl.reward import backbones

    return [*backbones.COMPONENTS]


def copl_metrics() -> list[Component]:
    from copl.evaluate import metrics

    return [*metrics.COMPONENTS]
