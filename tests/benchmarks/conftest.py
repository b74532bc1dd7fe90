"""Cells of benchmarks in this process; that they have processes of their own is tested where those are started."""

from __future__ import annotations

import importlib
import json
from collections.abc import Mapping
from typing import Any

import pytest


@pytest.fixture
def cells_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let cells run in this process, which has torch loaded; what they are given and give passes through JSON."""

    def call(target: str, arguments: Mapping[str, Any], *, threads: int, timeout: float | None = None) -> Any:
        module, _, name = target.partition(":")
        return json.loads(
            json.dumps(getattr(importlib.import_module(module), name)(**json.loads(json.dumps(arguments))))
        )

    for module in ("measured", "data_rows"):
        monkeypatch.setattr(f"benchmarks.{module}.in_own_process", call)
