"""Our own components, registered through the same hooks as anybody's: the map of the project.

Families whose components stand on torch list them, with their options, in a catalogue that does without: a component's
own module, named as it is, is imported when it is built. Each source of data sets lists itself in ``COMPONENTS``.
"""

from __future__ import annotations

from copl.plugins import Component


def copl_graph_encoders() -> list[Component]:
    from copl.graph.encoders import catalogue

    return [*catalogue.COMPONENTS]


def copl_expert_gates() -> list[Component]:
    from copl.experts.gates import catalogue

    return [*catalogue.COMPONENTS]


def copl_adaptation_strategies() -> list[Component]:
    from copl.adapt.strategies import catalogue

    return [*catalogue.COMPONENTS]


def copl_preference_models() -> list[Component]:
    from copl.methods import catalogue

    return [*catalogue.COMPONENTS]


def copl_dataset_sources() -> list[Component]:
    from copl.data.sources import (
        arena_votes,
        argilla,
        chatbot_arena,
        events,
        facets,
        hh_rlhf,
        label_studio,
        llmfao,
        open_webui,
        opinion_tables,
        personalllm,
        planted,
        polis,
        prism,
        reference_pickle,
        subset,
        tables,
        thumbs,
        tldr,
        trl,
        ultrafeedback_p,
    )

    logs = (thumbs, events, open_webui, label_studio, argilla, arena_votes)
    own = (facets, planted, tables, opinion_tables, *logs, subset)
    published = (polis, llmfao, ultrafeedback_p, tldr, personalllm, prism, hh_rlhf, chatbot_arena, trl)
    return [component for module in (*own, *published, reference_pickle) for component in module.COMPONENTS]


def copl_backbones() -> list[Component]:
    from copl.reward.backbones import catalogue

    return [*catalogue.COMPONENTS]


def copl_metrics() -> list[Component]:
    from copl.evaluate import metrics

    return [*metrics.COMPONENTS]


def copl_generators() -> list[Component]:
    from copl.align.generators import facets, local, openai, table

    return [component for module in (local, openai, table, facets) for component in module.COMPONENTS]


def copl_aligners() -> list[Component]:
    from copl.align.aligners import best_of_n, dpo, in_context, mixture_dpo, none, oracle

    modules = (best_of_n, in_context, dpo, mixture_dpo, none, oracle)
    return [component for module in modules for component in module.COMPONENTS]
