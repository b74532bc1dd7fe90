"""``copl train``: a recipe on a data set, into a run directory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

import attrs
import typer

from copl.commands.parts.arguments import NO_CACHE_OPTION, shared_cache
from copl.commands.parts.display import open_progress, say, show_text
from copl.commands.parts.flags import takes_records
from copl.commands.parts.interrupts import interruptible, kept_of_run
from copl.commands.parts.recipes import RecipeFlags

if TYPE_CHECKING:
    from copl.runs.directory import Run
    from copl.runs.recipe import Recipe


@final
@attrs.frozen(kw_only=True)
class _Request:
    """What is to be trained, on what, and where."""

    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory to write.")]
    flags: RecipeFlags
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="Directory of the data set.")] = None
    everyone: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Learn from everyone and everything, for use: no user is held out as unseen, and held-out comparisons"
            " are trained on. Such a run cannot be evaluated on its data.",
        ),
    ] = False
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out with the recipe and data it was started with.")
    ] = False
    former: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="RUN",
            help="A finished run to go on from, by its recipe, now that there are more rows.",
        ),
    ] = None

    def start(self) -> _Start:
        """Return what training begins with.

        Raises:
            CoplError: there is no such run, the recipe has faults, or what was asked for excludes each other.
        """
        from copl.errors import OptionsError
        from copl.plugins import load
        from copl.runs.directory import CONFIG_FILE, former_of, open_run

        if self.resume:
            run = self._resumed()
            facts = run.facts.data
            return _Start(run.recipe, self.data or run.data_directory, facts.everyone, former_of(run, load()))
        former = None if self.former is None else open_run(self.former, load())
        recipe = self.flags.recipe() if former is None else self.flags.recipe_over(former.root / CONFIG_FILE)
        if self.data is None:
            raise OptionsError("DATA is missing: name the directory of a data set (`copl data make` writes one)")
        return _Start(recipe, self.data, self.everyone, former)

    def _resumed(self) -> Run:
        from copl.errors import OptionsError
        from copl.plugins import load
        from copl.runs.directory import open_run

        if self.flags.any():
            raise OptionsError("--resume takes the recipe from the run; drop the other options")
        if self.everyone:
            raise OptionsError("--resume knows whether the run learns from everyone; drop --all")
        if self.former is not None:
            raise OptionsError("--resume knows the run that this one goes on from; drop --from")
        return open_run(self.out, load())


@final
@attrs.frozen
class _Start:
    """What training begins with: all that was said, or that the run to resume was started with."""

    recipe: Recipe
    data: Path
    everyone: bool
    former: Run | None


@takes_records
def train(request: _Request, no_cache: NO_CACHE_OPTION = False) -> None:
    """Train a recipe on a data set; stages that are already computed are reused, a killed run continues."""
    from copl.runs.pipeline import train as train_run
    from copl.runs.pipeline import training_data
    from copl.runs.verdicts import first_verdict
    from copl.system.processes import num_processes

    start, out = request.start(), request.out
    with interruptible(lambda: kept_of_run(out)):
        cache = shared_cache(no_cache)
        learned = training_data(start.data, everyone=start.everyone)
        run, method = train_run(
            start.recipe,
            start.data,
            out,
            open_progress=open_progress,
            cache=cache,
            everyone=start.everyone,
            former=start.former,
            data=learned,
        )
        if num_processes() == 1:  # to say so needs the whole model in one place
            with open_progress(None) as progress:
                verdict = first_verdict(run, learned, method, progress=progress, cache=cache)
            show_text(
                f"Is it personal? A first look, by validation alone; in brackets: 95 % intervals.\n{verdict.text}"
            )
    following = f"copl score {run.root} ROWS --out FILE" if start.everyone else f"copl evaluate {run.root}"
    say(f"run in {run.root}; next: {following}")
