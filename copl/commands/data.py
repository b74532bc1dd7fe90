"""``copl data``: fetch, make, describe and check data sets, add to them and forget users."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from copl.commands.parts.arguments import (
    BACKBONE_OPTION,
    COMPONENT_SET_OPTION,
    DATA_ARGUMENT,
    JSON_OPTION,
    SEED_OPTION,
    component_values,
)
from copl.commands.parts.display import open_progress, say, show_json, show_table

if TYPE_CHECKING:
    from copl.data.checking.findings import Finding
    from copl.records import PreferenceData

app = typer.Typer(no_args_is_help=True, help="Fetch, make, describe, check, grow and shrink data sets.")

OUT_OPTION: TypeAlias = Annotated[Path, typer.Option("--out", "-o", help="Directory to write the data set to.")]
OVERWRITE_OPTION: TypeAlias = Annotated[bool, typer.Option("--overwrite", help="Replace a data set that is there.")]


@app.command("sources")
def sources(as_json: JSON_OPTION = False) -> None:
    """List the sources a data set can be made from."""
    from copl.plugins import load

    rows = [(r.component.name, r.component.summary, r.package) for r in load().registry("source")]
    if as_json:
        show_json([dict(zip(("name", "summary", "package"), row, strict=True)) for row in rows])
    else:
        show_table("Sources; options: copl plugins show source NAME", ("source", "what it is", "package"), rows)


@app.command("fetch")
def fetch_command(
    name: Annotated[str | None, typer.Argument(help="What to fetch; without a name, what there is.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Directory of the files; downloads/NAME unless named.")
    ] = None,
    as_json: JSON_OPTION = False,
) -> None:
    """Fetch public votes or comparisons from where they are published, and check them.

    Files that are there are only checked, so copies brought from another machine do without a connection.
    """
    from copl.data.fetching import DOWNLOADS, PUBLICATIONS, fetch, publication

    if name is None:
        rows = [(entry.name, entry.source, entry.licence, entry.address) for entry in PUBLICATIONS]
        heads = ("name", "source", "licence", "address")
        if as_json:
            show_json([dict(zip(heads, row, strict=True)) for row in rows])
        else:
            show_table("To fetch; then: copl data make SOURCE --set path=downloads/NAME", heads, rows)
        return
    published = publication(name)
    directory = out or DOWNLOADS / name
    states = fetch(published, directory)
    if as_json:
        show_json({"directory": str(directory), "files": states, "licence": published.licence})
        return
    show_table(f"In {directory}", ("file", "state"), list(states.items()))
    say(f"licence {published.licence}: {published.attribution}")
    say(f"next: copl data make {published.source} --set path={directory} --out DATA")


@app.command("make")
def make(
    source: Annotated[str, typer.Argument(help="Name of the source, see `copl data sources`.")],
    out: OUT_OPTION,
    assignments: COMPONENT_SET_OPTION = None,
    seed: SEED_OPTION = None,
    overwrite: OVERWRITE_OPTION = False,
    as_json: JSON_OPTION = False,
) -> None:
    """Read or generate a data set, split it, check it and write it to a directory."""
    from copl.interfaces import ShowsProgress
    from copl.plugins import load

    values = component_values(assignments)
    _require_free(out, overwrite)
    chosen = load().registry("source").create(source, values)
    with open_progress(None) as progress:
        data = (chosen.showing(progress) if isinstance(chosen, ShowsProgress) else chosen).load(seed=seed or 0)
    _write(data, out, overwrite, as_json)


@app.command("add")
def add(
    data_directory: DATA_ARGUMENT,
    rows_file: Annotated[
        Path, typer.Argument(metavar="NEW", help="JSONL, CSV or Parquet rows of every kind, as for `copl data make`.")
    ],
    out: OUT_OPTION,
    assignments: COMPONENT_SET_OPTION = None,
    overwrite: OVERWRITE_OPTION = False,
    as_json: JSON_OPTION = False,
) -> None:
    """Add comparisons to a data set; those that are there keep their splits, and what is there already is left out.

    Options are columns=user_id=worker,... and contradictions=keep or drop.
    """
    import attrs

    from copl.data.adding import add_said
    from copl.data.living import AddOptions, add_rows
    from copl.data.making.mixed import collect_rows, is_mixed
    from copl.data.making.notes import Note, left_out
    from copl.data.reading.rows import parse_rows
    from copl.data.sources.tables import read_table
    from copl.errors import DataError, OptionsError
    from copl.options import parse_options

    options = parse_options(AddOptions, component_values(assignments), where="data add")
    _require_free(out, overwrite)
    data, instead_of = _to_change(data_directory, out)
    table = read_table(rows_file)
    if is_mixed(table, options.columns):
        if options != attrs.evolve(AddOptions(), columns=options.columns):
            raise OptionsError("data add: contradictions is for comparisons alone; else what was said last counts")
        collected, notes = collect_rows(table, options.columns)
        if collected.names_splits:
            raise DataError(f"{rows_file}: rows of every kind go where their users are; leave out the column of splits")
        said = collected.as_set()
        remarks: tuple[Note, ...] = (*notes, *left_out(collected.left_out, f"rows of {rows_file.name}"))
        for note in remarks:
            say(str(note))
        grown = add_said(data, said, name=rows_file.name, notes=remarks, tell=say)
    else:
        rows = parse_rows(table, options.columns)
        for note in rows.notes:
            say(note)
        grown = add_rows(data, rows, options, name=rows_file.name, tell=say)
    before, after = (_size(one) for one in (data, grown))
    _write(grown, out, overwrite, as_json, instead_of)
    kind = "judgements" if grown.judgements else "comparisons"
    say(f"{after - before:,} of {len(table):,} {kind} were added; {after:,} in all")


def _size(data: PreferenceData) -> int:
    comparisons = sum(len(part) for part in data.splits.values())
    return comparisons + sum(len(part) for part in data.judgements.values())


@app.command("forget")
def forget(
    data_directory: DATA_ARGUMENT,
    users: Annotated[list[str], typer.Option("--user", metavar="ID", help="Id of a user to forget; may be repeated.")],
    out: OUT_OPTION,
    overwrite: OVERWRITE_OPTION = False,
    as_json: JSON_OPTION = False,
) -> None:
    """Leave users out of a data set, with the texts that only they judged; everything else stays as it is."""
    from copl.data.forgetting import forget_users
    from copl.data.requests import user_named

    _require_free(out, overwrite)
    data, instead_of = _to_change(data_directory, out)
    _write(forget_users(data, list(map(user_named, users))), out, overwrite, as_json, instead_of)


def _to_change(directory: Path, out: Path) -> tuple[PreferenceData, str | None]:
    """Return a data set, and its fingerprint where it is to be replaced by what is made of it."""
    from copl.data.dataset import dataset_fingerprint, load_dataset

    instead_of = dataset_fingerprint(directory) if out.resolve() == directory.resolve() else None
    return load_dataset(directory), instead_of


def _require_free(out: Path, overwrite: bool) -> None:
    """Refuse a directory that may not be written to, before the work."""
    from copl.data.dataset import check_free
    from copl.errors import OptionsError

    if out.exists() and any(out.iterdir() if out.is_dir() else [out]) and not overwrite:
        raise OptionsError(f"{out}: exists; choose another --out or add --overwrite")
    check_free(out, overwrite)


def _write(data: PreferenceData, out: Path, overwrite: bool, as_json: bool, instead_of: str | None = None) -> None:
    """Write a data set, show what it holds, and say what is wrong with it."""
    from copl.data.checking.checks import check
    from copl.data.dataset import save_dataset

    save_dataset(data, out, overwrite=overwrite, instead_of=instead_of)
    findings = check(data)
    _describe(data, findings, as_json)
    for finding in findings if as_json else ():
        if finding.severity != "info":
            say(f"{finding.severity}: {finding.what} ({finding.where}); {finding.advice}")


@app.command("describe")
def describe(data: DATA_ARGUMENT, as_json: JSON_OPTION = False) -> None:
    """Show what to know before trusting a result: counts, lengths, trivial rules, and all findings."""
    from copl.data.checking.checks import check
    from copl.data.dataset import load_dataset

    loaded = load_dataset(data)
    _describe(loaded, check(loaded), as_json)


def _describe(data: Any, findings: Any, as_json: bool) -> None:
    from copl.data.checking.description import describe_data, description_rows

    description = describe_data(data, findings)
    if as_json:
        show_json(description)
        return
    show_table(f"Data set {data.name}", ("what", "value"), description_rows(description))


@app.command("check")
def check_command(data: DATA_ARGUMENT, backbone: BACKBONE_OPTION = None, as_json: JSON_OPTION = False) -> None:
    """Look for what makes results wrong: leaks, shortcuts, contradictions, users nobody shares a response with.

    With a backbone, also for responses that its tokenizer cannot tell apart. Exits with 2 when there is an error, and
    with 0 otherwise.
    """
    import attrs

    from copl.data.checking.checks import check
    from copl.data.dataset import load_dataset

    loaded = load_dataset(data)
    findings = [*check(loaded), *(_token_findings(loaded, backbone) if backbone else ())]
    if as_json:
        show_json([attrs.asdict(f) for f in findings])
    else:
        rows = [(f.severity, f.what, f.where, str(f.count), f.advice) for f in findings]
        show_table(f"Findings in {data}", ("severity", "what", "where", "count", "advice"), rows)
        notes = [(str(note),) for note in loaded.provenance.get("notes", ())]
        if notes:
            show_table("Noted when it was made", ("note",), notes)
    if any(f.severity == "error" for f in findings):
        raise typer.Exit(2)


def _token_findings(data: PreferenceData, name: str) -> list[Finding]:
    import numpy as np

    from copl.data.checking.spelling import token_findings
    from copl.errors import OptionsError
    from copl.plugins import load
    from copl.reward.backbones.loaded import encode_responses
    from copl.reward.options import RewardOptions
    from copl.runs.recipe import choose

    faults: list[str] = []
    choice = choose("backbone", {"name": name}, load(), faults)
    if choice is None:
        raise OptionsError(faults)
    rows, limit = np.arange(len(data.responses), dtype=np.int64), RewardOptions().max_length
    encoded = encode_responses(choice.build().load(), data.responses, rows, limit)
    ids: list[list[int]] = [part.tolist() for part in np.split(encoded.ids, encoded.offsets[1:-1])]
    return [finding for split in data.present() for finding in token_findings(data, split, ids, name)]
