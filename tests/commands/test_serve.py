"""`copl serve` on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

RunCopl = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    "words", [["run"], ["run", "run"], ["run", "--port", "0"], ["--port", "0", "run"], ["run", "--port=0", "run"]]
)
def test_a_run_may_be_called_run(
    words: Sequence[str], run_copl: RunCopl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, _, err = run_copl("serve", *words)
    assert code == 2
    assert err == "copl: run: not a run directory (it has no run.json); `copl train` makes one\n"
