"""Rows whose columns are called otherwise, on the command line."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from copl.commands.parts.arguments import column_names, component_values
from copl.errors import OptionsError

RunCopl = Callable[..., tuple[int, str, str]]


@pytest.mark.parametrize(
    ("command", "support", "more"),
    [
        ("adapt", None, ("--out", "{}/a.safetensors")),
        ("score", None, ("--out", "{}/s.jsonl")),
        ("explain", "--support", ("--user", "ann")),
        ("ask", "--support", ("{}/c.jsonl",)),
        ("align", "--support", ("{}/c.jsonl", "--out", "{}/o.jsonl")),
    ],
)
def test_columns_are_named(
    run_copl: RunCopl, tmp_path: Path, command: str, support: str | None, more: tuple[str, ...]
) -> None:
    (tmp_path / "c.jsonl").write_text('{"prompt": "p", "first": "a", "second": "b"}\n')
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"who": "ann", "prompt": "p", "response": "a", "thumb": "up"}\n')
    arguments = [command, tmp_path / "run", *([support] if support else []), rows, *(m.format(tmp_path) for m in more)]
    code, _, err = run_copl(*arguments)
    assert code == 2
    assert "no column 'user_id'; it has who, prompt, response, thumb; if one of these is meant, name it with" in err
    code, _, err = run_copl(*arguments, "--columns", "user_id=who")
    assert (code, "no such run directory" in err) == (2, True)


def test_what_columns_are_called() -> None:
    rows = Path("rows.csv")
    assert column_names(None, None) == {}
    assert column_names("user_id=who, thumb = mark,", rows) == {"user_id": "who", "thumb": "mark"}
    for text in ("who", "user_id=", "=who"):
        with pytest.raises(OptionsError, match=f"--columns {text}: expected name=column"):
            column_names(text, rows)
    for nowhere in (None, Path()):
        with pytest.raises(OptionsError, match="--columns: there is no file of rows"):
            column_names("user_id=who", nowhere)


def test_entries_of_a_table_are_set_one_by_one() -> None:
    given = ["columns.user_id=who", "columns.thumb=mark", "path=a.b/c.csv"]
    assert component_values(given) == {"columns": {"user_id": "who", "thumb": "mark"}, "path": "a.b/c.csv"}
    both = ["columns=user_id=who", "columns.thumb=mark"]
    for twice in (both, both[::-1]):
        with pytest.raises(OptionsError, match="columns is given as a whole and by its entries"):
            component_values(twice)
