"""``copl report``: what was measured, as a page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from copl.commands.parts.display import say


def report(
    directory: Annotated[Path, typer.Argument(metavar="PATH", help="A run directory, or a directory of runs.")],
) -> None:
    """Write the HTML report of an evaluated run, or of several side by side."""
    from copl.runs.reporting import report_path

    say(f"report: {report_path(directory)}")
