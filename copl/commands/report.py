"""``copl report``: what was measured, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copl.commands.parts.display import say, show


def report(
    directory: Annotated[Path, typer.Argument(metavar="PATH", help="A run directory, or a directory of runs.")],
) -> None:
    """Print the accuracies of an evaluated run, or of several side by side, and write the report, one HTML file."""
    from copl.runs.directory import REPORT_FILE
    from copl.runs.reporting import Evaluated, write_report

    evaluated = Evaluated.read(directory)
    show(evaluated.table)
    say(f"report: {write_report(evaluated, directory / REPORT_FILE)}")
