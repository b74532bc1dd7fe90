"""The run directory: what was run, on which data, with which versions; checked when it is opened again."""

from __future__ import annotations

import json
import platform
import sys
import time
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, final

from attrs import field, frozen

from copl import __version__
from copl.errors import RunError
from copl.interfaces import PreferenceModel
from copl.plugins import Plugins
from copl.runs.recipe import Draft, Recipe, merge, read_recipe, resolve, write_recipe
from copl.system.files import write_text

RUN_FORMAT = 1
RUN_FILE = "run.json"
CONFIG_FILE = "config.toml"
LOG_FILE = "log.jsonl"
METRICS_FILE = "metrics.json"
REPORT_FILE = "report.html"
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "torch-geometric", "numpy", "scipy", "pyarrow")


def installed_versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    found = {"copl": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


@final
@frozen(eq=False)
class Run:
    """A run directory and the recipe it holds.

    Attributes:
        root: the directory.
        recipe: the resolved recipe.
        facts: content of ``run.json``.
    """

    root: Path
    recipe: Recipe
    facts: Mapping[str, Any] = field(repr=False)

    @property
    def data_directory(self) -> Path:
        """Where the data set was when the run was made."""
        return Path(self.facts["data"]["path"])

    def load_method(self) -> PreferenceModel:
        """Return the fitted method.

        Raises:
            RunError: the run is not finished, or a stage is missing or damaged.
        """
        if self.facts.get("status") != "finished":
            raise RunError(
                f"{self.root}: this run is not finished; `copl train --resume --out {self.root}` continues it"
            )
        method: PreferenceModel = self.recipe.build()
        method.load(self.root)
        return method

    def finish(self, seconds: float, stages: Mapping[str, str]) -> Run:
        """Mark the run as finished and return it anew."""
        facts = {**self.facts, "status": "finished", "seconds": round(seconds, 1), "stages": dict(stages)}
        _write_facts(self.root, facts)
        return Run(self.root, self.recipe, facts)


def _write_facts(root: Path, facts: Mapping[str, Any]) -> None:
    write_text(root / RUN_FILE, json.dumps(facts, indent=1) + "\n")


def _differences(old: Any, new: Any, where: str = "") -> list[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        return [
            line
            for key in sorted(old.keys() | new.keys())
            for line in _differences(old.get(key), new.get(key), f"{where}.{key}" if where else key)
        ]
    return [] if old == new else [f"{where}: {old!r} there, {new!r} now"]


def _read_facts(root: Path) -> dict[str, Any]:
    path = root / RUN_FILE
    if not root.exists():
        raise RunError(f"{root}: no such run directory")
    if not path.is_file():
        raise RunError(f"{root}: not a run directory (it has no {RUN_FILE})")
    try:
        facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        found_format, data, recipe = facts["format"], facts["data"]["path"], facts["recipe"]
    except (ValueError, KeyError, TypeError, UnicodeDecodeError) as error:
        raise RunError(f"{path}: damaged; train again into another directory") from error
    if found_format != RUN_FORMAT or not isinstance(data, str) or not isinstance(recipe, dict):
        raise RunError(
            f"{root}: a run of copl {facts.get('versions', {}).get('copl', 'unknown')} in run format {found_format}; "
            f"this is copl {__version__}, which reads format {RUN_FORMAT}; train again, or install that version"
        )
    return facts


def create_run(root: Path, recipe: Recipe, data: Path, fingerprint: str) -> Run:
    """Make a run directory, or take up one that holds the same recipe and data.

    Raises:
        RunError: the directory holds something else, or a run with other options or data.
    """
    if root.exists() and not root.is_dir():
        raise RunError(f"{root}: is a file, not a directory; choose another --out")
    config = recipe.to_dict()
    if root.exists() and any(root.iterdir()):
        facts = _read_facts(root)
        faults = _differences(facts["recipe"], config)
        if facts["data"]["fingerprint"] != fingerprint:
            faults.append(f"data: {facts['data']['path']} there, other content in {data} now")
        if faults:
            raise RunError([f"{root} holds a run with other settings; choose another --out", *faults])
        return Run(root, recipe, facts)
    root.mkdir(parents=True, exist_ok=True)
    facts = {
        "format": RUN_FORMAT,
        "status": "started",
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "command": " ".join(sys.argv[1:]),
        "data": {"path": str(data.resolve()), "fingerprint": fingerprint},
        "recipe": config,
        "components": {
            choice.kind: {
                "name": choice.name,
                "package": choice.registered.package,
                "version": choice.registered.package_version,
                "reference": choice.registered.component.reference,
            }
            for choice in (recipe.method, *recipe.stages.parts.values())
        },
        "versions": installed_versions(),
    }
    write_text(root / CONFIG_FILE, write_recipe(recipe))
    _write_facts(root, facts)
    return Run(root, recipe, facts)


def open_run(root: Path, plugins: Plugins, changes: Draft | None = None) -> Run:
    """Open a run directory.

    Args:
        root: the run directory.
        plugins: where its components come from.
        changes: option values that have changed since, by section, such as where the backbone lies here.

    Raises:
        RunError: it is missing, foreign, damaged or from another version.
        OptionsError: its recipe needs a component or option that is not installed here.
    """
    facts = _read_facts(root)
    draft, seed = read_recipe(root / CONFIG_FILE)
    return Run(root, resolve(merge(draft, changes or {}), plugins, seed=seed or 0), facts)
