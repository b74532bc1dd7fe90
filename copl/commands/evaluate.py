"""``copl evaluate``: a run on held-out comparisons."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copl.commands.parts.arguments import JSON_OPTION, NO_CACHE_OPTION, RUN_ARGUMENT, shared_cache
from copl.commands.parts.display import open_progress, say, show, show_json, show_text
from copl.commands.parts.interrupts import interruptible

if TYPE_CHECKING:
    from copl.runs.recipe import Choice


def evaluate(
    run_directory: RUN_ARGUMENT,
    data_directory: Annotated[
        Path | None, typer.Option("--data", help="Another data set than the one the run was trained on.")
    ] = None,
    policy: Annotated[
        bool,
        typer.Option("--policy", help="Also measure what users are shown by its true utility, on simulated users."),
    ] = False,
    aligners: Annotated[
        list[str] | None,
        typer.Option("--aligner", help="With --policy: who decides; may be repeated. [default: best-of-n]"),
    ] = None,
    num: Annotated[int, typer.Option("--num", "-n", help="With --policy: candidates for each prompt.")] = 8,
    as_json: JSON_OPTION = False,
    no_cache: NO_CACHE_OPTION = False,
) -> None:
    """Measure a run on held-out comparisons, new responses and unseen users; write metrics.json and report.html."""
    import attrs

    from copl.align.judging import PolicySize
    from copl.evaluate.tables import side_by_side
    from copl.plugins import load
    from copl.runs.directory import open_run
    from copl.runs.pipeline import evaluate as evaluate_run
    from copl.runs.pipeline import load_data
    from copl.runs.policy import choosers, evaluate_policy
    from copl.runs.reporting import inside_of, report_run
    from copl.runs.verdicts import verdict_of

    chosen = _aligners(aligners, num, policy=policy, elsewhere=data_directory is not None)
    run = open_run(run_directory, load())
    data, same = load_data(run, data_directory)
    run.require_held_out(same)
    notes = [] if same else [f"measured on {data_directory}, which is not the data set that the run was trained on"]
    cache = shared_cache(no_cache)
    with interruptible(lambda: "the run is kept as it was trained, and the same command measures what is missing"):
        evaluation = evaluate_run(run, data, plugins=load(), open_progress=open_progress, cache=cache)
        answers = None
        if chosen:
            size = PolicySize(num)
            answers = evaluate_policy(run, data, chosen, size=size, open_progress=open_progress, cache=cache)
        report = report_run(run, data, notes=notes)
    for note in notes:
        say(note)
    gains = choosers({run.recipe.method.name: answers}) if answers else {}
    if as_json:
        found = [attrs.asdict(m) for m in evaluation.measurements]
        show_json([*found, *({"shown_by": name, **attrs.asdict(m)} for name, ms in gains.items() for m in ms)])
        return
    show(side_by_side({run.recipe.method.name: evaluation.measurements}, title=f"{data.name}, with 95 % intervals"))
    if gains:
        show(side_by_side(gains, title=f"true utility of what is shown, of {num} candidates"))
    show_text(verdict_of(run, data, evaluation.measurements, inside_of(run)).paragraph)
    say(f"report: {report}")


def _aligners(names: Sequence[str] | None, num: int, *, policy: bool, elsewhere: bool) -> list[Choice]:
    """Return the aligners to measure, those asked for first; none without --policy.

    Raises:
        OptionsError: all faults of the options.
    """
    from copl.align.judging import REFERENCES
    from copl.errors import OptionsError
    from copl.plugins import load
    from copl.runs.recipe import choose

    faults = [f"--num {num}: at least two candidates"] if num < 2 else []
    if names and not policy:
        faults.append("--aligner: give --policy as well")
    if policy and elsewhere:
        faults.append("--policy: users and prompts are those of the data set that the run was trained on; leave --data")
    wanted = dict.fromkeys((*(names or ("best-of-n",)), *REFERENCES)) if policy else {}
    chosen = [choose("aligner", {"name": name}, load(), faults) for name in wanted]
    if faults:
        raise OptionsError(faults)
    return [choice for choice in chosen if choice is not None]
