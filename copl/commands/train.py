"""``copl train``: a recipe on a data set, into a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copl.commands.parts.arguments import NO_CACHE_OPTION, shared_cache
from copl.commands.parts.display import open_progress, say, show_text
from copl.commands.parts.interrupts import interruptible, kept_of_run
from copl.commands.parts.recipes import RecipeFlags, takes_recipe


@takes_recipe
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory to write.")],
    flags: RecipeFlags,
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="Directory of the data set.")] = None,
    everyone: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Learn from everyone and everything, for use: no user is held out as unseen, and held-out comparisons"
            " are trained on. Such a run cannot be evaluated on its data.",
        ),
    ] = False,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out with the recipe and data it was started with.")
    ] = False,
    former: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="A finished run to go on from, by its recipe, now that there are more rows.",
        ),
    ] = None,
    no_cache: NO_CACHE_OPTION = False,
) -> None:
    """Train a recipe on a data set; stages that are already computed are reused, a killed run continues."""
    from copl.errors import OptionsError
    from copl.plugins import load
    from copl.runs.directory import CONFIG_FILE, former_of, open_run
    from copl.runs.pipeline import train as train_run
    from copl.runs.pipeline import training_data
    from copl.runs.verdicts import first_verdict
    from copl.system.processes import num_processes

    if resume:
        if flags.any():
            raise OptionsError("--resume takes the recipe from the run; drop the other options")
        if everyone:
            raise OptionsError("--resume knows whether the run learns from everyone; drop --all")
        if former is not None:
            raise OptionsError("--resume knows the run that this one goes on from; drop --from")
        run = open_run(out, load())
        recipe, data, everyone = run.recipe, data or run.data_directory, run.facts.data.everyone
        ancestor = former_of(run, load())
    else:
        ancestor = None if former is None else open_run(former, load())
        recipe = flags.recipe() if ancestor is None else flags.recipe_over(ancestor.root / CONFIG_FILE)
    if data is None:
        raise OptionsError("DATA is missing: name the directory of a data set (`copl data make` writes one)")
    with interruptible(lambda: kept_of_run(out)):
        cache = shared_cache(no_cache)
        learned = training_data(data, everyone=everyone)
        run, method = train_run(
            recipe,
            data,
            out,
            open_progress=open_progress,
            cache=cache,
            everyone=everyone,
            former=ancestor,
            data=learned,
        )
        if num_processes() == 1:  # to say so needs the whole model in one place
            with open_progress(None) as progress:
                verdict = first_verdict(run, learned, method, progress=progress, cache=cache)
            show_text(f"By validation alone: {verdict.paragraph}")
    following = f"copl score {run.root} ROWS --out FILE" if everyone else f"copl evaluate {run.root}"
    say(f"run in {run.root}; next: {following}")
