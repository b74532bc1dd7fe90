"""A study from beginning to end: data sets, cells, tables. What is finished is never done again."""

from __future__ import annotations

import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Literal, final

import attrs
from attrs import frozen

from copl.ablate.cells import Cell, Outcome, cells_of, recorded_failure
from copl.ablate.datasets import DataAt, prepare
from copl.ablate.gains import Gains, collect_gains, gains_notes, gains_tables, write_gains
from copl.ablate.grid import Plan
from copl.ablate.local import run_here, run_side_by_side
from copl.ablate.results import (
    AVERAGE,
    Difference,
    Margins,
    Result,
    best_by_validation,
    collect,
    differences,
    estimates,
    references,
    write_differences,
    write_estimates,
    write_results,
)
from copl.ablate.running import telling_what_runs
from copl.ablate.search import Judged, as_variants, judge, search_notes, search_table, trials_of, tuned
from copl.ablate.tables import (
    SplitTable,
    differences_table,
    latex,
    markdown,
    notes,
    split_tables,
    to_html,
)
from copl.errors import RunError
from copl.evaluate.tables import Table
from copl.plugins import Plugins
from copl.runs.directory import installed_versions
from copl.runs.recipe import Recipe, write_recipe
from copl.system.documents import write_document
from copl.system.files import is_free, sweep, write_text

Engine = Literal["local", "ray"]
Say = Callable[[str], None]

STUDY_FILE = "study.json"
"""What was compared, with versions; also the mark of a directory that holds a study."""


@final
@frozen(eq=False)
class Found:
    """What came out of a study.

    Attributes:
        results: all measurements of the finished cells.
        differences: each variant held against the reference.
        tables: the tables, as written.
        gains: what users gain by what they are shown, where the study asks for it.
        gains_tables: the same as tables.
        remarks: how they are to be read.
        searched: the trials of a search, where the study asks for one.
        failed: the cells that failed, with the cause.
    """

    results: Sequence[Result]
    differences: Sequence[Difference]
    tables: Sequence[SplitTable]
    gains: Gains
    gains_tables: Sequence[Table]
    remarks: Sequence[str]
    searched: Sequence[Judged]
    failed: Mapping[Cell, Outcome]


def conduct(
    plan: Plan,
    out: Path,
    *,
    plugins: Plugins,
    cache: Path | None,
    engine: Engine,
    num_jobs: int | None,
    retry: bool,
    say: Say,
) -> Found:
    """Run all cells of a plan that are not finished, and write what came out.

    Args:
        plan: what to run.
        out: directory of the study. ``results.parquet``, ``accuracy.parquet``, ``differences.parquet``, ``table.md``,
            ``table.tex``, ``table.html``, ``plots/``, ``best.toml`` and ``study.json`` are written there, and
            ``answers.parquet`` where answers are measured; the runs are in ``cells/``.
        plugins: where components come from.
        cache: directory of the stages that cells share with other runs; one below `out` where None.
        engine: where cells run.
        num_jobs: cells at a time; 1 (local) or as many as fit (Ray) where None.
        retry: run the cells again that failed in an earlier run; otherwise their cause is reported again.
        say: told a line for each cell as it ends.

    Raises:
        CoplError: a range of the search is unfit, the directory holds something else, a data set cannot be made, or
            Ray is missing.
    """
    out, shared = out.resolve(), (cache or out / "cache").resolve()
    trials = trials_of(plan, plan.study.search, plugins) if plan.study.search else []
    _open_study(out)

    def run(cells: Sequence[Cell], what: str) -> Mapping[Cell, Outcome]:
        return _run_waiting(cells, what, engine, num_jobs, retry=retry, say=say)

    searched: list[Judged] = []
    if plan.study.search:
        drawn = attrs.evolve(plan.study, seeds=(plan.study.search.seed,))
        tried = attrs.evolve(plan, study=drawn, variants=as_variants(trials))
        cells = cells_of(tried, prepare(drawn, out, plugins, say), out, shared, plugins, are_trials=True)
        searched = judge(trials, cells, run(cells, "trials"))
        write_document(out / "search.json", searched)
    data = prepare(plan.study, out, plugins, say)
    recipes = tuned(trials, searched)
    cells = cells_of(plan, data, out, shared, plugins, recipes=recipes)
    return _write(plan, data, cells, run(cells, "cells"), searched, recipes, out)


def _run_waiting(
    cells: Sequence[Cell], what: str, engine: Engine, num_jobs: int | None, *, retry: bool, say: Say
) -> Mapping[Cell, Outcome]:
    """Run the cells that are not finished; return those that failed, now or before."""
    for cell in cells:
        if cell.state() == "finished" and (damage := cell.damage()) is not None:
            say(f"{cell}: run again: {damage}")
            cell.discard()
    failed = {cell: recorded_failure(cell) for cell in cells if cell.state() == "failed" and not retry}
    waiting = [cell for cell in cells if cell.state() != "finished" and cell not in failed]
    for ended in {*cells} - {*waiting}:
        ended.note_file.unlink(missing_ok=True)  # it was killed when it had ended and before it said so
    num_finished = len(cells) - len(waiting) - len(failed)
    say(f"{len(cells)} {what}: {num_finished} finished, {len(failed)} failed, {len(waiting)} to run")
    listener = _Told(len(waiting), say)
    if waiting:
        with telling_what_runs(waiting, say):
            _run(waiting, engine, num_jobs, listener.hear)
    return failed | listener.failed


