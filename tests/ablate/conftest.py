"""Two tiny data sets with every split, and studies of graph encoders on them: a cell takes a fraction of a second."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from copl.ablate.conduct import Found, conduct
from copl.ablate.grid import Plan, plan
from copl.ablate.study import Flags, load_study
from copl.data.dataset import save_dataset
from copl.plugins import load
from copl.testing.planted import planted_data


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Directory with the data sets ``one`` and ``two``."""
    root = tmp_path_factory.mktemp("planted")
    for seed, name in enumerate(("one", "two")):
        save_dataset(planted_data(seed), root / name)
    return root


@pytest.fixture(scope="session")
def make_plan(planted: Path) -> Callable[..., Plan]:
    """Return a function that plans the method ``graph`` on both data sets; keywords are flags of the study."""

    def make(config: Path | None = None, **flags: Any) -> Plan:
        settings = ("method.name=graph", "encoder.name=mf", "encoder.num_steps=5", *flags.pop("settings", ()))
        flags.setdefault("data", (f"{planted / 'one'},{planted / 'two'}",))
        return plan(load_study(config, Flags(settings=settings, **flags)), load())

    return make


@pytest.fixture(scope="session")
def run_plan() -> Callable[..., tuple[Found, list[str]]]:
    """Return a function that conducts a plan in this process and gives what it found and said."""

    def run(planned: Plan, out: Path, **changes: Any) -> tuple[Found, list[str]]:
        said: list[str] = []
        how: dict[str, Any] = {"cache": None, "engine": "local", "num_jobs": None, "retry": False}
        return conduct(planned, out, plugins=load(), say=said.append, **{**how, **changes}), said

    return run
