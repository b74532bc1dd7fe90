"""``copl cache``: how large the cache that runs share is, and clearing it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from copl.commands.parts.arguments import JSON_OPTION
from copl.commands.parts.display import say, show_json, show_table

if TYPE_CHECKING:
    from copl.runs.caching import Entry

app = typer.Typer(no_args_is_help=True, help="Show or clear what runs share: stages, readings of texts, backbones.")


@app.command("show")
def show(as_json: JSON_OPTION = False) -> None:
    """Show what the cache holds, how large it is and how old; COPL_CACHE names another place for it."""
    from copl.runs.caching import entries
    from copl.system.files import cache_directory

    cache = cache_directory()
    rows = _rows(entries(cache))
    if as_json:
        names = ("what", "entries", "bytes", "oldest_days")
        show_json({"directory": str(cache), "kinds": [dict(zip(names, row, strict=True)) for row in rows]})
        return
    total = sum(size for _, _, size, _ in rows)
    shown = [(kind, f"{count:,}", _size(size), f"{age:.0f} days") for kind, count, size, age in rows]
    show_table(f"Cache in {cache}: {_size(total)}", ("what", "entries", "size", "oldest"), shown)


@app.command("clear")
def clear_command(
    stage: Annotated[
        str | None, typer.Option("--stage", help="Only what this stage has left, or texts, or backbones.")
    ] = None,
    older_than: Annotated[
        float | None, typer.Option("--older-than", metavar="DAYS", help="Only what is older than so many days.")
    ] = None,
    everything: Annotated[bool, typer.Option("--all", help="All of it.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be cleared.")] = False,
) -> None:
    """Clear the cache, or a part of it; all of it can be made again. Runs keep what they hold."""
    from copl.errors import OptionsError
    from copl.runs.caching import chosen, clear, entries
    from copl.system.files import cache_directory

    if stage is None and older_than is None and not everything:
        raise OptionsError("say what to clear: --stage NAME, --older-than DAYS, or --all")
    cache = cache_directory()
    picked = chosen(entries(cache), kind=stage, older_than=older_than)
    if not dry_run:
        clear(picked, cache)
    size = _size(sum(entry.size for entry in picked))
    say(f"{'would clear' if dry_run else 'cleared'} {len(picked):,} entries, {size}, of {cache}")


def _rows(entries: list[Entry]) -> list[tuple[str, int, int, float]]:
    """Return kind, number, bytes and age of the oldest, by kind."""
    rows = []
    for kind in dict.fromkeys(entry.kind for entry in entries):
        same = [entry for entry in entries if entry.kind == kind]
        rows.append((kind, len(same), sum(entry.size for entry in same), max(entry.age for entry in same)))
    return rows


def _size(num_bytes: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1024:
            return f"{num_bytes:.0f} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.1f} GiB"
