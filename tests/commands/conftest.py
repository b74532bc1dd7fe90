"""Packages with plugins, found as installed ones by this process and by those it starts."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from copl import plugins

Install = Callable[[str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Return a function that installs a package of a name, whose plugin is the module given as text."""
    site = tmp_path / "site"

    def add(name: str, source: str) -> None:
        about = site / f"{name}-1.dist-info"
        about.mkdir(parents=True)
        (site / f"{name}_plugin.py").write_text(textwrap.dedent(source))
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
        (about / "entry_points.txt").write_text(f"[copl]\n{name} = {name}_plugin\n")
        plugins.load.cache_clear()

    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")]))
    plugins.load.cache_clear()
    yield add
    plugins.load.cache_clear()
