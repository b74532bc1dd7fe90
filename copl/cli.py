"""The `copl` program: a thin layer over `copl.runs.pipeline`; groups of commands are in `copl.commands`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from copl.commands import ablate, ask, config, data, export, plugins
from copl.commands.arguments import (
    ADAPTER_OPTION,
    BACKBONE_OPTION,
    CONFIG_OPTION,
    ENCODER_OPTION,
    GATE_OPTION,
    JSON_OPTION,
    METHOD_OPTION,
    NO_CACHE_OPTION,
    RUN_ARGUMENT,
    SEED_OPTION,
    SET_OPTION,
)
from copl.commands.display import open_progress, say, show, show_json, show_table
from copl.commands.interrupts import InterruptibleGroup, interruptible, kept_of_run
from copl.errors import CoplError

app = typer.Typer(
    name="copl",
    cls=InterruptibleGroup,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Learn what each user prefers from a few comparisons, and score any response for any user.",
)
app.add_typer(data.app, name="data")
app.add_typer(plugins.app, name="plugins")
app.add_typer(config.app, name="config")


def _print_version(asked: bool) -> None:
    if asked:
        from copl import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


@app.command()
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
    from copl.commands.demo import run_demo

    with interruptible(lambda: f"what is finished is kept in {out}, and the same command goes on from there"):
        run_demo(out, backbone=backbone, assignments=assignments or [], seed=seed or 0, use_cache=not no_cache)


@app.command()
def train(
    out: Annotated[Path, typer.Option("--out", "-o", help="Run directory to write.")],
    data: Annotated[Path | None, typer.Argument(metavar="DATA", help="Directory of the data set.")] = None,
    config: CONFIG_OPTION = None,
    method: METHOD_OPTION = None,
    encoder: ENCODER_OPTION = None,
    gate: GATE_OPTION = None,
    adapter: ADAPTER_OPTION = None,
    backbone: BACKBONE_OPTION = None,
    assignments: SET_OPTION = None,
    seed: SEED_OPTION = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in --out with the recipe and data it was started with.")
    ] = False,
    no_cache: NO_CACHE_OPTION = False,
) -> None:
    """Train a recipe on a data set; stages that are already computed are reused, a killed run continues."""
    from copl.commands.recipes import recipe_from_flags
    from copl.errors import OptionsError
    from copl.runs.directory import open_run
    from copl.runs.pipeline import train as train_run

    names = {"method": method, "encoder": encoder, "gate": gate, "adapter": adapter, "backbone": backbone}
    if resume:
        if config or assignments or seed is not None or any(names.values()):
            raise OptionsError("--resume takes the recipe from the run; drop the other options")
        from copl.plugins import load

        run = open_run(out, load())
        recipe, data = run.recipe, data or run.data_directory
    else:
        recipe = recipe_from_flags(config, names, assignments, seed)
    if data is None:
        raise OptionsError("DATA is missing: name the directory of a data set (`copl data make` writes one)")
    with interruptible(lambda: kept_of_run(out)):
        run, _ = train_run(recipe, data, out, open_progress=open_progress, cache=_cache(no_cache))
    say(f"run in {run.root}; next: copl evaluate {run.root}")


@app.command()
def evaluate(
    run_directory: RUN_ARGUMENT,
    data_directory: Annotated[
        Path | None, typer.Option("--data", help="Another data set than the one the run was trained on.")
    ] = None,
    as_json: JSON_OPTION = False,
    no_cache: NO_CACHE_OPTION = False,
) -> None:
    """Measure a run on held-out comparisons, new responses and unseen users; write metrics.json and report.html."""
    import attrs

    from copl.evaluate.tables import side_by_side
    from copl.plugins import load
    from copl.runs.directory import open_run
    from copl.runs.pipeline import evaluate as evaluate_run
    from copl.runs.pipeline import load_data
    from copl.runs.reporting import report_run

    run = open_run(run_directory, load())
    data, same = load_data(run, data_directory)
    notes = [] if same else [f"measured on {data_directory}, which is not the data set that the run was trained on"]
    with interruptible(lambda: "the run is kept as it was trained, and the same command measures what is missing"):
        found = evaluate_run(run, data, plugins=load(), open_progress=open_progress, cache=_cache(no_cache))
        report = report_run(run, data, notes=notes)
    for note in notes:
        say(note)
    if as_json:
        show_json([attrs.asdict(m) for m in found.measurements])
        return
    show(side_by_side({run.recipe.method.name: found.measurements}, title=f"{data.name}, with 95 % intervals"))
    say(f"report: {report}")


@app.command()
def adapt(
    run_directory: RUN_ARGUMENT,
    support: Annotated[
        Path, typer.Argument(help="Newcomers' comparisons: JSONL, CSV or Parquet rows, or a data set's directory.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of adapted users to write (.safetensors).")],
    as_json: JSON_OPTION = False,
) -> None:
    """Place unseen users among the trained ones from a few comparisons, without any training."""
    from copl.adapt.store import save_adapted
    from copl.data.requests import check_target, read_support
    from copl.model import Model

    check_target(out, support)
    comparisons = read_support(support, say)
    adapted = Model.open(run_directory).adapt(comparisons)
    save_adapted(adapted, out)
    columns = zip(adapted.user_ids, adapted.how, adapted.num_neighbours, adapted.confidence, strict=True)
    rows = [(user, how, str(int(near)), f"{sure:.2f}") for user, how, near, sure in columns]
    headers = ("user", "how", "neighbours", "confidence")
    if as_json:
        show_json([dict(zip(headers, row, strict=True)) for row in rows])
        return
    show_table(f"{len(rows)} adapted users (first 20)", headers, rows[:20])
    say(f"wrote {out}; next: copl score {run_directory} ROWS --users {out} --out FILE")


app.command("ask")(ask.ask)


@app.command()
def score(
    run_directory: RUN_ARGUMENT,
    rows_file: Annotated[
        Path, typer.Argument(metavar="ROWS", help="JSONL, CSV or Parquet rows of user_id, prompt and response.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File to write: the rows with a reward each.")],
    users: Annotated[Path | None, typer.Option("--users", help="Adapted users, from `copl adapt`.")] = None,
    average_unknown: Annotated[
        bool,
        typer.Option("--average-unknown", help="Score users neither trained nor adapted as the average user."),
    ] = False,
) -> None:
    """Score responses for users; each row of the output says whether the user is known."""
    from copl.adapt.store import load_adapted
    from copl.data.requests import check_score_target, read_score_rows, require_known, write_scores
    from copl.model import Model

    check_score_target(out, rows_file, *([users] if users else []))
    rows = read_score_rows(rows_file, say)
    adapted = load_adapted(users) if users else None
    model = Model.open(run_directory)
    known = model.known_users(rows.requests.users, adapted)
    if not average_unknown:
        require_known(rows, known)
    write_scores(out, rows, model.scores(rows.requests, adapted), known)
    say(f"wrote {len(rows.requests)} rewards to {out}")


app.command("export")(export.export)
app.command("ablate")(ablate.ablate)


@app.command()
def report(
    directory: Annotated[Path, typer.Argument(metavar="PATH", help="A run directory, or a directory of runs.")],
) -> None:
    """Write the HTML report of an evaluated run, or of several side by side."""
    from copl.runs.reporting import report_path

    say(f"report: {report_path(directory)}")


@app.command()
def doctor(as_json: JSON_OPTION = False) -> None:
    """Show what is installed and what is missing: versions, devices, backbones, optional libraries, plugins."""
    from copl.commands.doctor import examine

    findings = examine()
    if as_json:
        show_json([dict(zip(("what", "state", "detail"), f, strict=True)) for f in findings])
    else:
        show_table("copl doctor", ("what", "state", "detail"), findings)


def _cache(no_cache: bool) -> Path | None:
    from copl.system.files import cache_directory

    return None if no_cache else cache_directory()


def main() -> None:
    """Run the program: a user's mistake is one line a fault on standard error and exit code 2."""
    try:
        app()
    except CoplError as error:
        for fault in error.faults:
            say(f"copl: {fault}")
        sys.exit(2)
    except OSError as error:
        say(f"copl: {error}")
        sys.exit(2)


if __name__ == "__main__":
    main()
