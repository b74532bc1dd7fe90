"""Options that several commands share; each help text is written here once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from copl.errors import OptionsError
from copl.plugins import KINDS


def _from_0(seed: int | None) -> int | None:
    if seed is not None and not 0 <= seed < 2**63:
        raise OptionsError(f"--seed {seed}: a seed is a whole number from 0 up to 2^63 - 1")
    return seed


JSON_OPTION: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
SEED_OPTION: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--seed", callback=_from_0, help="The same seed gives the same result. [default: that of the recipe, else 0]"
    ),
]
RUN_ARGUMENT: TypeAlias = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory made by `copl train`.")]
DATA_ARGUMENT: TypeAlias = Annotated[Path, typer.Argument(metavar="DATA", help="Directory of the data set.")]
SET_OPTION: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.KEY=VALUE", help="An option of a stage; may be repeated."),
]
COMPONENT_SET_OPTION: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An option of the component; may be repeated."),
]
BACKBONE_OPTION: TypeAlias = Annotated[
    str | None,
    typer.Option("--backbone", help="Backbone by name, or any Hugging Face id or local path of a transformer."),
]
USERS_OPTION: TypeAlias = Annotated[Path | None, typer.Option("--users", help="Adapted users, from `copl adapt`.")]
COLUMNS_OPTION: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--columns", metavar="NAME=COLUMN,...", help="Names of the rows' columns where they differ: user_id=worker,..."
    ),
]
QUALITY_OPTION: TypeAlias = Annotated[
    str | None,
    typer.Option("--quality", help="Sequence classifier, by path or Hugging Face id, whose reward is added."),
]
QUALITY_WEIGHT_OPTION: TypeAlias = Annotated[
    float | None,
    typer.Option("--quality-weight", help="Its weight. [default: what explains the run's split validation best]"),
]
NO_CACHE_OPTION: TypeAlias = Annotated[
    bool, typer.Option("--no-cache", help="Neither use nor fill the cache that runs share.")
]
A_KIND = f"{', '.join(list(KINDS)[:-1])} or {list(KINDS)[-1]}."


def shared_cache(no_cache: bool) -> Path | None:
    """Return the cache that runs share, or None where it is not wanted."""
    from copl.system.files import cache_directory

    return None if no_cache else cache_directory()


def component_values(assignments: Sequence[str] | None) -> dict[str, Any]:
    """Return the option values of one component, given as ``key=value`` texts.

    An entry of a table may be given by itself, as ``columns.user_id=worker``.

    Raises:
        OptionsError: one fault for each text of another form, and for each table that is given in both ways.
    """
    values: dict[str, Any] = {}
    faults = []
    for text in assignments or []:
        key, equals, value = (part.strip() for part in text.partition("="))
        table, is_entry, name = key.partition(".")
        if not equals:
            faults.append(f"--set {key}: expected key=value, such as path=votes/")
        elif isinstance(values.get(table), str if is_entry else dict):
            faults.append(f"--set {key}: {table} is given as a whole and by its entries; give it in one way")
        elif is_entry:
            values.setdefault(table, {})[name] = value
        else:
            values[key] = value
    if faults:
        raise OptionsError(faults)
    return values


def column_names(text: str | None, rows: Path | None) -> dict[str, str]:
    """Return the names of columns that ``--columns`` says.

    Args:
        text: what it says.
        rows: the file whose columns they are, if there is one; a data set's directory has its own names.

    Raises:
        OptionsError: the text is of another form, or there is no such file.
    """
    if text is not None and (rows is None or rows.is_dir()):
        raise OptionsError("--columns: there is no file of rows whose columns it could name")
    pairs = [part.partition("=") for part in (text or "").split(",") if part.strip()]
    if not all(equals and name.strip() and column.strip() for name, equals, column in pairs):
        raise OptionsError(f"--columns {text}: expected name=column, ..., such as user_id=worker")
    return {name.strip(): column.strip() for name, _, column in pairs}
