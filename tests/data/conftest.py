from __future__ import annotations

from pathlib import Path

import pytest

from copl.data.dataset import save_dataset
from tests.data.example import example


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Directory of the example, of the test's own."""
    save_dataset(example(), tmp_path / "set")
    return tmp_path / "set"
