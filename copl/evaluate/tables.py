"""Measurements as tables: for a terminal, for a log, for Markdown."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from attrs import field, frozen

from copl.errors import one_line
from copl.records import SPLITS, Measurement

if TYPE_CHECKING:
    from rich.table import Table as RichTable

SPLIT_TITLES: Mapping[str, str] = {
    "test": "seen users",
    "cold": "new prompts",
    "heldout": "unseen users",
    "validation": "validation",
    "train": "training",
    "support": "support",
}
"""What the splits are called in tables, in the order of the columns."""


_CHOSEN_BY = frozenset({"train", "validation", "support"})
"""Splits that models and options are chosen by; no headline figure comes from them."""


def _lines(texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(one_line(text) for text in texts)


def _rows(rows: Iterable[Iterable[str]]) -> tuple[tuple[str, ...], ...]:
    return tuple(_lines(row) for row in rows)


@final
@frozen
class Table:
    """Text in rows and columns; the first column holds the rows' names.

    Each cell is one line, whatever names are in it: line breaks and other control characters become escapes.

    Attributes:
        title: what the table shows.
        header: names of the columns.
        rows: cells, each row as long as the header.
    """

    title: str = field(converter=one_line)
    header: tuple[str, ...] = field(converter=_lines)
    rows: tuple[tuple[str, ...], ...] = field(converter=_rows)


def split_title(split: str) -> str:
    """Return what a split is called in tables.

    >>> split_title("heldout"), split_title("my-split")
    ('unseen users', 'my-split')
    """
    return SPLIT_TITLES.get(split, split)


def split_order(splits: Sequence[str]) -> list[str]:
    """Return the distinct splits in the order of `SPLIT_TITLES`, unknown ones last in alphabetical order."""
    known = [*SPLIT_TITLES, *SPLITS]
    return sorted(set(splits), key=lambda split: (known.index(split) if split in known else len(known), split))


def cell(measurement: Measurement) -> str:
    r"""Return a number with its 95 % interval.

    >>> cell(Measurement("test", "all", "accuracy", 0.8125, 0.79, 0.835, 100))
    '.812 (.790-.835)'
    >>> ascii(cell(Measurement("cold", "all", "accuracy", 0.5, 0.5, 0.5, 100)))
    "'\\u2013'"
    >>> cell(Measurement("test", "all", "log_loss", 1.5, 1.25, 2.0, 100))
    '1.500 (1.250-2.000)'
    >>> cell(Measurement("cold", "all", "utility_gain", 0.014, -0.149, 0.176, 100))
    '.014 (-.149 to .176)'
    >>> cell(Measurement("test", "versus:btl", "accuracy_difference", 0.02, -0.01, 0.05, 100))
    '+.020 (-.010 to +.050)'
    """
    if says_nothing(measurement):
        return "\N{EN DASH}"
    signed = measurement.metric.endswith("_difference")
    value, low, high = (number(v, signed=signed) for v in (measurement.value, measurement.low, measurement.high))
    return f"{value} ({low}{' to ' if signed or measurement.low < 0 else '-'}{high})"


def says_nothing(measurement: Measurement) -> bool:
    """Return whether an accuracy is that of margins that are all zero: of a method that has no answer there.

    >>> says_nothing(Measurement("cold", "all", "accuracy", 0.5, 0.5, 0.5, 100))
    True
    """
    return measurement.metric == "accuracy" and is_no_answer(measurement.value, measurement.low, measurement.high)


def is_no_answer(value: float, low: float, high: float) -> bool:
    """Return whether an accuracy, with its interval, is that of margins that are all zero.

    >>> is_no_answer(0.5, 0.5, 0.5), is_no_answer(0.5, 0.48, 0.52)
    (True, False)
    """
    return low == value == high == 0.5


def number(value: float, *, signed: bool = False) -> str:
    """Return a number with three decimals and without the zero before the point.

    >>> number(0.5), number(-0.25), number(1.0), number(0.5, signed=True), number(-0.0001)
    ('.500', '-.250', '1.000', '+.500', '.000')
    """
    rounded = round(value, 3) + 0.0  # no negative zero
    text = f"{rounded:+.3f}" if signed else f"{rounded:.3f}"
    return text.replace("0.", ".", 1) if abs(rounded) < 1 else text


def points(value: float, *, signed: bool = False) -> str:
    """Return a share in hundredths with one decimal: the digits that `number` gives.

    >>> points(0.8725), number(0.8725), points(-0.005), points(0.125, signed=True)
    ('87.3', '.873', '-0.5', '+12.5')
    """
    return f"{100 * round(value, 3) + 0.0:{'+' if signed else ''}.1f}"


def held_out(results: Mapping[str, Sequence[Measurement]]) -> dict[str, list[Measurement]]:
    """Return the measurements of splits that nothing was chosen by: those a result is reported on."""
    return {method: [m for m in ms if m.split not in _CHOSEN_BY] for method, ms in results.items()}


def methods_table(
    results: Mapping[str, Sequence[Measurement]], *, metric: str = "accuracy", subset: str = "all", title: str = ""
) -> Table:
    """Return methods as rows and splits as columns, for one metric on one subset.

    Args:
        results: measurements by name of the method.
        metric: the metric shown.
        subset: the subset shown.
        title: title of the table; made from the metric and the subset where empty.
    """
    measured = {
        (method, m.split): m
        for method, measurements in results.items()
        for m in measurements
        if m.metric == metric and m.subset == subset
    }
    splits = split_order([split for _, split in measured])
    rows = tuple(
        (method, *(cell(measured[method, split]) if (method, split) in measured else "" for split in splits))
        for method in results
        if any((method, split) in measured for split in splits)
    )
    name = metric.replace("_", " ") + ("" if subset == "all" else f", {subset}")
    return Table(title or name, ("method", *(split_title(split) for split in splits)), rows)


def side_by_side(results: Mapping[str, Sequence[Measurement]], *, title: str = "all measurements") -> Table:
    """Return every measurement as a row and methods as columns."""
    counts = {(m.split, m.metric, m.subset): m.count for ms in results.values() for m in ms}
    by_method = {method: {(m.split, m.metric, m.subset): m for m in ms} for method, ms in results.items()}
    rows = []
    for split in split_order([key[0] for key in counts]):
        for key in counts:
            if key[0] == split:
                cells = (cell(ms[key]) if key in ms else "" for ms in by_method.values())
                rows.append((split_title(split), key[1].replace("_", " "), key[2], *cells, f"{counts[key]:,}"))
    return Table(title, ("split", "metric", "subset", *results, "count"), tuple(rows))


def to_text(table: Table) -> str:
    """Return the table as aligned plain lines; numbers sit on the right of their column.

    >>> print(to_text(Table("accuracy", ("method", "seen users"), (("copl", ".81"), ("btl", ".605")))))
    accuracy
    method  seen users
    copl           .81
    btl           .605
    """
    widths = [max(map(len, column)) for column in zip(table.header, *table.rows, strict=True)]
    right = [_numeric(table, column) for column in range(len(widths))]
    lines = [
        "  ".join(
            text.rjust(width) if on_right else text.ljust(width)
            for text, width, on_right in zip(row, widths, right, strict=True)
        ).rstrip()
        for row in (table.header, *table.rows)
    ]
    return "\n".join([table.title, *lines] if table.title else lines)


_MARKUP = re.compile(r"[\\`*\[\]|~$]|<(?=[a-zA-Z/!?])|&(?=#?\w+;)|(?<!\w)_|_(?!\w)")


def markdown_text(text: str) -> str:
    r"""Return a text as Markdown that shows it as it is, on one line.

    >>> print(markdown_text("num_layers=2"), markdown_text("*a*|<b>"), markdown_text("_x_"))
    num_layers=2 \*a\*\|\<b> \_x\_
    """
    return _MARKUP.sub(r"\\\g<0>", one_line(text))


def to_markdown(table: Table, emphasised: Callable[[int, int], bool] = lambda row, column: False) -> str:
    """Return the table in Markdown, without its title; cells are shown as they are, and no markup.

    >>> print(to_markdown(Table("", ("method", "seen users"), (("copl", ".81"), ("a|b", ".605")))))
    | method | seen users |
    | :-- | --: |
    | copl | .81 |
    | a\\|b | .605 |
    """
    rule = tuple("--:" if _numeric(table, column) else ":--" for column in range(len(table.header)))
    rows = [
        [f"**{markdown_text(t)}**" if emphasised(r, c) else markdown_text(t) for c, t in enumerate(row)]
        for r, row in enumerate(table.rows)
    ]
    header = [markdown_text(text) for text in table.header]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, rule, *rows))


def to_rich(table: Table) -> RichTable:
    """Return the table for a `rich` console."""
    from rich import box
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=Text(table.title) if table.title else None, title_justify="left", box=box.SIMPLE_HEAD)
    for column, name in enumerate(table.header):
        justify: Any = "right" if _numeric(table, column) else "left"
        shown.add_column(Text(name), justify=justify)
    for row in table.rows:
        shown.add_row(*(Text(text) for text in row))
    return shown


_NUMBER = re.compile(r"[+-]?(\d[\d,]*\.?\d*|\.\d+)")
_LONG_WORD = re.compile(r"[^\W\d_]{4,}|[^\W\d_]+ [^\W\d_]+")


def _numeric(table: Table, column: int) -> bool:
    """Whether a column holds numbers only: each with its interval, marks or unit, and none that begins a sentence."""
    cells = [row[column] for row in table.rows if row[column]]
    return column > 0 and bool(cells) and all(map(_is_number, cells))


def _is_number(text: str) -> bool:
    """Return whether a cell is a number, or says that there is none.

    >>> [_is_number(t) for t in (".812 (.790-.835)", "+.020 (-.010 to +.050)", "-1,204", "12.5 MB", "1.5e-05", "-")]
    [True, True, True, True, True, True]
    >>> [_is_number(t) for t in ("3 eggs, boiled", "2nd of all", "7 is too many", ".hidden")]
    [False, False, False, False]
    """
    return text.startswith("\N{EN DASH}") or text == "-" or bool(_NUMBER.match(text) and not _LONG_WORD.search(text))
