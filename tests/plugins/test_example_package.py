"""The example package, from a built wheel, in an environment of its own: chosen by name without a line of glue."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

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


def test_the_wheels_are_what_is_imported(environment: Path, run: Run, tmp_path: Path) -> None:
    code = "import copl, copl_svd; print(copl.__file__); print(copl_svd.__file__)"
    files = run(environment / "python", "-c", code, cwd=tmp_path).split()
    assert [Path(file).is_relative_to(environment.parent) for file in files] == [True, True]


def test_the_encoder_is_listed_with_its_package(environment: Path, run: Run, tmp_path: Path) -> None:
    listed = json.loads(run(environment / "copl", "plugins", "list", "encoder", "--json", cwd=tmp_path))
    packages = {component["name"]: component["package"] for component in listed["components"]}
    assert packages["svd"] == "copl-svd"
    assert packages["gcf"] == "copl"
    assert not {"copl", "copl-svd"} & {plugin["package"] for plugin in listed["broken"]}


def test_the_encoder_is_fitted_by_name(environment: Path, run: Run, tmp_path: Path) -> None:
    code = """
from copl.plugins import load
from copl.system.progress import SilentProgress
from copl.testing.planted import accuracy, planted_graph
case = planted_graph()
encoder = load().registry("encoder").create("svd", {"embedding_dim": "4"})
found = encoder.fit(case.graph, seed=0, progress=SilentProgress())
print(found.dim, accuracy(found, found.users, case.heldout))
"""
    dim, share = run(environment / "python", "-c", code, cwd=tmp_path).split()
    assert dim == "4"
    assert float(share) > 0.95  # all held-out comparisons of the planted graph can be right


def test_the_package_passes_its_own_tests_there(environment: Path, run: Run, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    printed = run(environment / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=tmp_path)
    assert "passed" in printed
    assert "failed" not in printed


def test_the_wheel_holds_the_templates_of_new_packages(environment: Path, run: Run, tmp_path: Path) -> None:
    run(environment / "copl", "plugins", "new", "mine", "--kind", "metric", cwd=tmp_path)
    assert (tmp_path / "mine" / "src" / "mine" / "__init__.py").is_file()
