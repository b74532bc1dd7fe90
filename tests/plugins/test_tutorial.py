"""The tutorial, followed by somebody in an empty directory of a clean environment; its files are the example's."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
from itertools import groupby
from pathlib import Path

import pyarrow.parquet as pq
import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "plugins" / "copl-svd"
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^`([\w./-]+)`:\n\n```\w*\n(.*?)^```$", TUTORIAL, flags=re.MULTILINE | re.DOTALL)
OF_THE_EXAMPLE = [(name.removeprefix("copl-svd/"), text) for name, text in SHOWN if name.startswith("copl-svd/")]
FEWER_SEEDS = ["--seeds", "2"]
SMALL_CORPUS = ["num_seen_users=40", "num_unseen_users=10", "num_prompts=30"]
Run = Callable[..., str]


def test_the_tutorial_shows_files() -> None:
    assert [name for name, _ in OF_THE_EXAMPLE] == ["src/copl_svd/__init__.py", "tests/test_svd.py"]


@pytest.mark.parametrize(("name", "text"), OF_THE_EXAMPLE, ids=[name for name, _ in OF_THE_EXAMPLE])
def test_a_file_shown_is_the_file_in_the_package(name: str, text: str) -> None:
    assert (EXAMPLE / name).read_text(encoding="utf-8") == text


def steps() -> list[tuple[str, str]]:
    """Return what a reader does, in order: a file's name and text, or an empty name and a command."""
    found = []
    pattern = r"^(?:`([\w./-]+)`:\n\n)?```(\w*)\n(.*?)^```$"
    for name, language, text in re.findall(pattern, TUTORIAL, flags=re.MULTILINE | re.DOTALL):
        if language == "sh":
            found += [("", line) for line in text.splitlines()]
        elif name:
            found.append((name, text))
    return found


FOLLOWER = """
import json
import sys

from copl.cli import main

for words, expected in json.loads(sys.argv[1]):
    sys.argv = ["copl", *words]
    try:
        main()
        code = 0
    except SystemExit as stop:
        code = stop.code or 0
    assert code == expected, (words, code)
"""


def _made_quick(text: str) -> tuple[list[str], int]:
    """Return the words of a command of `copl`, made quick, and the code that it has to end with."""
    _, *words = shlex.split(text, comments=True)
    if words[:3] == ["data", "make", "facets"]:
        words += [word for size in SMALL_CORPUS for word in ("--set", size)]
    if "--seeds" in words:
        words += FEWER_SEEDS  # of an option that is given twice, the last holds
    return words, 2 if "# an error" in text else 0


@pytest.mark.slow
def test_whoever_follows_the_tutorial_gets_there(
    run: Run, make_environment: Callable[..., Path], tmp_path: Path
) -> None:
    """From an empty directory to the table; only corpus and seeds are made fewer, so that it is quick.

    Commands of `copl` between which no file changes share a process.
    """
    programs = make_environment(tmp_path)
    reader = tmp_path / "reader"
    reader.mkdir()
    for is_copl, together in groupby(steps(), key=lambda step: not step[0] and step[1].startswith("copl ")):
        if is_copl:
            commands = [_made_quick(text) for _, text in together]
            run(programs / "python", "-c", FOLLOWER, json.dumps(commands), cwd=reader)
            continue
        for name, text in together:
            if name:
                (reader / name).write_text(text, encoding="utf-8")
                continue
            program, *words = shlex.split(text, comments=True)
            assert program in ("pip", "pytest"), text
            if program == "pip":
                offline = ("--no-deps", "--no-index", "--no-build-isolation")
                pip = (programs / "python", "-m", "pip", "--disable-pip-version-check", "--quiet")
                run(*pip, *words, *offline, cwd=reader)
            else:
                run(programs / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", *words, cwd=reader)
    rows = pq.read_table(reader / "encoders" / "results.parquet").to_pylist()
    assert {row["variant"] for row in rows} == {"svd", "mf", "spectral"}
    assert "| svd |" in (reader / "encoders" / "table.md").read_text(encoding="utf-8")
    assert (EXAMPLE / "pyproject.toml").read_text() == (reader / "copl-svd" / "pyproject.toml").read_text()


def test_links_of_the_documentation_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "plugins").rglob("*.md")])
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []
