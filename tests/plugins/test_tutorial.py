"""The tutorial, followed by somebody in an empty directory of a clean environment; its files are the example's."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Callable
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
import os
import site
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

import copl.ablate.conduct
import copl.graph.encoders.mf
import copl.runs.policy
import copl.testing
from copl import cli


def obey(program, words):
    site.addsitedir(sysconfig.get_paths()["purelib"])  # a package that was installed a moment ago
    if program == "pytest":
        return int(pytest.main(["-q", "-p", "no:cacheprovider", *words]))
    sys.argv = [program, *words]
    try:
        cli.main()
    except SystemExit as stop:
        return stop.code or 0
    return 0


for program, words, expected in json.loads(sys.argv[1]):
    print(program, words, flush=True)
    if program == "write":
        name, text = words
        Path(name).write_text(text, encoding="utf-8")
    elif program == "pip":
        offline = ["--disable-pip-version-check", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
        subprocess.run([sys.executable, "-m", "pip", *words, *offline], check=True)
    elif child := os.fork():
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == expected, (program, words)
    else:
        code = 1
        try:
            code = obey(program, words)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
"""
"""Does one step after the other; each command runs in a process of its own, forked when the libraries are loaded."""


def _made_quick(name: str, text: str) -> tuple[str, list[str], int]:
    """Return a step as the follower takes it, made quick: a program, its words and the code it has to end with."""
    if name:
        return "write", [name, text], 0
    program, *words = shlex.split(text, comments=True)
    assert program in ("copl", "pip", "pytest"), text
    if words[:3] == ["data", "make", "facets"]:
        words += [word for size in SMALL_CORPUS for word in ("--set", size)]
    if "--seeds" in words:
        words += FEWER_SEEDS  # of an option that is given twice, the last holds
    return program, words, 2 if "# an error" in text else 0


@pytest.mark.slow
def test_whoever_follows_the_tutorial_gets_there(
    run: Run, make_environment: Callable[..., Path], tmp_path: Path
) -> None:
    """From an empty directory to the table; only corpus and seeds are made fewer, so that it is quick."""
    programs = make_environment(tmp_path)
    reader = tmp_path / "reader"
    reader.mkdir()
    run(programs / "python", "-c", FOLLOWER, json.dumps([_made_quick(*step) for step in steps()]), cwd=reader)
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
