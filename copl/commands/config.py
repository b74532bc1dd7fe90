"""``copl config``: see the resolved recipe, write one to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copl.commands.parts.arguments import JSON_OPTION
from copl.commands.parts.display import say, show_json
from copl.commands.parts.flags import takes_records
from copl.commands.parts.recipes import METHOD_OPTION, RecipeFlags

app = typer.Typer(no_args_is_help=True, help="Show or write a recipe.")


@app.command("show")
@takes_records
def show(flags: RecipeFlags, as_json: JSON_OPTION = False) -> None:
    """Print the recipe that these flags and this file give, with every default filled in."""
    from copl.runs.recipe import write_recipe

    recipe = flags.recipe()
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
    from copl.errors import OptionsError
    from copl.runs.recipe import write_recipe
    from copl.system.files import write_text

    if out.exists():
        raise OptionsError(f"{out}: exists; choose another file")
    write_text(out, write_recipe(RecipeFlags(method=method).recipe(), help_texts=True))
    say(f"wrote {out}; use it with: copl train DATA --out RUN --config {out}")
