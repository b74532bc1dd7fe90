"""The tables of a study in Markdown, LaTeX and HTML: variants as rows, data sets as columns, one for each split."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import final

from attrs import evolve, frozen
from markupsafe import Markup

from copl.ablate.grid import BEST_UNPERSONALISED, Plan
from copl.ablate.results import AVERAGE, Difference, Estimate, Estimates, references
from copl.errors import one_line
from copl.evaluate.pages import fill
from copl.evaluate.tables import Table, is_no_answer, markdown_text, number, split_order, split_title, to_markdown

_TEMPLATE = Path(__file__).parent / "templates" / "table.html"

MARKS: Mapping[str, str] = {"ahead": "↑", "behind": "↓", "reference": "†", "": ""}
"""How a significant difference to the reference is shown, and the reference itself."""


@final
@frozen
class Entry:
    """An accuracy with its 95 % interval.

    Attributes:
        value: mean over seeds.
        low: lower end.
        high: upper end.
        over_seeds: shown as mean +- half width over seeds; else as the ends of the interval of a single run.
        mark: a key of `MARKS`.
        best: the highest of its column.
    """

    value: float
    low: float
    high: float
    over_seeds: bool
    mark: str = ""
    best: bool = False

    def __str__(self) -> str:
        if is_no_answer(self.value, self.low, self.high):
            return "\N{EN DASH}"
        if self.over_seeds:
            return f"{number(self.value)} ± {number(self.high - self.value)}"
        return f"{number(self.value)} ({number(self.low)}-{number(self.high)})"


@final
@frozen
class SplitTable:
    """Accuracies on one split.

    Attributes:
        split: the split.
        columns: the data sets, and `AVERAGE` where there are several.
        rows: by variant, an entry a column; None where a run is missing or the split is.
    """

    split: str
    columns: tuple[str, ...]
    rows: Mapping[str, tuple[Entry | None, ...]]

    @property
    def title(self) -> str:
        return f"Accuracy, {split_title(self.split)}"


def split_tables(plan: Plan, estimated: Estimates, differences: Sequence[Difference]) -> list[SplitTable]:
    """Return a table for each held-out split, in the usual order.

    Args:
        plan: the study.
        estimated: accuracies by variant, data set and split.
        differences: what is marked.
    """
    marks = {(name, data, split): "reference" for (data, split), name in references(plan, estimated).items()}
    marks |= {(d.variant, d.data, d.split): d.mark for d in differences}
    names = [spec.name for spec in plan.study.data]
    tables = []
    over_seeds = len(plan.study.seeds) > 1
    for split in split_order([split for _, _, split in estimated]):
        columns = [name for name in names if any((v.name, name, split) in estimated for v in plan.variants)]
        columns += [AVERAGE] if len(columns) > 1 else []
        entries: dict[str, list[Entry | None]] = {}
        for variant in plan.variants:
            places = [(variant.name, name, split) for name in columns]
            entries[variant.name] = [
                _entry(estimated[place], over_seeds, marks.get(place, "")) if place in estimated else None
                for place in places
            ]
        tables.append(SplitTable(split, tuple(columns), _with_best(entries, len(columns))))
    return tables


def _entry(estimate: Estimate, over_seeds: bool, mark: str) -> Entry:
    low, high = estimate.low, estimate.high
    if over_seeds:
        half = max(estimate.value - low, high - estimate.value)
        low, high = estimate.value - half, estimate.value + half
    return Entry(estimate.value, low, high, over_seeds, mark)


def _with_best(entries: Mapping[str, list[Entry | None]], num_columns: int) -> dict[str, tuple[Entry | None, ...]]:
    best = [max((row[k].value for row in entries.values() if row[k]), default=0.0) for k in range(num_columns)]  # type: ignore[union-attr]  # filtered
    return {
        name: tuple(e and evolve(e, best=round(e.value, 3) == round(best[k], 3)) for k, e in enumerate(row))
        for name, row in entries.items()
    }


def as_table(shown: SplitTable) -> Table:
    """Return a split's table as text."""
    rows = [(name, *(f"{e}{MARKS[e.mark]}" if e else "" for e in entries)) for name, entries in shown.rows.items()]
    return Table(shown.title, ("variant", *shown.columns), rows)


def _is_best(shown: SplitTable) -> Callable[[int, int], bool]:
    """Return whether a cell of the table holds the best of its column."""
    entries = list(shown.rows.values())
    return lambda row, column: column > 0 and (entry := entries[row][column - 1]) is not None and entry.best


def _nothing_is_best(row: int, column: int) -> bool:
    return False


def differences_table(measured: Sequence[Difference]) -> Table:
    """Return every difference to the reference with its interval and p-values."""
    rows = tuple(
        (
            f"{d.variant}{MARKS[d.mark]}",
            d.data,
            split_title(d.split),
            d.versus,
            f"{number(d.value, signed=True)} ({number(d.low, signed=True)} to {number(d.high, signed=True)})",
            _p_value(d.p_value),
            _p_value(d.p_corrected),
        )
        for d in measured
    )
    header = ("variant", "data", "split", "compared with", "difference of accuracy", "p", "p (Holm)")
    return Table("Differences", header, rows)


