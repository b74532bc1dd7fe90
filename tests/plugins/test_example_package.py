"""The example package, from a built wheel, in an environment of its own: chosen by name without a line of glue."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

EXAMPLE = Path(__file__).resolve().parents[2] / "plugins" / "copl-svd"
Run = Callable[..., str]

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory, build_wheel: Callable[..., Path], make_environment: Callable[..., Path]
) -> Path:
    """The programs of an environment with both wheels."""
    work = tmp_path_factory.mktemp("environment")
    return make_environment(work, build_wheel(EXAMPLE, ("src", "pyproject.toml", "README.md"), work))


PROGRAM = """
import json
from pathlib import Path

import copl
import copl_svd
from copl.plugins import load
from copl.scaffold import new_plugin
from copl.system.progress import SilentProgress
from copl.testing.planted import accuracy, planted_graph

registered = load().registry("encoder")
case = planted_graph()
embeddings = registered.create("svd", {"embedding_dim": "4"}).fit(case.graph, seed=0, progress=SilentProgress())
new_plugin("mine", "metric", Path("mine"), load())
seen = {
    "files": [copl.__file__, copl_svd.__file__],
    "packages": {name: registered.get(name).package for name in ("svd", "gcf")},
    "broken": [plugin.package for plugin in load().broken],
    "dim": embeddings.dim,
    "accuracy": float(accuracy(embeddings, embeddings.users, case.heldout)),
}
print(json.dumps(seen))
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the program runs."""
    return tmp_path_factory.mktemp("work")


@pytest.fixture(scope="module")
def seen(environment: Path, run: Run, work: Path) -> dict[str, Any]:
    """What a program sees in that environment, all in one process."""
    known: dict[str, Any] = json.loads(run(environment / "python", "-c", PROGRAM, cwd=work).splitlines()[-1])
    return known


def test_the_wheels_are_what_is_imported(seen: dict[str, Any], environment: Path) -> None:
    assert [Path(file).is_relative_to(environment.parent) for file in seen["files"]] == [True, True]


def test_the_encoder_is_known_with_its_package(seen: dict[str, Any]) -> None:
    assert seen["packages"] == {"svd": "copl-svd", "gcf": "copl"}
    assert not {"copl", "copl-svd"} & set(seen["broken"])


def test_the_encoder_is_fitted_by_name(seen: dict[str, Any]) -> None:
    assert seen["dim"] == 4
    assert seen["accuracy"] > 0.95  # all held-out comparisons of the planted graph can be right


def test_the_wheel_holds_the_templates_of_new_packages(seen: dict[str, Any], work: Path) -> None:
    assert (work / "mine" / "src" / "mine" / "__init__.py").is_file()


def test_the_program_is_installed(environment: Path, run: Run, tmp_path: Path) -> None:
    listed = json.loads(run(environment / "copl", "plugins", "list", "encoder", "--json", cwd=tmp_path))
    assert "svd" in {component["name"] for component in listed["components"]}
