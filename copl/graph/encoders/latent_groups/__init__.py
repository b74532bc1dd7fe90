"""Encoder ``latent-groups``: groups of users, found by expectation-maximisation with leave-one-out evidence."""

from __future__ import annotations

from copl.graph.encoders.latent_groups.encoder import FoundGroups, LatentGroupsEncoder

__all__ = ["FoundGroups", "LatentGroupsEncoder"]
