"""The demo as a whole is run by the documentation's tests; here is what stops it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path


def test_missing_weights_are_an_error_before_anything_is_written(
    run_copl: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    code, _, err = run_copl("demo", "--out", tmp_path / "demo", "--backbone", tmp_path / "nowhere")
    assert code == 2
    assert f"there is no model directory {tmp_path / 'nowhere'}" in err
    assert not (tmp_path / "demo").exists()