def _p_value(p: float) -> str:
    return "<.001" if p < 0.001 else number(p)


def notes(plan: Plan, measured: Sequence[Difference], best: Mapping[str, tuple[str, float]], failed: int) -> list[str]:
    """Return in sentences how the tables are to be read."""
    seeds = plan.study.seeds
    lines = [
        f"Means over {len(seeds)} seeds ± half the width of the 95 % interval: by Student's t over seeds, and over the "
        "users and prompts that seeds share."
        if len(seeds) > 1
        else f"One seed ({seeds[0]}); in brackets the 95 % interval of the run (bootstrap over users and prompts), "
        "which says nothing about other seeds.",
    ]
    if measured:
        sampled = "seeds, and users and prompts they share" if len(seeds) > 1 else "users and prompts"
        lines.append(
            f"†: {_named(plan.reference)}. ↑ and ↓: significantly above and below it (paired over the same "
            f"comparisons, by Student's t over {sampled}; p < .05 after Holm's correction for all "
            f"{len(measured)} differences of this study). How large a difference is matters more than its p-value."
        )
    if best:
        chosen = "; ".join(f"{data}: {name} ({number(value)})" for data, (name, value) in best.items())
        lines.append(f"Best by accuracy on validation, the split that options are chosen by: {chosen}.")
    readings = {str(v.recipe.reading): v.name for v in plan.variants if v.recipe.reading is not None}
    if len(readings) > 1:
        lines.append(
            "Variants do not read the same: backbone, its options or the limit in tokens differ between "
            f"{', '.join(readings.values())}, so that a difference may be one of texts."
        )
    lines += [
        f"Left out, because the package {package} is not installed: {name}." for name, package in plan.left_out.items()
    ]
    if failed:
        lines.append(f"Cells that failed: {failed}; a variant without all its seeds has no entry.")
    return lines


def _named(reference: str) -> str:
    if reference == BEST_UNPERSONALISED:
        return "the best of the variants that know no users, on that split of that data set"
    return f"the reference, {reference}"


def markdown(title: str, tables: Sequence[SplitTable], more: Sequence[Table], remarks: Sequence[str]) -> str:
    """Return the study as Markdown."""
    parts = [f"# {markdown_text(title)}", "\n".join(f"- {markdown_text(line)}" for line in remarks)]
    for shown in tables:
        parts += [f"## {markdown_text(shown.title)}", to_markdown(as_table(shown), _is_best(shown))]
    for table in more:
        parts += [f"## {markdown_text(table.title)}", to_markdown(table)]
    return "\n\n".join(parts) + "\n"


_TEX = str.maketrans(
    {
        **{c: f"\\{c}" for c in "&%$#_{}"},
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "\\": r"\textbackslash{}",
        "±": r"$\pm$",
        "↑": r"$\uparrow$",
        "↓": r"$\downarrow$",
        "†": r"$\dagger$",
    }
)


def latex(tables: Sequence[SplitTable], more: Sequence[Table], remarks: Sequence[str]) -> str:
    """Return the tables for LaTeX with the package ``booktabs``; the remarks stand above as comments."""
    lines = [f"% {one_line(line)}" for line in remarks]
    for shown in tables:
        lines += _tex_table(as_table(shown), _is_best(shown))
    for table in more:
        lines += _tex_table(table)
    return "\n".join(lines).lstrip() + "\n"


def _tex_table(table: Table, is_best: Callable[[int, int], bool] = _nothing_is_best) -> list[str]:
    lines = ["", r"\begin{table}", r"\centering", rf"\caption{{{table.title.translate(_TEX)}}}"]
    lines += [rf"\begin{{tabular}}{{l{'c' * (len(table.header) - 1)}}}", r"\toprule"]
    lines += [" & ".join(cell.translate(_TEX) for cell in table.header) + r" \\", r"\midrule"]
    for row, cells in enumerate(table.rows):
        texts = [cell.translate(_TEX) for cell in cells]
        bold = [rf"\textbf{{{t}}}" if is_best(row, column) else t for column, t in enumerate(texts)]
        lines.append(" & ".join(bold) + r" \\")
    return [*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}"]


def to_html(
    title: str,
    tables: Sequence[SplitTable],
    more: Sequence[Table],
    remarks: Sequence[str],
    pictures: Mapping[str, str],
) -> str:
    """Return the study as a page of its own; `pictures` holds an SVG element by split."""
    shown = [(as_table(table), _is_best(table), Markup(pictures.get(table.split, ""))) for table in tables]
    others = [(table, _nothing_is_best, "") for table in more]
    return fill(_TEMPLATE, title=title, remarks=remarks, tables=[*shown, *others]) + "\n"
