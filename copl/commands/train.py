"""``copl train``: a recipe on a data set, into a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copl.commands.parts.arguments import NO_CACHE_OPTION, shared_cache
from copl.commands.parts.display import open_progress, say
from copl.commands.parts.interrupts import interruptible, kept_of_run
from copl.commands.parts.recipes import RecipeFlags, takes_recipe


@takes_recipe
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory to write.")],
    flags: RecipeFlags,
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="Directory of the data set.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out with the recipe and data it was started with.")
    ] = False,
    no_cache: NO_CACHE_OPTION = False,
) -> None:
    """Train a recipe on a data set; stages that are already computed are reused, a killed run continues."""
    from copl.errors import OptionsError
    from copl.runs.directory import open_run
    from copl.runs.pipeline import train as train_run

    if resume:
        if flags.any():
            raise OptionsError("--resume takes the recipe from the run; drop the other options")
        from copl.plugins import load

        run = open_run(out, load())
        recipe, data = run.recipe, data or run.data_directory
    else:
        recipe = flags.recipe()
    if data is None:
        raise OptionsError("DATA is missing: name the directory of a data set (`copl data make` writes one)")
    with interruptible(lambda: kept_of_run(out)):
        run, _ = train_run(recipe, data, out, open_progress=open_progress, cache=shared_cache(no_cache))
    say(f"run in {run.root}; next: copl evaluate {run.root}")
