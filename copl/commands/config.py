"""``copl config``: see the resolved recipe, write one to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copl.commands.arguments import (
    ADAPTER_OPTION,
    BACKBONE_OPTION,
    CONFIG_OPTION,
    ENCODER_OPTION,
    GATE_OPTION,
    JSON_OPTION,
    METHOD_OPTION,
    SEED_OPTION,
    SET_OPTION,
)
from copl.commands.display import say, show_json

app = typer.Typer(no_args_is_help=True, help="Show or write a recipe.")


@app.command("show")
def show(
    config: CONFIG_OPTION = None,
    method: METHOD_OPTION = None,
    encoder: ENCODER_OPTION = None,
    gate: GATE_OPTION = None,
    adapter: ADAPTER_OPTION = None,
    backbone: BACKBONE_OPTION = None,
    assignments: SET_OPTION = None,
    seed: SEED_OPTION = None,
    as_json: JSON_OPTION = False,
) -> None:
    """Print the recipe that these flags and this file give, with every default filled in."""
    from copl.commands.recipes import recipe_from_flags
    from copl.runs.recipe import write_recipe

    names = {"method": method, "encoder": encoder, "gate": gate, "adapter": adapter, "backbone": backbone}
    recipe = recipe_from_flags(config, names, assignments, seed)
    if as_json:
        show_json(recipe.to_dict())
    else:
        print(write_recipe(recipe), end="")


@app.command("init")
def init(
    out: Annotated[Path, typer.Argument(help="File to write.")] = Path("copl.toml"),
    method: METHOD_OPTION = None,
) -> None:
    """Write a recipe with every option, its default and its meaning, to start from."""
    from copl.commands.recipes import recipe_from_flags
    from copl.errors import OptionsError
    from copl.runs.recipe import write_recipe
    from copl.system.files import write_text

    if out.exists():
        raise OptionsError(f"{out}: exists; choose another file")
    write_text(out, write_recipe(recipe_from_flags(None, {"method": method}, None, None), help_texts=True))
    say(f"wrote {out}; use it with: copl train DATA --out RUN --config {out}")
