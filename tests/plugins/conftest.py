"""Clean environments with `copl` from a built wheel; torch and the like come from the running one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PIP = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")

Run = Callable[..., str]


@pytest.fixture(scope="session")
def run() -> Run:
    """Return a function that runs a command in a clean environment and gives what it printed."""

    def run_command(*command: object, cwd: Path, code: int = 0) -> str:
        environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COV_"))}
        environment |= {"OMP_NUM_THREADS": "1", "COPL_CACHE": str(cwd / "cache")}
        done = subprocess.run(
            [*map(str, command)], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == code, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    return run_command


@pytest.fixture(scope="session")
def build_wheel(run: Run) -> Callable[..., Path]:
    """Return a function that builds a wheel from a copy, so that nothing is left in the working tree."""

    def build(project: Path, parts: tuple[str, ...], work: Path) -> Path:
        source, target = work / f"{project.name}-source", work / f"{project.name}-wheel"
        source.mkdir()
        for part in parts:
            if (project / part).is_dir():
                shutil.copytree(
                    project / part, source / part, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info")
                )
            else:
                shutil.copy(project / part, source / part)
        run(*PIP, "wheel", "--no-deps", "--no-build-isolation", "--no-index", "-w", target, source, cwd=work)
        (wheel,) = target.glob("*.whl")
        return wheel

    return build


@pytest.fixture(scope="session")
def copl_wheel(build_wheel: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of `copl` as it is."""
    return build_wheel(ROOT, ("copl", "pyproject.toml", "README.md", "LICENSE"), tmp_path_factory.mktemp("copl"))


@pytest.fixture(scope="session")
def make_environment(run: Run, copl_wheel: Path) -> Callable[..., Path]:
    """Return a function that makes an environment with `copl` and the given wheels, and gives its ``bin`` directory."""

    def make(work: Path, *wheels: Path) -> Path:
        home = work / "venv"
        run(sys.executable, "-m", "venv", "--without-pip", home, cwd=work)
        python = home / "bin" / "python"
        run(*PIP, "--python", python, "install", "--no-deps", "--no-index", copl_wheel, *wheels, cwd=work)
        # Only after the installation: pip would take the running environment's copl for the one asked for. A path file
        # appends to the search path, so the wheels come first, and an editable copl there is not activated at all.
        (site,) = (home / "lib").glob("python*/site-packages")
        paths = sysconfig.get_paths()
        (site / "running-environment.pth").write_text(f"{paths['purelib']}\n{paths['platlib']}\n", encoding="utf-8")
        return home / "bin"

    return make
