"""What the page of promises names is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "trust.md").read_text(encoding="utf-8")


def test_every_test_that_a_promise_names_is_there() -> None:
    named = re.findall(r"`((?:tests|benchmarks)/[\w/.]*)(?:::(\w+))?`", PAGE)
    assert len(named) > 30
    for path, name in named:
        place = ROOT / path
        assert place.exists(), path
        if name:
            functions = {node.name for node in ast.parse(place.read_text()).body if isinstance(node, ast.FunctionDef)}
            assert name in functions, f"{path}::{name}"
