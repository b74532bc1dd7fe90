"""The flags that make a recipe, for each command that takes one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias, final

import attrs
import typer

from copl.commands.parts.arguments import BACKBONE_OPTION, SEED_OPTION, SET_OPTION

if TYPE_CHECKING:
    from copl.runs.recipe import Draft, Recipe

METHOD_OPTION: TypeAlias = Annotated[str | None, typer.Option("--method", help="Whole method: copl, btl, graph, …")]


@final
@attrs.frozen(kw_only=True)
class RecipeFlags:
    """What the command line says of a recipe: a file, which flags win over, the component of each part, options."""

    config: Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="Recipe in TOML; flags win over it.")
    ] = None
    method: METHOD_OPTION = None
    encoder: Annotated[str | None, typer.Option("--encoder", help="Graph encoder.")] = None
    gate: Annotated[str | None, typer.Option("--gate", help="Gate of the experts.")] = None
    adapter: Annotated[str | None, typer.Option("--adapter", help="Adaptation strategy for unseen users.")] = None
    backbone: BACKBONE_OPTION = None
    assignments: SET_OPTION = None
    seed: SEED_OPTION = None

    def any(self) -> bool:
        """Return whether there is any flag."""
        return attrs.evolve(self, assignments=self.assignments or None) != RecipeFlags()

    def recipe(self) -> Recipe:
        """Return the resolved recipe.

        Raises:
            OptionsError: all faults of file and flags.
        """
        from copl.runs.recipe import read_recipe

        document, file_seed = read_recipe(self.config) if self.config else ({}, None)
        return self._resolved(document, file_seed)

    def recipe_over(self, path: Path) -> Recipe:
        """Return the recipe of a file, such as that of a run, where nothing else is said.

        Raises:
            OptionsError: all faults of files and flags.
        """
        from copl.runs.recipe import merge, read_recipe

        document, seed = read_recipe(path)
        own, own_seed = read_recipe(self.config) if self.config else ({}, None)
        return self._resolved(merge(document, own), seed if own_seed is None else own_seed)

    def _resolved(self, document: Draft, file_seed: int | None) -> Recipe:
        from copl.plugins import load
        from copl.runs.recipe import merge, parse_assignments, resolve

        named = {kind: getattr(self, kind) for kind in ("method", "encoder", "gate", "adapter", "backbone")}
        chosen = {kind: {"name": name} for kind, name in named.items() if name is not None}
        settings = parse_assignments(self.assignments or ())
        seed = self.seed if self.seed is not None else file_seed
        return resolve(merge(document, chosen, settings), load(), seed=seed or 0, explicit={*chosen, *settings})
