"""From run directories to a report: one run alone, or several side by side with paired differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

from attrs import asdict, evolve, frozen

from copl.data.chat import decode_prompt
from copl.data.checking.description import describe_data, description_rows
from copl.errors import RunError
from copl.evaluate.examples import examples
from copl.evaluate.report import TEMPLATE, ReportInputs, Why, render_report
from copl.evaluate.tables import Table, held_out, methods_table
from copl.plugins import load
from copl.records import SPLITS, Diagnostics, Measurement, PreferenceData
from copl.runs.code import code_digest
from copl.runs.directory import LOG_FILE, REPORT_FILE, Run, open_run
from copl.runs.explaining import Reasons, load_reasons
from copl.runs.keeping import digest_of, is_page_of, sealed
from copl.runs.pipeline import differences, load_data
from copl.runs.policy import answers_page, policy_of
from copl.runs.results import evaluation_of, load_diagnostics, load_margins, read_metrics
from copl.runs.stages import read_stage
from copl.runs.verdicts import verdict_of
from copl.system.files import write_text
from copl.system.progress import read_log

_EMPTY = Diagnostics()
_LENGTH = 160
"""Characters of a text that a line of an explanation shows."""
_NUM_SHOWN = 3
"""Answers of a source that an explanation shows; the others are one line."""


@final
@frozen(eq=False)
class Evaluated:
    """Evaluated runs on one data set, side by side.

    Attributes:
        runs: by the name to show.
        data: the data set they were evaluated on.
        measurements: of each run, with its differences to the others (`compared`).
    """

    runs: Mapping[str, Run]
    data: PreferenceData
    measurements: Mapping[str, Sequence[Measurement]]

    @classmethod
    def of(cls, runs: Mapping[str, Run], data: PreferenceData) -> Evaluated:
        """Compare runs on a data set.

        Raises:
            RunError: a run has not been evaluated, or on other data.
        """
        return cls(runs, data, compared(runs, data))

    @classmethod
    def read(cls, directory: Path) -> Evaluated:
        """Compare the run of a directory, or the runs in it.

        Raises:
            RunError: there is no evaluated run.
        """
        return cls.of(*_runs_of(directory))

    @property
    def table(self) -> Table:
        """The accuracies that a report shows."""
        return methods_table(held_out(self.measurements), title=f"accuracy on {self.data.name}, with 95 % intervals")


def _runs_of(directory: Path) -> tuple[dict[str, Run], PreferenceData]:
    """Return the run of a directory, or the runs in it, by the name to show, and the data they were measured on.

    Raises:
        RunError: there is none, or none that held anything back.
    """
    plugins = load()
    if (directory / "run.json").is_file():
        run = open_run(directory, plugins)
        run.require_held_out(same_data=True)
        return {run.recipe.method.name: run}, load_data(run)[0]
    runs = [open_run(path.parent, plugins) for path in sorted(directory.glob("*/run.json"))]
    if not runs:
        raise RunError(f"{directory}: neither a run directory nor a directory of runs")
    runs = [run for run in runs if not run.facts.data.everyone] or runs  # those have nothing to be measured by
    runs[0].require_held_out(same_data=True)
    data, _ = load_data(runs[0])
    return {run.root.name: run for run in runs}, data


def report_run(run: Run, data: PreferenceData, *, notes: Sequence[str] = ()) -> Path:
    """Write the report of one run into its directory."""
    return write_report(Evaluated.of({run.recipe.method.name: run}, data), run.root / REPORT_FILE, notes=notes)


def write_report(evaluated: Evaluated, out: Path, *, notes: Sequence[str] = ()) -> Path:
    """Write one report of several evaluated runs on one data set; one that is there and says the same is kept.

    Args:
        evaluated: the runs; the inside of the first one that has any is shown.
        out: file to write.
        notes: what there is to say beside the figures.
    """
    runs, data, measurements = evaluated.runs, evaluated.data, evaluated.measurements
    insides = {name: inside_of(run) for name, run in runs.items()}
    inside = next((d for d in insides.values() if d.user_ids), _EMPTY)
    first = next(iter(runs.values()))
    inputs = ReportInputs(
        title=f"{', '.join(runs)} on {data.name}",
        verdicts={name: verdict_of(run, data, measurements[name], insides[name]) for name, run in runs.items()},
        measurements=measurements,
        curves=_curves(runs),
        user_ids=inside.user_ids,
        user_embeddings=inside.user_embeddings,
        groups=dict(zip(data.users.ids, data.users.groups, strict=True)),
        expert_weights=inside.expert_weights,
        data=tuple(description_rows(describe_data(data))),
        examples=[
            evolve(e, prompt=_read(e.prompt)) for e in examples(load_margins(evaluation_of(first.root), data), data)
        ],
        facts=_facts(first),
        notes=notes,
        inside=inside.notes,
        why=[_why(reasons) for reasons in load_reasons(evaluation_of(first.root))],
        answers=answers_page({name: policy for name, run in runs.items() if (policy := policy_of(run, data))}),
    )
    made_of = digest_of(inputs, code_digest(render_report), TEMPLATE.read_text(encoding="utf-8"))
    if not is_page_of(out, made_of):  # to draw the pictures takes longer than all the rest
        write_text(out, sealed(render_report(inputs), made_of))
    return out


def compared(runs: Mapping[str, Run], data: PreferenceData) -> dict[str, list[Measurement]]:
    """Return the measurements of each run, with its paired differences to the best that knows no users.

    That is, on each split, the most accurate of the runs whose method knows none: what there is to be gained by knowing
    users is gained over that. Without such a run there are no differences.

    Raises:
        RunError: a run has not been evaluated, or on other data, or as another run.
    """
    faults: list[str] = []
    digest = data.digest(*SPLITS)
    for run in runs.values():
        try:
            made_of = read_stage(evaluation_of(run.root)).inputs
            if made_of.get("data") != digest:
                faults.append(f"{run.root}: evaluated on other data than {data.name}; run `copl evaluate {run.root}`")
            elif made_of.get("fitted") != run.fingerprint:
                faults.append(
                    f"{run.root}: what lies in {evaluation_of(run.root)} is of another run, or of this one before it "
                    f"was trained anew; run `copl evaluate {run.root}`"
                )
        except RunError as error:
            faults += error.faults
    if faults:
        raise RunError(faults)
    measurements = {name: read_metrics(run.root) for name, run in runs.items()}
    reference = _references(runs, measurements)
    margins = {name: load_margins(evaluation_of(run.root), data) for name, run in runs.items()}
    for name, run in runs.items():
        for other in sorted({*reference.values()} - {name}):
            shared = {split: values for split, values in margins[name].items() if reference.get(split) == other}
            measurements[name] += differences(shared, margins[other], data, versus=other, seed=run.recipe.seed)
    return measurements


def _references(runs: Mapping[str, Run], measurements: Mapping[str, Sequence[Measurement]]) -> dict[str, str]:
    """Return by split the most accurate of the runs that know no users; among equals the first."""
    best: dict[str, tuple[float, str]] = {}
    for name in (name for name, run in runs.items() if not run.recipe.personal):
        for m in measurements[name]:
            if (m.metric, m.subset) == ("accuracy", "all") and m.value > best.get(m.split, (-1.0, ""))[0]:
                best[m.split] = m.value, name
    return {split: name for split, (_, name) in best.items()}


def _read(prompt: str) -> str:
    """Return a prompt as a person reads it: text, or the messages of a conversation one below the other."""
    said = decode_prompt(prompt)
    return said if isinstance(said, str) else "\n".join(f"{m['role']}: {m['content']}" for m in said)


def _why(reasons: Reasons) -> Why:
    shown = reasons.lines(num_shown=_NUM_SHOWN, length=_LENGTH)
    lines = [(f"{line.amount:+.3f}", line.words, line.is_detail) for line in shown]
    sure = f"{reasons.user} chooses the first with a chance of {reasons.probability:.0%}"
    return Why(
        reasons.user, _read(reasons.prompt), reasons.title(_LENGTH), f"{reasons.score:+.3f}", tuple(lines),
        f"The score is known to ±{reasons.deviation:.3f}; {sure}.",
    )  # fmt: skip


def inside_of(run: Run) -> Diagnostics:
    """Return what an evaluated run has shown of its inside."""
    return load_diagnostics(evaluation_of(run.root))


def _curves(runs: Mapping[str, Run]) -> list[Mapping[str, object]]:
    several = len(runs) > 1
    return [
        {**record, "method": name} if several else record
        for name, run in runs.items()
        for record in read_log(run.root / LOG_FILE)
    ]


def _facts(run: Run) -> dict[str, object]:
    facts = run.facts
    return {
        "command": facts.command,
        "created": facts.created,
        "seconds": facts.seconds,
        "seed": run.recipe.seed,
        "data": asdict(facts.data),
        "components": {
            kind: f"{about.name} ({about.package} {about.version})" for kind, about in facts.components.items()
        },
        "versions": facts.versions,
    }
