"""`copl serve` on the command line."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

RunCopl = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--upstream", "http://host:port/v1"], "--upstream http://host:port/v1: Invalid port: 'port'"),
        (["--upstream", "host/v1"], "--upstream host/v1: expected an address such as http://127.0.0.1:8000/v1"),
        (["--allow-origin", "*"], "--allow-origin *: expected scheme and host of a page"),
        (["--allow-origin", "https://chat.example/"], "--allow-origin https://chat.example/: expected scheme and host"),
        (["--generator", "facets, locl"], "--generator locl: there is none (did you mean 'local'?)"),
    ],
)
def test_options_that_will_not_do_are_told_before_anything_begins(
    words: Sequence[str], fault: str, run_copl: RunCopl, tmp_path: Path
) -> None:
    (tmp_path / "run.json").touch()
    code, _, err = run_copl("serve", tmp_path, *words)
    assert code == 2
    [line] = err.splitlines()
    assert line.startswith(f"copl: {fault}")
    assert [path.name for path in tmp_path.iterdir()] == ["run.json"]


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