def _open_study(out: Path) -> None:
    """Make sure that the directory is known as a study's."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out}: is a file, not a directory; choose another --out")
    if (out / STUDY_FILE).is_file():
        sweep(out)
        return
    if not is_free(out):
        raise RunError(f"{out}: holds something else than a study; choose another --out")
    write_document(out / STUDY_FILE, {})


def _run(cells: Sequence[Cell], engine: Engine, num_jobs: int | None, report: Callable[[Cell, Outcome], None]) -> None:
    if engine == "ray":
        from copl.ablate.cluster import run_on_ray

        run_on_ray(cells, num_jobs, report)
    elif (num_jobs or 1) == 1:
        run_here(cells, report)
    else:
        run_side_by_side(cells, num_jobs or 1, report)


class _Told:
    """Says a line for each cell that ends, and keeps those that failed."""

    def __init__(self, number: int, say: Say) -> None:
        self.failed: dict[Cell, Outcome] = {}
        self._number, self._say = number, say
        self._ended = 0
        self._started = time.monotonic()

    def hear(self, cell: Cell, outcome: Outcome) -> None:
        self._ended += 1
        seconds = time.monotonic() - self._started
        left = seconds / self._ended * (self._number - self._ended)
        how = f"failed: {outcome.faults[0]}" if outcome.failed else "done"
        self._say(f"[{self._ended}/{self._number}] {cell}: {how}  ({seconds:.0f} s so far, about {left:.0f} s to go)")
        if outcome.failed:
            self.failed[cell] = outcome


def _write(
    plan: Plan,
    data: Mapping[tuple[str, int], DataAt],
    cells: Sequence[Cell],
    failed: Mapping[Cell, Outcome],
    searched: Sequence[Judged],
    recipes: Mapping[tuple[str, str], Recipe],
    out: Path,
) -> Found:
    results = collect(plan, cells)
    margins = Margins()
    accuracy = estimates(plan, results, cells, margins)
    measured = differences(plan, results, cells, accuracy, margins)
    best = best_by_validation(plan, results)
    tables = split_tables(plan, accuracy, measured)
    gains = collect_gains(plan, cells)
    shown = gains_tables(plan, gains, accuracy)
    remarks = [*notes(plan, measured, best, len(failed)), *search_notes(plan.study.search), *gains_notes(plan, gains)]
    more = [*shown, differences_table(measured)] if measured else [*shown]
    more += [search_table(searched)] if searched else []
    pictures = _pictures(tables)
    title = plan.study.title
    write_results(plan, results, out / "results.parquet")
    write_estimates(accuracy, references(plan, accuracy), out / "accuracy.parquet")
    write_differences(measured, out / "differences.parquet")
    if plan.answers is not None:
        write_gains(gains, out / "answers.parquet")
    for split, picture in pictures.items():
        write_text(out / "plots" / f"{split}.svg", picture + "\n")
    write_text(out / "table.md", markdown(title, tables, more, remarks))
    write_text(out / "table.tex", latex(tables, shown, remarks))
    write_text(out / "table.html", to_html(title, tables, more, remarks, pictures))
    _write_best(plan, best, recipes, out)
    _write_facts(plan, data, cells, failed, out / STUDY_FILE)
    return Found(results, measured, tables, gains, shown, remarks, searched, failed)


def _pictures(tables: Sequence[SplitTable]) -> dict[str, str]:
    if not tables:
        return {}
    from copl.ablate.plots import accuracy_bars

    return {shown.split: accuracy_bars(shown) for shown in tables}


def _write_best(
    plan: Plan, best: Mapping[str, tuple[str, float]], recipes: Mapping[tuple[str, str], Recipe], out: Path
) -> None:
    """Write the recipe of the variant that is best by validation, over all data sets where there are several.

    After a search a variant may have another recipe on each data set; then there is a file for each.
    """
    own = {variant.name: variant.recipe for variant in plan.variants}
    texts: dict[str, str] = {}
    for data in (place for place in best if place != AVERAGE):
        name, value = best.get(AVERAGE) or best[data]
        comment = f"# {name}: the best by accuracy on validation ({value:.4f}); use it with copl train --config\n"
        texts[data] = comment + write_recipe(recipes.get((name, data), own[name]))
    for data, text in texts.items():
        write_text(out / ("best.toml" if len({*texts.values()}) == 1 else f"best-{data}.toml"), text)


def _write_facts(
    plan: Plan,
    data: Mapping[tuple[str, int], DataAt],
    cells: Sequence[Cell],
    failed: Mapping[Cell, Outcome],
    path: Path,
) -> None:
    facts = {
        "title": plan.study.title,
        "command": shlex.join(["copl", *sys.argv[1:]]),
        "versions": installed_versions(),
        "seeds": list(plan.study.seeds),
        "reference": plan.reference,
        "variants": {variant.name: variant.recipe.to_dict() for variant in plan.variants},
        "left_out": dict(plan.left_out),
        "answers": plan.answers,
        "data": [
            {"name": name, "seed": seed, "directory": str(at.directory), "fingerprint": at.fingerprint}
            for (name, seed), at in data.items()
        ],
        "cells": [
            {
                "variants": cell.variants,
                "data": cell.data,
                "seed": cell.seed,
                "run": str(cell.run),
                "state": cell.state(),
            }
            for cell in cells
        ],
        "failed": {str(cell): outcome.faults for cell, outcome in failed.items()},
    }
    write_document(path, facts)
