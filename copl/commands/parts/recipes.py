"""The flags that make a recipe, for each command that takes one: declared once, given to the command as one record."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, final

import attrs
import typer

from copl.commands.parts.arguments import BACKBONE_OPTION, SEED_OPTION, SET_OPTION

if typing.TYPE_CHECKING:
    from copl.runs.recipe import Draft, Recipe

Command = TypeVar("Command", bound=Callable[..., None])


@final
@attrs.frozen
class RecipeFlags:
    """What the command line says of a recipe.

    Attributes:
        config: TOML file; flags win over it.
        names: component chosen for each part, None where none is.
        assignments: ``--set`` texts.
        seed: the seed, None where none is given.
    """

    config: Path | None
    names: Mapping[str, str | None]
    assignments: Sequence[str]
    seed: int | None

    def any(self) -> bool:
        """Return whether there is any flag."""
        return bool(self.config or any(self.names.values()) or self.assignments or self.seed is not None)

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

        chosen = {kind: {"name": name} for kind, name in self.names.items() if name is not None}
        settings = parse_assignments(self.assignments)
        seed = self.seed if self.seed is not None else file_seed
        return resolve(merge(document, chosen, settings), load(), seed=seed or 0, explicit={*chosen, *settings})


_PARTS: Mapping[str, Any] = {
    "method": Annotated[str | None, typer.Option("--method", help="Whole method: copl, btl, graph, …")],
    "encoder": Annotated[str | None, typer.Option("--encoder", help="Graph encoder.")],
    "gate": Annotated[str | None, typer.Option("--gate", help="Gate of the experts.")],
    "adapter": Annotated[str | None, typer.Option("--adapter", help="Adaptation strategy for unseen users.")],
    "backbone": BACKBONE_OPTION,
}
_FLAGS: Mapping[str, Any] = {
    "config": Annotated[
        Path | None, typer.Option("--config", "-c", metavar="FILE", help="Recipe in TOML; flags win over it.")
    ],
    **_PARTS,
    "assignments": SET_OPTION,
    "seed": SEED_OPTION,
}
METHOD_OPTION = _PARTS["method"]


def takes_recipe(command: Command) -> Command:
    """Give a command the flags of a recipe, which it gets as its argument ``flags``."""

    @functools.wraps(command)
    def run(**arguments: Any) -> None:
        given = {name: arguments.pop(name) for name in _FLAGS}
        names = {name: given[name] for name in _PARTS}
        flags = RecipeFlags(given["config"], names, given["assignments"] or (), given["seed"])
        command(flags=flags, **arguments)

    hints = typing.get_type_hints(command, include_extras=True)
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if parameter.name == "flags":
            parameters += [inspect.Parameter(n, parameter.kind, default=None, annotation=a) for n, a in _FLAGS.items()]
        else:
            parameters.append(parameter.replace(annotation=hints[parameter.name]))
    run.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    del run.__wrapped__  # what it wraps has other arguments
    return typing.cast("Command", run)
