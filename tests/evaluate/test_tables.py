"""Tables for a terminal, a log and Markdown."""

from __future__ import annotations

import io

from rich.console import Console

from copl.evaluate.tables import Table, methods_table, side_by_side, split_order, to_markdown, to_rich, to_text
from copl.records import Measurement

RESULTS = {
    "copl": [
        Measurement("heldout", "all", "accuracy", 0.8, 0.75, 0.85, 50),
        Measurement("test", "all", "accuracy", 0.9, 0.875, 0.925, 1000),
        Measurement("test", "group:a", "accuracy", 0.5, 0.4, 0.6, 10),
    ],
    "btl": [Measurement("test", "all", "accuracy", 0.6, 0.55, 0.65, 1000)],
    "none": [],
}


def test_methods_by_splits() -> None:
    table = methods_table(RESULTS)
    assert table == Table(
        "accuracy",
        ("method", "seen users", "unseen users"),
        (("copl", ".900 (.875-.925)", ".800 (.750-.850)"), ("btl", ".600 (.550-.650)", "")),
    )
    group = methods_table(RESULTS, subset="group:a")
    assert (group.title, group.header, len(group.rows)) == ("accuracy, group:a", ("method", "seen users"), 1)


def test_plain_text_is_aligned() -> None:
    lines = to_text(methods_table(RESULTS)).splitlines()
    assert lines == [
        "accuracy",
        "method        seen users      unseen users",
        "copl    .900 (.875-.925)  .800 (.750-.850)",
        "btl     .600 (.550-.650)",
    ]


def test_every_measurement_side_by_side() -> None:
    table = side_by_side(RESULTS)
    assert table.header == ("split", "metric", "subset", "copl", "btl", "none", "count")
    assert table.rows == (
        ("seen users", "accuracy", "all", ".900 (.875-.925)", ".600 (.550-.650)", "", "1,000"),
        ("seen users", "accuracy", "group:a", ".500 (.400-.600)", "", "", "10"),
        ("unseen users", "accuracy", "all", ".800 (.750-.850)", "", "", "50"),
    )


def test_markdown_keeps_its_columns() -> None:
    lines = to_markdown(methods_table({"a|b": RESULTS["btl"]})).splitlines()
    assert lines == ["| method | seen users |", "| :-- | --: |", "| a\\|b | .600 (.550-.650) |"]


def test_rich_shows_the_same_cells_and_reads_no_markup() -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(to_rich(methods_table({"[red]copl": RESULTS["copl"]})))
    shown = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "[red]copl" in shown
    assert ".900 (.875-.925)" in shown


def test_empty_tables() -> None:
    assert to_text(methods_table({})) == "accuracy\nmethod"
    assert to_markdown(side_by_side({})).splitlines()[0] == "| split | metric | subset | count |"


def test_splits_have_an_order() -> None:
    assert split_order(["zebra", "heldout", "cold", "ant", "test", "test"]) == [
        "test",
        "cold",
        "heldout",
        "ant",
        "zebra",
    ]
