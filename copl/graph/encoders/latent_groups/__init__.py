"""Encoder ``latent-groups``: groups of users, found by expectation-maximisation with leave-one-out evidence."""

from __future__ import annotations

from copl.graph.encoders.latent_groups.encoder import FoundGroups, LatentGroupsEncoder, LatentGroupsOptions
from copl.plugins import Component

COMPONENTS = [
    Component(
        name="latent-groups",
        options=LatentGroupsOptions,
        build=LatentGroupsEncoder,
        summary="latent groups of users by expectation-maximisation, each user judged by the others' comparisons",
        reference="Krzakala et al., Spectral redemption in clustering sparse networks, arXiv 1306.5550 (leave-one-out)",
        formerly=("mixture",),
    )
]

__all__ = ["COMPONENTS", "FoundGroups", "LatentGroupsEncoder", "LatentGroupsOptions"]
