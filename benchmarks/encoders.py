"""Accuracy, share of headroom recovered, time and memory of every graph encoder on planted graphs.

    python -m benchmarks.encoders

runs every registered encoder with its default options, and the published recipe (``gcf:paper``), on all cases with
three seeds, each fit in a process of its own. ``--cases 2x7 --encoders mf,gcf:paper --seeds 1`` runs a part;
``--case 5x9:num_groups=5,num_train=9`` adds a graph; ``--set gcf:paper.num_epochs=5`` changes an option. Finished
fits are kept beside the table (``.jsonl``) and skipped next time, as long as options and code are the same.

The published recipe repeats the whole propagation for every 1,024 comparisons and takes minutes an epoch. It keeps its
schedule of 100 epochs here, but stops after two epochs without a lower validation loss: after the best epoch, which is
kept, training on only overfits.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import attrs
import numpy as np

from benchmarks.measured import RESULTS, Cells, code_digest, markdown_table, measure, provenance
from benchmarks.planted_cases import CASES, accuracies, data_of, options_of
from copl.errors import CoplError, OptionsError, suggest
from copl.options import options_to_dict, parse_options
from copl.plugins import OWN_PACKAGE, load
from copl.runs import code, recipe
from copl.system.files import write_text

BAR = 0.90
"""Share of headroom that the default encoder is to recover."""

_OVERRIDES = {"gcf:paper": {"patience": "2"}}
_GRAPH_CODE = ("copl/graph", "copl/data/sources/planted")


@final
@attrs.frozen
class Entrant:
    """An encoder with options; `name` is that of the encoder, with the preset after a colon."""

    name: str
    options: Mapping[str, Any]
    code: str

    @property
    def encoder(self) -> str:
        return self.name.partition(":")[0]


def entrant(name: str, assignments: Mapping[str, str]) -> Entrant:
    """Return the entrant called ``encoder`` or ``encoder:preset``.

    Raises:
        OptionsError: all faults of the options; there is no such preset.
        UnknownComponentError: there is no such encoder.
    """
    encoder, _, preset = name.partition(":")
    registered = load().registry("encoder").get(encoder)
    component = registered.component
    if preset and preset not in component.presets:
        raise OptionsError(f"encoder {encoder!r} has no preset {preset!r}{suggest(preset, component.presets)}")
    values = {**(component.presets[preset] if preset else {}), **_OVERRIDES.get(name, {}), **assignments}
    options = options_to_dict(parse_options(component.options, values, where=f"encoder.{name}"))
    own = registered.package == OWN_PACKAGE
    return Entrant(name, options, code_digest(*_GRAPH_CODE) if own else code.code_digest(component.build))


def fit_cell(options: dict[str, float], seed: int, encoder: str, encoder_options: dict[str, Any]) -> dict[str, Any]:
    """Fit one encoder on one graph; return accuracies on held-out comparisons, time and memory."""
    from copl.graph.build import build_graph
    from copl.system.progress import SilentProgress

    data = data_of(options, seed)
    graph = build_graph(data)
    built = load().registry("encoder").create(encoder, encoder_options)
    with measure() as usage:
        embeddings = built.fit(graph, seed=seed, progress=SilentProgress())
    return {**accuracies(embeddings, data), **attrs.asdict(usage), "dim": embeddings.dim}


@final
@attrs.frozen
class Study:
    """What is measured: cases by name with their options, entrants, seeds."""

    cases: Mapping[str, Mapping[str, Any]]
    entrants: Sequence[Entrant]
    seeds: Sequence[int]


@final
@attrs.define
class Findings:
    """Results by case and seed, and by case, entrant and seed."""

    limits: dict[tuple[str, int], dict[str, Any]] = attrs.field(factory=dict)
    fits: dict[tuple[str, str, int], dict[str, Any]] = attrs.field(factory=dict)


def run(study: Study, cells: Cells, *, threads: int, timeout: float | None) -> Findings:
    """Compute all cells that are not there yet, entrants in turn on each graph, so that other load hits all alike."""
    found = Findings()
    limits_code = code_digest("copl/data/sources/planted", "benchmarks/limits.py")
    for case, options in study.cases.items():
        for seed in study.seeds:
            where = {"options": dict(options), "seed": seed}
            cell = {"what": "limits", **where, "code": limits_code}
            target = "benchmarks.planted_cases:limits_cell"
            found.limits[case, seed] = cells.compute(target, cell, where, threads=threads, timeout=timeout)
            for one in study.entrants:
                arguments = {**where, "encoder": one.encoder, "encoder_options": dict(one.options)}
                cell = {"what": "fit", **arguments, "code": one.code, "threads": threads}
                result = cells.compute(
                    "benchmarks.encoders:fit_cell", cell, arguments, threads=threads, timeout=timeout
                )
                found.fits[case, one.name, seed] = result
                shown = result.get("error") or f"accuracy {result['all']:.4f}, {result['wall_s']:.1f} s"
                print(f"{case} seed {seed} {one.name}: {shown}", file=sys.stderr, flush=True)
    return found


def headroom(found: Findings, case: str, name: str, seed: int) -> float:
    """Return (accuracy - consensus) / (limit - consensus), NaN where one of them is missing."""
    known, fit = found.limits[case, seed], found.fits[case, name, seed]
    if "error" in known or "error" in fit:
        return float("nan")
    room = known["limit"] - known["consensus"]
    return (fit["all"] - known["consensus"]) / room if room > 0 else float("nan")


def mean_of(values: Iterable[float], form: str) -> str:
    """Return the mean over seeds with its 95 % interval (Student's t), a dash where nothing finished."""
    from scipy.stats import t

    numbers = np.array([value for value in values if np.isfinite(value)])
    if not len(numbers):
        return "-"
    text = format(float(numbers.mean()), form)
    if len(numbers) > 1:
        error = numbers.std(ddof=1) / np.sqrt(len(numbers))
        text += f" ± {format(float(t.ppf(0.975, len(numbers) - 1) * error), form)}"
    return text


def median_of(values: Iterable[float], form: str) -> str:
    """Return the median over seeds, a dash where nothing finished."""
    numbers = [value for value in values if np.isfinite(value)]
    return format(float(np.median(numbers)), form) if numbers else "-"


def _column(found: Findings, study: Study, case: str, name: str, field: str) -> list[float]:
    return [float(found.fits[case, name, seed].get(field, "nan")) for seed in study.seeds]


def _shares(found: Findings, study: Study, case: str, name: str) -> list[float]:
    return [headroom(found, case, name, seed) for seed in study.seeds]


def report(study: Study, found: Findings, command: str, *, threads: int) -> str:
    """Return the tables."""
    default = recipe.DEFAULTS["encoder"]
    seeds = ", ".join(map(str, study.seeds)) + (" (single run)" if len(study.seeds) == 1 else "")
    facts = [
        f"seeds: {seeds}; intervals are 95 % over seeds, each with a graph of its own",
        "time and memory: of the fit alone in a process of its own, medians over seeds; peak of the whole process",
        *(f"`{name}`: with {options}" for name, options in _changed(study)),
    ]
    lines = ["# Graph encoders on planted graphs", "", *provenance(command, threads=threads, facts=facts), ""]
    lines += [
        "Share of headroom recovered on held-out comparisons of seen users, on pairs that others have judged:",
        f"(accuracy - consensus) / (limit - consensus). The default, `{default}`, is to reach {BAR:.2f}. The limit is",
        "belief propagation told everything but the labels and the groups; the mixture is told the number of groups.",
        "",
    ]
    order = sorted(
        (one.name for one in study.entrants),
        key=lambda name: -float(np.nan_to_num(_overall(found, study, name), nan=-9)),
    )
    rows = [
        [
            f"**{name}**" if name == default else name,
            *(mean_of(_shares(found, study, case, name), ".3f") for case in study.cases),
        ]
        for name in order
    ]
    lines += markdown_table(["encoder", *study.cases], rows)
    for case, options in study.cases.items():
        lines += ["", f"## {case}", "", _described(found, study, case, options), ""]
        known = [
            [name, mean_of((found.limits[case, s].get(key, float("nan")) for s in study.seeds), ".4f")] + [""] * 6
            for name, key in (("limit", "limit"), ("mixture", "mixture"), ("consensus by pair", "consensus"))
        ]
        header = ["encoder", "accuracy", "controversial", "common", "headroom", "wall s", "CPU s", "peak MiB"]
        lines += markdown_table(header, [*known, *(_row(found, study, case, name) for name in order)])
        lines += [f"\n{fault}" for fault in _faults(found, study, case)]
    return "\n".join(lines) + "\n"


def _overall(found: Findings, study: Study, name: str) -> float:
    shares = np.array([share for case in study.cases for share in _shares(found, study, case, name)])
    return float(np.mean(shares[np.isfinite(shares)])) if np.isfinite(shares).any() else float("nan")


def _row(found: Findings, study: Study, case: str, name: str) -> list[str]:
    columns = {"all": ".4f", "controversial": ".4f", "common": ".4f"}
    costs = {"wall_s": ".1f", "cpu_s": ".1f", "peak_mib": ".0f"}
    return [
        name,
        *(mean_of(_column(found, study, case, name, key), form) for key, form in columns.items()),
        mean_of(_shares(found, study, case, name), ".3f"),
        *(median_of(_column(found, study, case, name, key), form) for key, form in costs.items()),
    ]


def _described(found: Findings, study: Study, case: str, options: Mapping[str, Any]) -> str:
    first = found.limits[case, study.seeds[0]]
    return (
        f"{options['num_seen_users']:,} users in {options['num_groups']} groups, {options['num_train']} training "
        f"comparisons each, {options['num_pairs']:,} pairs of which {options['cold_share']:.0%} are never trained on, "
        f"{options['controversial_share']:.0%} controversial, {options['label_noise']:.0%} label noise; "
        f"{first.get('asked', 0):,} held-out comparisons; data of the first seed {first.get('digest', 'unknown')}."
    )


def _faults(found: Findings, study: Study, case: str) -> list[str]:
    return [
        f"{one.name}, seed {seed}: {found.fits[case, one.name, seed]['error']}"
        for one in study.entrants
        for seed in study.seeds
        if "error" in found.fits[case, one.name, seed]
    ]


def _changed(study: Study) -> list[tuple[str, str]]:
    changes = []
    for one in study.entrants:
        component = load().registry("encoder").get(one.encoder).component
        usual = options_to_dict(parse_options(component.options, {}, where=one.name))
        preset = one.name.partition(":")[2]
        if preset:
            usual |= dict(component.presets[preset])
        values = {key: value for key, value in one.options.items() if usual.get(key) != value}
        if values:
            changes.append((one.name, ", ".join(f"{key} = {value}" for key, value in values.items())))
    return changes


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.encoders", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--cases", default=",".join(CASES), help=f"cases to run, of {', '.join(CASES)}; none for none")
    parser.add_argument("--case", action="append", default=[], metavar="NAME:K=V,…", help="a further graph")
    parser.add_argument("--encoders", default="all", help="encoders, encoder:preset for a preset; all for all")
    parser.add_argument("--set", action="append", default=[], metavar="ENCODER.K=V", help="an option of an entrant")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds, counted from 0")
    parser.add_argument("--scale", type=float, default=1.0, help="factor on the numbers of users and pairs")
    parser.add_argument("--threads", type=int, default=2, help="threads of each fit")
    parser.add_argument("--timeout", type=float, help="seconds after which a fit is given up")
    parser.add_argument("--out", type=Path, default=RESULTS / "encoders.md", help="file of the tables")
    return parser.parse_args(arguments)


