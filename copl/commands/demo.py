"""``copl demo``: the whole pipeline on the embedded corpus, `copl` beside its baselines."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from copl.commands.parts.arguments import BACKBONE_OPTION, NO_CACHE_OPTION, SEED_OPTION, SET_OPTION, shared_cache
from copl.commands.parts.components import choose_components
from copl.commands.parts.display import open_progress, say, show, show_text
from copl.commands.parts.interrupts import interruptible

if TYPE_CHECKING:
    from copl.records import PreferenceData
    from copl.runs.directory import Run
    from copl.runs.recipe import Choice, Draft, Recipe

METHODS = ("copl", "btl", "graph")
"""What the demo compares: the method, one reward model for everybody, the graph without text."""

_CANDIDATES, _PROMPTS, _USERS = 8, 12, 100
"""What the demo shows users: so many candidates to so many new prompts, to so many seen and unseen users."""


def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory for the data set, the runs and the report.")] = (
        Path("demo-run")
    ),
    backbone: BACKBONE_OPTION = None,
    assignments: SET_OPTION = None,
    seed: SEED_OPTION = None,
    no_cache: NO_CACHE_OPTION = False,
) -> None:
    """The main job on the embedded corpus: train `copl` beside baselines, evaluate, adapt to newcomers, report."""
    from copl.data.dataset import load_dataset
    from copl.runs.recipe import parse_assignments

    started = time.monotonic()
    settings = parse_assignments(assignments or [])
    source = settings.pop("source", {})
    recipes = _recipes(backbone, settings, seed or 0)
    with interruptible(lambda: f"what is finished is kept in {out}, and the same command goes on from there"):
        _make_data(out / "data", source, seed or 0)
        data = load_dataset(out / "data")
        say(f"data: {data.name}, {len(data.users)} users, {len(data.split('train'))} training comparisons")
        report = _compare(_train(recipes, out, data, shared_cache(no_cache)), out, data)
    say(f"report: {report}  ({time.monotonic() - started:.0f} s)")


def _recipes(backbone: str | None, settings: Draft, seed: int) -> dict[str, Recipe]:
    """Return the recipe of each method; nothing is written yet where one will not do."""
    from copl.plugins import load
    from copl.runs.recipe import merge, resolve

    chosen: Draft = {"backbone": {"name": backbone}} if backbone else {}
    recipes = {
        name: resolve(merge({"method": {"name": name}}, chosen, settings), load(), seed=seed) for name in METHODS
    }
    for recipe in recipes.values():
        if "backbone" in recipe.stages.parts:
            recipe.stages.backbone().fingerprint()  # an error now, rather than with half a demo on disk
    return recipes


def _make_data(directory: Path, options: Mapping[str, str], seed: int) -> None:
    from copl.data.dataset import save_dataset
    from copl.plugins import load

    source = load().registry("source").create("facets", options)
    if not directory.exists():
        save_dataset(source.load(seed=seed), directory)


def _train(recipes: Mapping[str, Recipe], out: Path, data: PreferenceData, cache: Path | None) -> dict[str, Run]:
    from copl.align.judging import PolicySize
    from copl.plugins import load
    from copl.runs.pipeline import evaluate, train
    from copl.runs.policy import evaluate_policy

    runs: dict[str, Run] = {}
    for name, recipe in recipes.items():
        say(f"training {name}")
        run, method = train(recipe, out / "data", out / name, open_progress=open_progress, cache=cache)
        evaluate(run, data, plugins=load(), open_progress=open_progress, cache=cache, method=method)
        runs[name] = run
        if _can_show(data):
            evaluate_policy(
                run,
                data,
                *_shown(references=name == METHODS[0]),
                size=PolicySize(_CANDIDATES, _PROMPTS, _USERS),
                open_progress=open_progress,
                cache=cache,
                method=method,
            )
    return runs


def _shown(*, references: bool) -> tuple[list[Choice], Choice]:
    """Return who decides what users are shown, and who writes it."""
    from copl.align.judging import REFERENCES

    names = ("best-of-n", *(REFERENCES if references else ()))
    writer = choose_components({"generator": "facets"}, (), [])["generator"]
    return [choose_components({"aligner": name}, (), [])["aligner"] for name in names], writer


def _can_show(data: PreferenceData) -> bool:
    """Whether there are prompts that nothing is trained on."""
    from copl.align.judging import new_prompts
    from copl.errors import DataError

    try:
        return bool(new_prompts(data))
    except DataError:
        return False


def _compare(runs: Mapping[str, Run], out: Path, data: PreferenceData) -> Path:
    """Print the table, write the report and return its path."""
    from copl.evaluate.findings import findings
    from copl.evaluate.paired import VERSUS
    from copl.evaluate.tables import held_out, methods_table
    from copl.runs.directory import REPORT_FILE
    from copl.runs.reporting import Evaluated, write_report

    evaluated = Evaluated.of(runs, data)
    measurements = held_out(evaluated.measurements)
    report = write_report(evaluated, out / REPORT_FILE)
    show(methods_table(measurements, title="accuracy on held-out comparisons (95 % interval)"))
    for sentence in findings({"copl": [m for m in measurements["copl"] if m.subset == f"{VERSUS}btl"]}):
        show_text(sentence)
    _show_answers(runs, data)
    return report


def _show_answers(runs: Mapping[str, Run], data: PreferenceData) -> None:
    """Print what users gain, and one prompt with the answers that two users of different taste are shown."""
    from copl.evaluate.policy import policy_table
    from copl.runs.policy import choosers, policy_of

    results = {name: policy for name, run in runs.items() if (policy := policy_of(run, data))}
    if not results:
        return
    title = f"true utility of what is shown, of {_CANDIDATES} answers: 0 a random one, 1 the best (95 % interval)"
    show(policy_table(choosers(results), title=title))
    for example in next(iter(results.values())).examples[:1]:
        show_text(f"of {_CANDIDATES} answers, what is shown to two users of different taste: {example.prompt}")
        for shown in example.shown:
            show_text(f"  {shown.user_id} ({shown.group}), gain {shown.gain:.2f}:")
            show_text("    " + shown.text.replace("\n", "\n    "))
