"""Figures in pages come from files, with the command and the commit they were measured by, and what changed since."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from attrs import evolve

from benchmarks import pages
from benchmarks.measured import RESULTS, ROOT, code_digest
from benchmarks.records import PublishedTable, Record, new_record, read_record, write_record
from copl.errors import CoplError

PAGES = pages.pages()
BY_HAND = [page for page in PAGES if not pages.is_history(page)]


def name(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=name)
def test_blocks_hold_the_tables_of_the_records_as_they_are(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == pages.filled(text, page), f"{name(page)} is stale; run make docs"


@pytest.mark.parametrize("page", BY_HAND, ids=name)
def test_a_table_of_figures_stands_in_a_block(page: Path) -> None:
    """Written by hand it would go stale without saying so: put it into a record, see benchmarks/README.md."""
    assert list(pages.loose_tables(page.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize("page", BY_HAND, ids=name)
def test_a_figure_in_running_text_is_in_some_file(page: Path) -> None:
    quoted = pages.figures_of(pages.outside_blocks(page.read_text(encoding="utf-8")))
    assert quoted - pages.known_figures() == set(), f"{name(page)} quotes figures that no file of results has"


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_a_record_says_how_it_was_measured(path: Path) -> None:
    record = read_record(path)
    assert record.command
    assert record.commit
    assert record.code
    assert record.versions
    for table in record.tables.values():
        assert {len(row) for row in table.rows} == {len(table.header)}


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.md")), ids=lambda path: path.stem)
def test_a_table_of_a_benchmark_says_how_it_was_measured(path: Path) -> None:
    first = path.read_text(encoding="utf-8")[:2000]
    assert re.search(r"python -m benchmarks\.\w+", first)
    assert re.search(r"\bcommits?\b:? [0-9a-f]{7,10}\b", first)


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Record:
    """A record of a file that lies in a project of its own, beside a page that quotes it."""
    (tmp_path / "measured.py").write_text("answer = 1\n")
    monkeypatch.setattr("benchmarks.measured.ROOT", tmp_path)
    table = PublishedTable("Accuracy", ("method", "seen"), [("copl", ".851")])
    made = new_record("A study", "python -m study", code=["measured.py"], notes=["once .123"])
    return evolve(made, tables={"all": table})


def test_a_page_says_by_itself_that_the_code_has_changed(
    record: Record, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "_records", lambda: {"study": record})
    page = "Before\n<!-- table: study/all -->\nold\n<!-- end -->\nafter .851\n"
    fresh = pages.filled(page, ROOT / "docs" / "page.md")
    assert "| copl | .851 |" in fresh
    assert "`python -m study`" in fresh
    assert "../benchmarks/results/study.json" in fresh
    assert "old" not in fresh
    assert "changed" not in fresh
    assert pages.filled(fresh, ROOT / "docs" / "page.md") == fresh
    (tmp_path / "measured.py").write_text("answer = 2\n")
    stale = pages.filled(fresh, ROOT / "docs" / "page.md")
    assert "**Since then changed: `measured.py`.**" in stale
    assert stale != fresh  # so that the test above fails until the page says so
    assert pages.known_figures() >= {".851", ".123"}


def test_bold_goes_to_the_best_that_is_told_nothing() -> None:
    nothing = "\N{EN DASH}"
    rows = [
        ("`copl`", ".785 ± .015", ".613 ± .200", nothing, ".700 ± .1"),
        ("`btl`", "**.785** ± .010†", ".610 ± .100↑", ".900 ± .01", ".650 ± .1"),
        ("`group-oracle`", ".700 ± .010", "**.835** ± .010", "**1.000** ± .000", nothing),
    ]
    assert PublishedTable("Accuracy", ("method", "a", "b", "c", "d"), rows).shown() == (
        ("`copl`", "**.785** ± .015", "**.613** ± .200", nothing, "**.700** ± .1"),
        ("`btl`", "**.785** ± .010†", ".610 ± .100↑", "**.900** ± .01", ".650 ± .1"),
        ("`group-oracle`", ".700 ± .010", ".835 ± .010", "1.000 ± .000", nothing),
    )
    others = PublishedTable("By hand", ("users", "ours"), [("10", "**.700** / .600"), ("`group-oracle`", ".9")])
    assert others.shown() == others.rows


def test_a_block_without_a_record_is_an_error(record: Record, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_records", lambda: {"study": record})
    for block in ("study/none", "other/all"):
        with pytest.raises(ValueError, match=r"page\.md: there is no table"):
            pages.filled(f"<!-- table: {block} -->\n<!-- end -->", ROOT / "page.md")


def test_figures_by_hand_are_seen() -> None:
    assert list(pages.loose_tables("| a | .851 |\n| b | 3 |\n```\n| c | .852 |\n```\n")) == ["| a | .851 |"]
    assert pages.figures_of("(.812 to 0.913), 1.234, v2.13.000, `.555`, -.004, 10.500") == {".812", ".913", ".004"}


def test_a_record_is_read_as_it_was_written(record: Record, tmp_path: Path) -> None:
    write_record(record, tmp_path / "study.json")
    assert read_record(tmp_path / "study.json") == record
    (tmp_path / "study.json").write_text('{"title": 3}')
    with pytest.raises(CoplError):
        read_record(tmp_path / "study.json")


def test_the_digest_of_code_is_that_of_its_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.measured.ROOT", tmp_path)
    (tmp_path / "a.py").write_text("1")
    before = code_digest("a.py")
    (tmp_path / "a.py").write_text("2")
    assert code_digest("a.py") != before
