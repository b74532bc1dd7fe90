"""Tables by hand: means, marks, the best of a column, and the escapes of each format."""

from __future__ import annotations

import html.parser

import pytest

from copl.ablate.plots import accuracy_bars
from copl.ablate.results import Difference
from copl.ablate.tables import (
    Entry,
    SplitTable,
    as_table,
    differences_table,
    latex,
    markdown,
    to_html,
)
from copl.evaluate.tables import to_text

BEST = Entry(0.8, 0.75, 0.85, True, "ahead", best=True)
TABLE = SplitTable(
    "heldout",
    ("polis_votes", "average"),
    {
        "copl & <gate>": (BEST, Entry(0.7125, 0.7, 0.75, False)),
        "btl": (Entry(0.6, 0.5, 0.7, True, "behind"), None),
    },
)
FOUND = [Difference("copl & <gate>", "polis_votes", "heldout", "btl", 0.2, 0.1, 0.3, 0.0002, 0.0004, 3)]


def test_entries_say_which_interval_they_have() -> None:
    assert str(BEST) == ".800 ± .050"
    assert str(Entry(0.75, 0.7, 0.8125, False)) == ".750 (.700-.812)"


def test_a_table_as_text() -> None:
    lines = to_text(as_table(TABLE)).splitlines()
    assert lines[0] == "Accuracy, unseen users"
    assert lines[1].split() == ["variant", "polis_votes", "average"]
    assert ".800 ± .050↑" in lines[2]
    assert lines[3].split() == ["btl", ".600", "±", ".100↓"]


def test_markdown_emphasises_the_best() -> None:
    page = markdown("title", [TABLE], [differences_table(FOUND)], ["a remark"])
    assert page.startswith("# title\n\n- a remark\n\n## Accuracy, unseen users\n")
    assert "| **.800 ± .050↑** |" in page
    assert r"| copl & \<gate>↑ | polis_votes | unseen users | btl | +.200 (+.100 to +.300) | <.001 | <.001 |" in page


def test_latex_is_escaped() -> None:
    page = latex([TABLE], [], ["50 %"])
    assert page.startswith("% 50 %\n")
    assert r"variant & polis\_votes & average \\" in page
    assert r"copl \& <gate> & \textbf{.800 $\pm$ .050$\uparrow$} &" in page
    assert page.count(r"\begin{tabular}{lcc}") == page.count(r"\end{tabular}") == 1


def test_html_is_escaped_and_whole() -> None:
    picture = accuracy_bars(TABLE)
    page = to_html("a < b", [TABLE], [differences_table(FOUND)], ["a remark"], {"heldout": picture})
    assert "<h1>a &lt; b</h1>" in page
    assert "<td>copl &amp; &lt;gate&gt;</td><td><strong>.800 ± .050↑</strong></td>" in page
    assert picture in page
    open_tags: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag != "meta":
                open_tags.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert open_tags.pop() == tag

    Reader().feed(page)
    assert open_tags == []


def test_bars_are_drawn_for_what_is_there_and_always_alike() -> None:
    picture = accuracy_bars(TABLE)
    assert picture == accuracy_bars(TABLE)
    assert picture.startswith("<svg")
    for text in ("copl &amp; &lt;gate&gt;", "btl", "polis_votes", "Accuracy, unseen users"):
        assert text in picture
    assert accuracy_bars(SplitTable("test", ("one",), {"missing": (None,)})).startswith("<svg")


@pytest.mark.parametrize(("p", "mark"), [(0.049, "ahead"), (0.05, ""), (1.0, "")])
def test_a_mark_needs_a_corrected_p_value_below_the_level(p: float, mark: str) -> None:
    assert Difference("v", "d", "test", "r", 0.1, 0.0, 0.2, 0.0001, p, 1).mark == mark
    assert Difference("v", "d", "test", "r", -0.1, -0.2, 0.0, 0.0001, p, 1).mark == ("behind" if mark else "")


def test_a_method_without_an_answer_has_a_dash() -> None:
    assert ascii(str(Entry(0.5, 0.5, 0.5, over_seeds=True))) == "'\\u2013'"
    assert str(Entry(0.5, 0.49, 0.51, over_seeds=True)) == ".500 ± .010"
