"""The quick start of docs/serve.md, done for real: the program on a run, and the Python of the page."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import httpx

from tests.serve.processes import process

if TYPE_CHECKING:
    import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "serve.md").read_text(encoding="utf-8")


def test_the_python_of_the_page_speaks_to_the_program(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    with process(run, tmp_path / "events.sqlite", "--generator", "facets") as (_, url):
        for _ in range(1200):
            if httpx.get(f"{url}/readyz").status_code == 200:
                break
        for block in blocks:
            exec(compile(block.replace("http://127.0.0.1:8199", url), "docs/serve.md", "exec"), {})
    answers = capsys.readouterr().out.strip()
    assert answers
    assert "None" not in answers
