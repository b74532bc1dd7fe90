"""From the flags of a command to a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from copl.plugins import load
from copl.runs.recipe import Draft, Recipe, merge, parse_assignments, read_recipe, resolve


def recipe_from_flags(
    config: Path | None, names: Mapping[str, str | None], assignments: Sequence[str] | None, seed: int | None
) -> Recipe:
    """Return the recipe of a TOML file, component flags and ``--set`` texts; later ones win."""
    document, file_seed = read_recipe(config) if config else ({}, None)
    flags: Draft = {kind: {"name": name} for kind, name in names.items() if name is not None}
    settings = parse_assignments(assignments or [])
    chosen_seed = seed if seed is not None else file_seed
    return resolve(merge(document, flags, settings), load(), seed=chosen_seed or 0, explicit={*flags, *settings})
