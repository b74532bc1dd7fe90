"""Tiny runs, and services in this process on a free port of loopback, each with a store of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from copl.interfaces import Progress
from copl.plugins import load
from copl.runs.pipeline import train
from copl.runs.recipe import resolve
from copl.serve.settings import ServeOptions
from copl.system.progress import RunLog, SilentProgress
from tests.serve.postgresql import PostgreSQL
from tests.serve.running import Running, running

FEW_STEPS = {"max_steps": 2, "batch_size": 4, "eval_every": 1, "max_length": 64}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a model be loaded while other threads work: filters of warnings belong to the process, not to a thread."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for message in ("`is_gradient_checkpointing` is deprecated", "The 'alias' attribute with value"):
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{message}"))


@contextmanager
def _silent(log: Path | None) -> Iterator[Progress]:
    yield SilentProgress(RunLog(log))


def _train(data: Path, out: Path, draft: dict[str, dict[str, Any]], seed: int = 0) -> Path:
    recipe = resolve({"encoder": {"name": "latent-groups"}, **draft}, load(), seed=seed)
    train(recipe, data, out, open_progress=_silent, cache=None)
    return out


@pytest.fixture(scope="session")
def run(small_data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of method `copl` that reads any text."""
    draft = {"method": {"name": "copl"}, "backbone": {"name": str(tiny_model)}, "reward": FEW_STEPS}
    return _train(small_data, tmp_path_factory.mktemp("served") / "copl", draft)


@pytest.fixture(scope="session")
def other_run(small_data: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with another seed."""
    draft = {"method": {"name": "copl"}, "backbone": {"name": str(tiny_model)}, "reward": FEW_STEPS}
    return _train(small_data, tmp_path_factory.mktemp("served") / "copl", draft, seed=1)


@pytest.fixture
def serving(run: Path, tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """Return a function that starts a service with options, on a store of the test's own."""
    with ExitStack() as stack:

        def start(*, of: Path = run, wait: bool = True, **options: Any) -> Running:
            values = {"store": str(tmp_path / "events.sqlite"), "rate": 0.0, **options}
            return stack.enter_context(running(of, ServeOptions(**values), wait=wait))

        yield start


@pytest.fixture(scope="module")
def shared_service(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A service without tokens for all tests of a module; each speaks for users of its own."""
    store = tmp_path_factory.mktemp("store") / "events.sqlite"
    with running(run, ServeOptions(store=str(store))) as one:
        yield one


@pytest.fixture(scope="session")
def postgresql_server() -> Iterator[PostgreSQL]:
    """A server of the tests' own."""
    pytest.importorskip("psycopg", reason="the driver psycopg is not installed")
    if (binaries := PostgreSQL.binaries()) is None:
        pytest.skip("no PostgreSQL server binaries (Debian: apt-get install postgresql)")
    with PostgreSQL.running(binaries) as server:
        yield server


@pytest.fixture
def postgresql(postgresql_server: PostgreSQL) -> str:
    """Address of a database of the test's own on that server."""
    return postgresql_server.new_database()
