"""The example package, from a built wheel, in an environment of its own: chosen by name without a line of glue."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "plugins" / "copl-spectral"

pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Run a command in a clean environment and return what it printed."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}
    environment |= {"OMP_NUM_THREADS": "1", "COPL_CACHE": str(cwd / "cache")}
    done = subprocess.run([*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def build_wheel(project: Path, parts: tuple[str, ...], work: Path) -> Path:
    """Build a wheel from a copy, so that nothing is left in the working tree."""
    source, target = work / f"{project.name}-source", work / f"{project.name}-wheel"
    source.mkdir()
    for part in parts:
        if (project / part).is_dir():
            shutil.copytree(project / part, source / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
        else:
            shutil.copy(project / part, source / part)
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    run(*pip, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", target, source, cwd=work)
    (wheel,) = target.glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an environment with both wheels; torch and the like come from the running one."""
    work = tmp_path_factory.mktemp("environment")
    copl = build_wheel(ROOT, ("copl", "pyproject.toml", "README.md", "LICENSE"), work)
    example = build_wheel(EXAMPLE, ("src", "pyproject.toml", "README.md"), work)
    home = work / "venv"
    run(sys.executable, "-m", "venv", "--without-pip", home, cwd=work)
    python = home / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--python", python)
    run(*pip, "install", "--no-deps", "--no-index", copl, example, cwd=work)
    # Only after the installation: pip would take the running environment's copl for the one asked for. A path file
    # appends to the search path, so the wheels come first, and an editable copl there is not activated at all.
    (site,) = (home / "lib").glob("python*/site-packages")
    paths = sysconfig.get_paths()
    (site / "running-environment.pth").write_text(f"{paths['purelib']}\n{paths['platlib']}\n", encoding="utf-8")
    return home / "bin"


def test_the_wheels_are_what_is_imported(environment: Path, tmp_path: Path) -> None:
    code = "import copl, copl_spectral; print(copl.__file__); print(copl_spectral.__file__)"
    files = run(environment / "python", "-c", code, cwd=tmp_path).split()
    assert [Path(file).is_relative_to(environment.parent) for file in files] == [True, True]


def test_the_encoder_is_listed_with_its_package(environment: Path, tmp_path: Path) -> None:
    listed = json.loads(run(environment / "copl", "plugins", "list", "encoder", "--json", cwd=tmp_path))
    packages = {component["name"]: component["package"] for component in listed["components"]}
    assert packages["spectral"] == "copl-spectral"
    assert packages["gcf"] == "copl"
    assert listed["broken"] == []


def test_the_encoder_is_fitted_by_name(environment: Path, tmp_path: Path) -> None:
    code = """
from copl.plugins import load
from copl.progress import SilentProgress
from copl.testing.planted import accuracy, planted_graph
case = planted_graph()
encoder = load().registry("encoder").create("spectral", {"embedding_dim": "4"})
found = encoder.fit(case.graph, seed=0, progress=SilentProgress())
print(found.dim, accuracy(found, found.users, case.heldout))
"""
    dim, share = run(environment / "python", "-c", code, cwd=tmp_path).split()
    assert dim == "4"
    assert float(share) > 0.95  # all held-out comparisons of the planted graph can be right


def test_the_package_passes_its_own_tests_there(environment: Path, tmp_path: Path) -> None:
    shutil.copytree(EXAMPLE / "tests", tmp_path / "tests")
    printed = run(environment / "python", "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests", cwd=tmp_path)
    assert "passed" in printed
    assert "failed" not in printed


def test_the_encoder_is_swapped_in_from_the_command_line(environment: Path, tmp_path: Path) -> None:
    copl = environment / "copl"
    run(copl, "plugins", "check", "spectral", cwd=tmp_path)
    run(copl, "data", "make", "facets", "--out", "toy", cwd=tmp_path)
    run(copl, "train", "toy", "--out", "run", "--method", "graph", "--encoder", "spectral", cwd=tmp_path)
    facts = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert facts["components"]["encoder"]["package"] == "copl-spectral"
    measured = json.loads(run(copl, "evaluate", "run", "--json", cwd=tmp_path))
    assert {record["split"] for record in measured} >= {"test", "heldout"}
