"""``copl adapt``: newcomers placed among the trained users."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copl.commands.parts.arguments import COLUMNS_OPTION, JSON_OPTION, RUN_ARGUMENT, column_names
from copl.commands.parts.display import say, show_json, show_table

_NUM_SHOWN = 20


def adapt(
    run_directory: RUN_ARGUMENT,
    support: Annotated[
        Path, typer.Argument(help="Newcomers' comparisons: JSONL, CSV or Parquet rows, or a data set's directory.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="File of adapted users to write (.safetensors).")],
    columns: COLUMNS_OPTION = None,
    as_json: JSON_OPTION = False,
) -> None:
    """Place unseen users among the trained ones from a few comparisons, without any training."""
    from copl.data.requests import read_support
    from copl.data.targets import check_target
    from copl.model import Model

    check_target(out, support)
    comparisons = read_support(support, say, column_names(columns, support))
    model = Model.open(run_directory)
    adapted = model.adapt(comparisons)
    model.save_adapted(adapted, out)
    placed = zip(adapted.user_ids, adapted.how, adapted.num_neighbours, adapted.confidence, strict=True)
    rows = [(user, how, str(int(near)), f"{sure:.2f}") for user, how, near, sure in placed]
    headers = ("user", "how", "neighbours", "confidence")
    if as_json:
        show_json([dict(zip(headers, row, strict=True)) for row in rows])
        return
    shown = f", the first {_NUM_SHOWN}" if len(rows) > _NUM_SHOWN else ""
    show_table(f"{len(rows)} adapted users{shown}", headers, rows[:_NUM_SHOWN])
    say(f"wrote {out}; next: copl score {run_directory} ROWS --users {out} --out FILE")
