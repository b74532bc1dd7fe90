"""``copl ablate``: a grid of recipes over data sets and seeds, compared in a table."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

import attrs
import typer

from copl.commands.parts.arguments import JSON_OPTION, NO_CACHE_OPTION, SET_OPTION, shared_cache
from copl.commands.parts.display import say, show, show_json, show_table, show_text
from copl.commands.parts.flags import takes_records
from copl.commands.parts.interrupts import interruptible

if TYPE_CHECKING:
    from copl.ablate.conduct import Found
    from copl.ablate.grid import Plan
    from copl.runs.recipe import Choice


class Engine(StrEnum):
    """Where cells run."""

    local = "local"
    ray = "ray"


@final
@attrs.frozen(kw_only=True)
class _Request:
    """What is compared, where, and how it is run."""

    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG]", help="Study in TOML, see docs/ablation.md; flags win over it.")
    ] = None
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Directory of the study.")] = None
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", metavar="STAGE[.KEY]=A,B", help="Components or values to vary; may be repeated."),
    ] = None
    data: Annotated[
        list[str] | None,
        typer.Option("--data", metavar="DIR[,DIR]", help="Directories of data sets, or names of those of the study."),
    ] = None
    seeds: Annotated[
        int | None, typer.Option("--seeds", help="Number of seeds. [default: those of the study, else 1]")
    ] = None
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            help="Variant to compare the others with. [default: that of the study, else the best of those that know no"
            " users, else the first]",
        ),
    ] = None
    assignments: SET_OPTION = None
    engine: Annotated[
        Engine, typer.Option("--engine", help="Where cells run: on this machine, or on a Ray cluster.")
    ] = Engine.local
    jobs: Annotated[
        int | None,
        typer.Option(
            "--jobs", "-j", help="Cells at a time, which share the cores. [default: 1; with Ray all that fit]"
        ),
    ] = None
    retry: Annotated[
        bool, typer.Option("--retry", help="Run the cells again that failed before, instead of reporting them.")
    ] = False
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything and show what would be run.")] = False
    as_json: JSON_OPTION = False
    no_cache: NO_CACHE_OPTION = False

    def plan(self) -> Plan:
        """Return the study, with what the flags say of it.

        Raises:
            OptionsError: all faults of file and flags.
        """
        from copl.ablate.grid import plan
        from copl.ablate.study import Flags, load_study
        from copl.errors import OptionsError
        from copl.plugins import load

        if self.jobs is not None and self.jobs < 1:
            raise OptionsError(f"--jobs {self.jobs}: at least one")
        flags = Flags(self.vary or (), self.data or (), self.seeds, self.reference, self.assignments or ())
        return plan(load_study(self.config, flags), load())

    def conduct(self, plan: Plan, out: Path) -> Found:
        """Run what is not finished, and return what all that is finished says."""
        from copl.ablate.conduct import conduct
        from copl.plugins import load

        with interruptible(lambda: "finished cells are kept, and the same command runs the others"):
            return conduct(
                plan,
                out,
                plugins=load(),
                cache=shared_cache(self.no_cache),
                engine=self.engine.value,
                num_jobs=self.jobs,
                retry=self.retry,
                say=say,
            )


@takes_records
def ablate(request: _Request) -> None:
    """Run a grid of recipes over data sets and seeds and compare them; what is finished is not run again.

    Exits with 2 when a cell has failed.
    """
    from copl.ablate.search import trials_of
    from copl.errors import OptionsError
    from copl.plugins import load

    plan = request.plan()
    if request.dry_run:
        trials = trials_of(plan, plan.study.search, load()) if plan.study.search else ()
        _show_plan(plan, len(trials), request.as_json)
        return
    if request.out is None:
        raise OptionsError("--out is missing: name the directory of the study")
    outcome = request.conduct(plan, request.out)
    _show_outcome(outcome, request.out, request.as_json)
    if outcome.failed:
        raise typer.Exit(2)


def _show_plan(plan: Plan, num_trials: int, as_json: bool) -> None:
    study = plan.study
    names = [spec.name for spec in study.data]
    if as_json:
        show_json(
            {
                "title": study.title,
                "variants": {variant.name: variant.recipe.to_dict() for variant in plan.variants},
                "left_out": dict(plan.left_out),
                "data": names,
                "seeds": list(study.seeds),
                "reference": plan.reference,
                "cells": plan.num_cells,
                "trials": num_trials * len(names),
            }
        )
        return
    rows = [(v.name, v.recipe.method.name, _parts(v.recipe.stages.parts.values())) for v in plan.variants]
    show_table(f"{study.title}: {len(rows)} variants", ("variant", "method", "parts"), rows)
    show_text(f"data: {', '.join(names)}; seeds: {', '.join(map(str, study.seeds))}; compared with {plan.reference}")
    if plan.answers:
        deciding = ", ".join(named.label for named in plan.answers.aligners)
        show_text(f"shown: by {deciding}; written by {', '.join(named.label for named in plan.answers.generators)}")
    show_text(
        f"{plan.num_cells} cells" + (f", and {num_trials * len(names)} trials of the search" if num_trials else "")
    )
    for name, package in plan.left_out.items():
        say(f"left out, because the package {package} is not installed: {name}")


def _parts(choices: Iterable[Choice]) -> str:
    return ", ".join(f"{choice.kind} {choice.name}" for choice in choices)


def _show_outcome(outcome: Found, out: Path, as_json: bool) -> None:
    from copl.ablate.search import search_table
    from copl.ablate.tables import as_table, differences_table

    if as_json:
        show_json(
            {
                "results": [
                    {"variant": r.variant, "data": r.data, "seed": r.seed, **attrs.asdict(r.measured)}
                    for r in outcome.results
                ],
                "differences": [attrs.asdict(d) for d in outcome.differences],
                "answers": [
                    {**attrs.asdict(g, filter=lambda field, _: field.name != "measured"), **attrs.asdict(g.measured)}
                    for g in outcome.gains.rows
                ],
                "search": [attrs.asdict(one) for one in outcome.searched],
                "failed": {str(cell): failure.faults for cell, failure in outcome.failed.items()},
            }
        )
    else:
        for table in (*map(as_table, outcome.tables), *outcome.gains_tables):
            show(table)
            print()
        if outcome.differences:
            show(differences_table(outcome.differences))
        if outcome.searched:
            show(search_table(outcome.searched))
        for remark in outcome.remarks:
            show_text(remark)
    for cell, failure in outcome.failed.items():
        for fault in failure.faults:
            say(f"failed: {cell}: {fault}")
        say(f"  more in {cell.failure_file}; --retry runs it again")
    say(f"tables: {out / 'table.md'}, {out / 'table.tex'}, {out / 'table.html'}; rows: {out / 'results.parquet'}")
