"""A page is kept only where it is whole and was made of the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import attrs
import numpy as np
import pytest

from copl.evaluate.report import ReportInputs
from copl.records import Measurement
from copl.runs.keeping import digest_of, is_page_of, sealed

SAME = digest_of("what it was made of")


@pytest.fixture
def page(tmp_path: Path) -> Path:
    path = tmp_path / "page.html"
    path.write_text(sealed("<html>\nÄ\n</html>\n", SAME), encoding="utf-8")
    return path


def test_a_page_is_known_again(page: Path) -> None:
    assert is_page_of(page, SAME)
    assert page.read_text(encoding="utf-8").startswith("<html>\nÄ\n</html>\n<!-- made of ")


def test_of_something_else_or_not_there_it_is_not(page: Path) -> None:
    assert not is_page_of(page, digest_of("another"))
    assert not is_page_of(page.with_name("absent"), SAME)
    assert not is_page_of(page.parent, SAME)


@pytest.mark.parametrize("damage", ["cut", "edited", "empty", "bytes", "without its last line"])
def test_a_damaged_page_is_none(page: Path, damage: str) -> None:
    whole = page.read_bytes()
    page.write_bytes(
        {
            "cut": whole[:-8],
            "edited": whole.replace(b"html", b"HTML", 1),
            "empty": b"",
            "bytes": b"\xff" + whole,
            "without its last line": whole[: whole.index(b"<!--")],
        }[damage]
    )
    assert not is_page_of(page, SAME)


@pytest.mark.parametrize(
    "change",
    [
        {"title": "another"},
        {"measurements": {"copl": [Measurement("test", "all", "accuracy", 0.8, 0.7, 0.91, 10)]}},
        {"measurements": {"btl": [Measurement("test", "all", "accuracy", 0.8, 0.7, 0.9, 10)]}},
        {"user_embeddings": np.array([[1.0, 2.5]])},
        {"user_embeddings": np.array([[1.0], [2.0]])},
        {"user_embeddings": None},
        {"facts": {"seed": "0"}},
        {"notes": ("a", "b")},
    ],
    ids=str,
)
def test_every_part_of_a_report_counts(change: dict[str, Any]) -> None:
    inputs = ReportInputs(
        measurements={"copl": [Measurement("test", "all", "accuracy", 0.8, 0.7, 0.9, 10)]},
        user_embeddings=np.array([[1.0, 2.0]]),
        facts={"seed": 0},
        notes=("ab",),
    )
    assert digest_of(inputs) == digest_of(attrs.evolve(inputs))
    assert digest_of(inputs) != digest_of(attrs.evolve(inputs, **change))
