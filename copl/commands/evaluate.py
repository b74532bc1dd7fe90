"""``copl evaluate``: a run on held-out comparisons."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, final

import attrs
import typer

from copl.commands.parts.arguments import JSON_OPTION, NO_CACHE_OPTION, RUN_ARGUMENT, SET_OPTION, shared_cache
from copl.commands.parts.components import choose_components
from copl.commands.parts.display import open_progress, say, show, show_json, show_text
from copl.commands.parts.flags import takes_records
from copl.commands.parts.interrupts import interruptible

if TYPE_CHECKING:
    from copl.align.judging import PolicyResult, PolicySize
    from copl.evaluate.tables import Table
    from copl.runs.recipe import Choice


@final
@attrs.frozen(kw_only=True)
class _PolicyFlags:
    """What the command line says of --policy."""

    policy: Annotated[
        bool,
        typer.Option("--policy", help="Also measure what users are shown by its true utility, on simulated users."),
    ] = False
    aligners: Annotated[
        list[str] | None,
        typer.Option(
            "--aligner", metavar="NAME", help="With --policy: who decides; may be repeated. [default: best-of-n]"
        ),
    ] = None
    generator: Annotated[
        str | None,
        typer.Option("--generator", help="With --policy: who writes the candidates. [default: facets]"),
    ] = None
    num: Annotated[int, typer.Option("--num", "-n", help="With --policy: candidates for each prompt.")] = 8
    num_prompts: Annotated[int | None, typer.Option("--prompts", help="With --policy: at most so many prompts.")] = None
    num_users: Annotated[
        int | None, typer.Option("--users", help="With --policy: at most so many seen and so many unseen users.")
    ] = None
    assignments: SET_OPTION = None

    @property
    def size(self) -> PolicySize:
        """How much is measured."""
        from copl.align.judging import PolicySize

        return PolicySize(self.num, self.num_prompts, self.num_users)

    def chosen(self, *, elsewhere: bool) -> tuple[list[Choice], Choice] | None:
        """Return the aligners to measure, those asked for first, and who writes; None without --policy.

        Args:
            elsewhere: the run is measured on another data set than its own.

        Raises:
            OptionsError: all faults of the options.
        """
        from copl.align.judging import REFERENCES
        from copl.errors import OptionsError

        least = {"--num": (self.num, 2), "--prompts": (self.num_prompts, 1), "--users": (self.num_users, 1)}
        faults = [
            f"{flag} {value}: at least {smallest}"
            for flag, (value, smallest) in least.items()
            if value is not None and value < smallest
        ]
        given = {
            "--aligner": self.aligners,
            "--generator": self.generator,
            "--prompts": self.num_prompts,
            "--users": self.num_users,
            "--set": self.assignments,
        }
        faults += [f"{flag}: give --policy as well" for flag, value in given.items() if value and not self.policy]
        if self.policy and elsewhere:
            faults.append(
                "--policy: users and prompts are those of the data set that the run was trained on; leave --data"
            )
        own = tuple(dict.fromkeys(self.aligners or ("best-of-n",))) if self.policy else ()
        names = [{"aligner": name, "generator": self.generator or "facets"} for name in own]
        chosen = [choose_components(name, self.assignments or (), faults) for name in names]
        references = [{"aligner": name} for name in REFERENCES if name not in own] if chosen else []
        chosen += [choose_components(name, (), faults) for name in references]
        if faults:
            raise OptionsError(dict.fromkeys(faults))
        return ([choice["aligner"] for choice in chosen], chosen[0]["generator"]) if chosen else None


@takes_records
def evaluate(
    run_directory: RUN_ARGUMENT,
    *,
    data_directory: Annotated[
        Path | None, typer.Option("--data", help="Another data set than the one the run was trained on.")
    ] = None,
    flags: _PolicyFlags,
    details: Annotated[
        bool, typer.Option("--details", help="Also print every metric, by group, by number of comparisons and so on.")
    ] = False,
    as_json: JSON_OPTION = False,
    no_cache: NO_CACHE_OPTION = False,
) -> None:
    """Measure a run on held-out comparisons, new responses and unseen users; write metrics.json and report.html."""
    from copl.evaluate.tables import side_by_side
    from copl.plugins import load
    from copl.runs.directory import open_run
    from copl.runs.pipeline import evaluate as evaluate_run
    from copl.runs.pipeline import load_data
    from copl.runs.policy import choosers, evaluate_policy
    from copl.runs.reporting import Evaluated, inside_of, report_run
    from copl.runs.verdicts import verdict_of

    chosen = flags.chosen(elsewhere=data_directory is not None)
    run = open_run(run_directory, load())
    data, same = load_data(run, data_directory)
    run.require_held_out(same)
    notes = [] if same else [f"measured on {data_directory}, which is not the data set that the run was trained on"]
    cache = shared_cache(no_cache)
    with interruptible(lambda: "the run is kept as it was trained, and the same command measures what is missing"):
        evaluation = evaluate_run(run, data, plugins=load(), open_progress=open_progress, cache=cache)
        answers = None
        if chosen:
            answers = evaluate_policy(run, data, *chosen, size=flags.size, open_progress=open_progress, cache=cache)
        report = report_run(run, data, notes=notes)
    for note in notes:
        say(note)
    gains = choosers({run.recipe.method.name: answers}) if answers else {}
    if as_json:
        of_shown = [{"shown_by": name, **attrs.asdict(m)} for name, ms in gains.items() for m in ms]
        show_json([*map(attrs.asdict, evaluation.measurements), *of_shown])
        return
    measured = {run.recipe.method.name: evaluation.measurements}
    if details:
        show(side_by_side(measured, title=f"{data.name}, with 95 % intervals"))
    show(Evaluated({run.recipe.method.name: run}, data, measured).table)
    if answers:
        _show_answers(answers, side_by_side(gains, title=f"true utility of what is shown, of {flags.num} candidates"))
    verdict = verdict_of(run, data, evaluation.measurements, inside_of(run))
    show_text(f"\nIs it personal? In brackets: 95 % intervals.\n{verdict.text}")
    say(f"report: {report}")


def _show_answers(answers: PolicyResult, gains: Table) -> None:
    if answers.num_unread:
        say(f"of {answers.num_written} candidates, the style of {answers.num_unread} cannot be read; nobody saw them")
    show(gains)
