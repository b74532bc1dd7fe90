"""The tutorial shows the files of the example package as they are."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "plugins" / "copl-spectral"
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^`([\w./-]+)`:\n\n```\w*\n(.*?)^```$", TUTORIAL, flags=re.MULTILINE | re.DOTALL)


def test_the_tutorial_shows_files() -> None:
    assert [name for name, _ in SHOWN] == ["pyproject.toml", "src/copl_spectral/__init__.py", "tests/test_spectral.py"]


@pytest.mark.parametrize(("name", "text"), SHOWN, ids=[name for name, _ in SHOWN])
def test_a_file_shown_is_the_file_in_the_package(name: str, text: str) -> None:
    assert (EXAMPLE / name).read_text(encoding="utf-8") == text


def test_links_of_the_documentation_lead_somewhere() -> None:
    broken = [
        f"{page.relative_to(ROOT)}: {target}"
        for page in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "plugins").rglob("*.md")])
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text(encoding="utf-8"))
        if "://" not in target and not (page.parent / target).exists()
    ]
    assert broken == []