def study_of(wanted: argparse.Namespace) -> Study:
    """Return the study that the arguments describe.

    Raises:
        CoplError: all faults of one part.
    """
    graphs: dict[str, dict[str, Any]] = {}
    for name in filter(None, wanted.cases.split(",")):
        if name not in CASES and name != "none":
            raise OptionsError(f"unknown case {name!r}{suggest(name, CASES)}; there are {', '.join(CASES)}")
        graphs |= {name: dict(CASES[name])} if name in CASES else {}
    for text in wanted.case:
        name, _, values = text.partition(":")
        graphs[name] = {key: value for key, _, value in (part.partition("=") for part in values.split(","))}
    assignments: dict[str, dict[str, str]] = {}
    for text in wanted.set:
        target, _, value = text.partition("=")
        name, _, key = target.rpartition(".")
        assignments.setdefault(name, {})[key] = value
    names = wanted.encoders.split(",")
    if wanted.encoders == "all":
        names = [*load().registry("encoder").names(), *_OVERRIDES]
    stray = sorted(set(assignments) - set(names))
    if stray:
        raise OptionsError(f"--set {stray[0]}: not among the encoders {', '.join(names)}")
    return Study(
        {name: options_to_dict(options_of(case, wanted.scale)) for name, case in graphs.items()},
        [entrant(name, assignments.get(name, {})) for name in names],
        list(range(wanted.seeds)),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    wanted = _parse(arguments)
    try:
        study = study_of(wanted)
    except CoplError as error:
        sys.exit("\n".join(error.faults))
    cells = Cells(wanted.out.with_suffix(".jsonl"))
    found = run(study, cells, threads=wanted.threads, timeout=wanted.timeout)
    command = " ".join(["python -m benchmarks.encoders", *(sys.argv[1:] if arguments is None else arguments)])
    write_text(wanted.out, report(study, found, command, threads=wanted.threads))
    print(wanted.out)


if __name__ == "__main__":
    main()
