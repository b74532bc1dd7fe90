"""``copl plugins new``: for every kind, what it writes is in good style, keeps the contract and passes its tests."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from copl.plugins import KINDS, Plugins, Registered, load
from copl.scaffold import new_plugin
from copl.testing import check_component
from copl.testing.tiny_model import write_tiny_model

ROOT = Path(__file__).resolve().parents[2]
RunCopl = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a new package of each kind, called ``fresh-<kind>``."""
    root = tmp_path_factory.mktemp("packages")
    for kind in KINDS:
        new_plugin(f"fresh-{kind}", kind, root / f"fresh-{kind}", load())
    return root


@pytest.fixture
def registered_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[Path, str], Registered]:
    """Return a function that loads the component of a package by the entry point it declares, without installing it."""

    def register(package: Path, kind: str) -> Registered:
        project = tomllib.loads((package / "pyproject.toml").read_text())["project"]
        ((name, module),) = project["entry-points"]["copl"].items()
        monkeypatch.syspath_prepend(str(package / "src"))
        plugins = Plugins()
        plugins.register(importlib.import_module(module), name, project["name"], project["version"])
        return plugins.registry(kind).get(name)

    return register


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_component_keeps_its_contract(
    kind: str, packages: Path, tmp_path: Path, registered_in: Callable[[Path, str], Registered]
) -> None:
    registered = registered_in(packages / f"fresh-{kind}", kind)
    values = {"path": str(write_tiny_model(tmp_path / "model", ["a brief answer"]))} if kind == "backbone" else {}
    results = check_component(registered, kind, values)
    assert {result.name: result.detail for result in results if result.outcome != "passed"} == {}
    assert len(results) > 6  # beyond what every component has


def test_new_packages_are_listed_without_torch(packages: Path) -> None:
    sources = [str(packages / f"fresh-{kind}" / "src") for kind in KINDS]
    program = f"import {', '.join(f'fresh_{kind}' for kind in KINDS)}, sys; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([*sources, os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_new_packages_are_in_good_style(packages: Path) -> None:
    for command in (["check"], ["format", "--check"]):
        words = ["ruff", *command, "--config", str(ROOT / "pyproject.toml"), "--no-cache", str(packages)]
        done = subprocess.run([sys.executable, "-m", *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.slow
def test_new_packages_pass_their_own_tests(packages: Path, tmp_path: Path) -> None:
    """All at once in another process, which finds them as installed packages."""
    for kind in KINDS:
        entry_points = tomllib.loads((packages / f"fresh-{kind}" / "pyproject.toml").read_text())["project"][
            "entry-points"
        ]
        info = tmp_path / f"fresh_{kind}-0.1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: fresh-{kind}\nVersion: 0.1.0\n")
        lines = [f"{name} = {module}" for name, module in entry_points["copl"].items()]
        (info / "entry_points.txt").write_text("\n".join(["[copl]", *lines]) + "\n")
    paths = [str(tmp_path), *(str(packages / f"fresh-{kind}" / "src") for kind in KINDS)]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", "--import-mode=importlib", "."],
        cwd=packages,
        env={**os.environ, "PYTHONPATH": os.pathsep.join([*paths, os.environ.get("PYTHONPATH", "")])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "passed" in done.stdout
    assert "skipped" not in done.stdout


def test_the_command_writes_a_package_and_says_what_is_next(
    run_copl: RunCopl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = run_copl("plugins", "new", "copl-my-votes", "--kind", "gate")
    assert code == 0
    assert out.split() == [
        "copl-my-votes/pyproject.toml",
        "copl-my-votes/README.md",
        "copl-my-votes/src/copl_my_votes/__init__.py",
        "copl-my-votes/src/copl_my_votes/gate.py",
        "copl-my-votes/tests/test_my_votes.py",
    ]
    assert err.strip() == (
        "next: pip install -e copl-my-votes && copl plugins check my-votes --kind gate && pytest copl-my-votes"
    )
    assert "class MyVotesGate(ExpertGate)" in (tmp_path / out.split()[3]).read_text()


@pytest.mark.parametrize(
    ("words", "faults"),
    [
        (["My_Plugin"], ["'My_Plugin' is no name for a package; write it like copl-nearest"]),
        (["class"], ["'class' is no name for a package"]),
        (["numpy"], ["a module 'numpy' is installed already"]),
        (["gcf"], ["encoder 'gcf' is registered by package 'copl' already"]),
        (["mine", "--kind", "encodr"], ["unknown kind 'encodr' (did you mean 'encoder'?)"]),
        (["Mine", "--kind", "gat", "--out", "."], ["unknown kind 'gat'", "'Mine' is no name", ".: exists"]),
    ],
)
def test_what_will_not_do_is_told_and_nothing_is_written(
    words: list[str], faults: list[str], run_copl: RunCopl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.txt").touch()
    code, out, err = run_copl("plugins", "new", *words)
    assert (code, out) == (2, "")
    for line, fault in zip(err.splitlines(), faults, strict=True):
        assert fault in line
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
