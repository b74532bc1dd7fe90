"""Names of users, groups, files and plugins reach terminal, Markdown, LaTeX and pictures as text, never as markup."""

from __future__ import annotations

import io
import json
import re
import warnings
from xml.etree import ElementTree

import numpy as np
import pytest
from rich.console import Console

from copl.ablate.plots import accuracy_bars
from copl.ablate.tables import Entry, SplitTable, latex, markdown
from copl.commands.parts import display
from copl.evaluate import plots
from copl.evaluate.tables import Table, markdown_text, to_markdown, to_rich, to_text
from copl.records import Measurement
from copl.system.progress import BarProgress

NAMES = (
    "[/x]",
    "[bold red]a[/]",
    "\x1b[31mred\x1b[0m",
    "\x9b31mred",
    "two\nlines\r\u2028three",
    "\u202egnirts",
    r"$\foo$",
    "$x$ and }{",
    r"\input{/etc/passwd}",
    "100 % & _#~^",
    "_hidden",
    "__nolegend__",
    "",
    "日本語",
    "<script>alert(1)</script>",
    "[a](javascript:b) `c` *d* |",
    "\x00\x07",
    "x" * 500,
)
BARE = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e]")
"""Characters that move a cursor or break a line, but for the line break itself."""


@pytest.mark.parametrize("name", NAMES)
def test_a_table_shows_any_name_in_any_place(name: str) -> None:
    table = Table(name, ("first", name), ((name, name), ("a", "b")))
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=2000)
    console.print(to_rich(table))
    drawn = console.file.getvalue()  # type: ignore[attr-defined]
    for text in (to_text(table), drawn, to_markdown(table)):
        assert not BARE.search(text), text
    assert to_markdown(table).count("\n") == 3
    if name.startswith("["):
        assert name in drawn


@pytest.mark.parametrize("name", NAMES)
def test_markdown_shows_a_name_as_it_is(name: str) -> None:
    shown = markdown_text(name)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)([*`\[\]|$]|<[a-z])", shown)


@pytest.mark.parametrize("name", NAMES)
def test_latex_and_pictures_of_a_study_take_any_name(name: str) -> None:
    row = (Entry(0.7, 0.6, 0.8, False, best=True), None)
    shown = SplitTable(name or "test", (name, "b"), {name: row, "other": row})
    text = latex([shown], [], [f"a remark on {name}"])
    assert not BARE.search(text)
    drawn_lines = [line for line in text.split("\n") if not line.startswith("%")]
    commands = set(re.findall(r"\\([a-zA-Z]+)", "\n".join(drawn_lines)))
    drawn = {"begin", "end", "centering", "caption", "toprule", "midrule", "bottomrule", "textbf"}
    assert commands <= {*drawn, "textbackslash", "textasciitilde", "textasciicircum"}, commands
    assert all(line.startswith(("\\", "variant ")) or line.endswith("\\\\") or not line for line in drawn_lines)
    page = markdown(name, [shown], [], [name])
    assert page.startswith("# ")
    assert not BARE.search(page)
    ElementTree.fromstring(accuracy_bars(shown))


@pytest.mark.parametrize("names", [NAMES[:6], NAMES[6:12], NAMES[12:]], ids=["first", "second", "third"])
def test_pictures_of_a_report_take_any_name(names: tuple[str, ...]) -> None:
    draw = np.random.default_rng(0).normal(size=(2 * len(names) + 1, 3))
    series = (np.arange(2.0), np.arange(2.0))
    measured = Measurement("test", "all", "accuracy", 0.7, 0.6, 0.8, 9)
    pictures = [
        plots.user_map(draw, [*names, *names, None], "map"),
        plots.group_experts(names, np.abs(draw[: len(names)]), "heat"),
        plots.accuracy_by_comparisons(names[0], {name: [("1-4", measured)] for name in names}, (0.5, 0.9), "count"),
        plots.training_curves(names[0], {names[0]: dict.fromkeys(names, series)}, "curve"),
    ]
    for picture in pictures:
        ElementTree.fromstring(picture.svg)
        assert "mathdefault" not in picture.svg
    texts = [" ".join("".join(e.itertext()).split()) for e in ElementTree.fromstring(pictures[0].svg).iter()]
    for name in names:
        if name and not name.startswith("x"):
            shown = re.sub(r"\s+", " ", plots.label(name)).strip()
            assert any(shown in text for text in texts)


def test_drawing_warns_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        plots.user_map(np.eye(3), ["日本語", "_x", "🐈"], "map")


@pytest.mark.parametrize("name", NAMES)
def test_what_is_said_and_printed_moves_no_cursor(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    display.say(f"wrote {name}")
    display.show_text(f"one {name}\nand more")
    display.show_json({"name": name})
    printed = capsys.readouterr()
    assert printed.err.count("\n") == 1
    assert not BARE.search(printed.err + printed.out)
    assert json.loads(printed.out.partition("and more\n")[2]) == {"name": name}


@pytest.mark.parametrize("name", NAMES)
def test_bars_take_any_name(name: str) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with BarProgress(console) as bars, bars.task(name, total=2) as task:
        task.advance(1, **{name: 0.5})


def test_half_a_character_of_a_file_name_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    display.say("no such file: \udcff")
    display.show_json({"directory": "\udcff"})
    printed = capsys.readouterr()
    assert printed.err == "no such file: \\udcff\n"
    assert json.loads(printed.out) == {"directory": "\udcff"}
