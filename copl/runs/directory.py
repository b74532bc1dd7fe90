"""The run directory: what was run, on which data, with which versions; checked when it is opened again."""

from __future__ import annotations

import os
import platform
import shutil
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import final

from attrs import evolve, field, frozen

from copl import __version__
from copl.errors import RunError
from copl.interfaces import PreferenceModel
from copl.plugins import Plugins, load
from copl.runs.facts import RUN_FILE, RUN_FORMAT, ComponentFacts, DataFacts, FormerFacts, RunFacts, read_facts
from copl.runs.recipe import (
    Draft,
    Recipe,
    as_written,
    canonical_hash,
    differences,
    merge,
    read_recipe,
    resolve,
    write_recipe,
)
from copl.runs.stages import fitted_stages, read_stage, verify_stage
from copl.system.documents import write_document
from copl.system.files import HeldError, held, is_free, is_scratch, new_directory, write_text
from copl.system.processes import is_main

CONFIG_FILE = "config.toml"
LOG_FILE = "log.jsonl"
REPORT_FILE = "report.html"
LOCK_FILE = ".lock"
_MOVABLE = frozenset({"backbone.path", "backbone.name"})
_PACKAGES = ("torch", "transformers", "peft", "accelerate", "torch-geometric", "numpy", "scipy", "pyarrow")


def installed_versions() -> dict[str, str]:
    """Return the versions that a result may depend on."""
    own = {"copl": __version__, "python": platform.python_version(), "platform": platform.platform()}
    return own | {package: _installed_version(package) for package in _PACKAGES}


@cache  # a lookup parses the package's whole description
def _installed_version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


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
    facts: RunFacts = field(repr=False)

    @property
    def data_directory(self) -> Path:
        """Where the data set was when the run was made."""
        return Path(self.facts.data.path)

    @property
    def fingerprint(self) -> str:
        """A text that is equal exactly when two runs hold the same fitted method: the keys of its stages."""
        return canonical_hash({stage.name: read_stage(stage).key for stage in fitted_stages(self.root)})

    def require_held_out(self, same_data: bool) -> None:
        """Refuse to measure a run on what it has learned.

        Args:
            same_data: whether it is to be measured on the data set that it was trained on.

        Raises:
            RunError: it has learned all of that.
        """
        if same_data and self.facts.data.everyone:
            raise RunError(
                f"{self.root}: learned from everyone and everything (--all), so its data has nothing left to measure "
                "it by; train without --all to know how good the recipe is, or name other data with --data"
            )

    def require_finished(self) -> None:
        """Refuse a run that was not trained to the end.

        Raises:
            RunError: it was not.
        """
        if self.facts.status != "finished":
            raise RunError(
                f"{self.root}: this run is not finished; `copl train --resume --out {self.root}` continues it"
            )

    def load_method(self) -> PreferenceModel:
        """Return the fitted method, after checking every file it is made of.

        Raises:
            RunError: the run is not finished, or a stage is missing or damaged.
        """
        self.require_finished()
        kept = [self.root / name for name in self.facts.stages if (self.root / name).is_dir()]
        for stage in sorted({*fitted_stages(self.root), *kept}):
            verify_stage(stage)
        method: PreferenceModel = self.recipe.build()
        method.load(self.root)
        return method

    def reopen(self) -> None:
        """Mark the run as unfinished, before one of its stages becomes another."""
        if self.facts.status == "finished":
            write_document(self.root / RUN_FILE, evolve(self.facts, status="started"))

    def finish(self, seconds: float, stages: Mapping[str, str], former: FormerFacts | None = None) -> Run:
        """Mark the run as finished, by the versions of today, and return it anew.

        A run that was finished before and has kept all its stages is left as it is.

        Args:
            seconds: how long training took.
            stages: by name, whether each was computed or reused.
            former: what became of the run that it goes on from.
        """
        now = read_facts(self.root)
        if now.status == "finished":
            return self
        facts = evolve(
            now,
            status="finished",
            seconds=round(seconds, 1),
            stages=dict(stages),
            versions=installed_versions(),
            components=_components(self.recipe),
            former=former,
        )
        write_document(self.root / RUN_FILE, facts)
        return Run(self.root, self.recipe, facts)

    def note_measured(self, checksum: str) -> None:
        """Keep the checksum of ``metrics.json``, which is about to be written."""
        now = read_facts(self.root)
        if now.measured != checksum:
            write_document(self.root / RUN_FILE, evolve(now, measured=checksum))

    def discard(self) -> None:
        """Remove what a refused training has left, if it has fitted nothing: another recipe may go there then."""
        if is_main() and not fitted_stages(self.root):
            shutil.rmtree(self.root, ignore_errors=True)

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other processes from writing into the run directory.

        Raises:
            RunError: another one does; it says which.
        """
        if not is_main():
            yield
            return
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        words = f"process {os.getpid()} on {socket.gethostname()} since {since} (copl {' '.join(sys.argv[1:])})"
        try:
            with held(self.root / LOCK_FILE, words):
                yield
        except HeldError as error:
            holder = error.holder or "another process"
            raise RunError(f"{self.root}: {holder} is writing here; wait for it or choose another --out") from error


def _components(recipe: Recipe) -> dict[str, ComponentFacts]:
    return {
        choice.kind: ComponentFacts(
            choice.name,
            choice.registered.package,
            choice.registered.package_version,
            choice.registered.component.reference,
        )
        for choice in (recipe.method, *recipe.stages.parts.values())
    }


def create_run(
    root: Path,
    recipe: Recipe,
    data: Path,
    fingerprint: str,
    *,
    everyone: bool = False,
    former: FormerFacts | None = None,
) -> Run:
    """Make a run directory, or take up one that holds the same recipe and data.

    Args:
        root: the directory.
        recipe: the recipe.
        data: where the data set is.
        fingerprint: its fingerprint.
        everyone: whether it is learned whole.
        former: the run it goes on from.

    Raises:
        RunError: the directory holds something else, or a run with other options or data.
    """
    if root.exists() and not root.is_dir():
        raise RunError(f"{root}: is a file, not a directory; choose another --out")
    config = recipe.to_dict()
    written = write_recipe(recipe)
    if not is_free(root) and not _is_unborn(root, written):
        facts = read_facts(root)
        tables = {section: dict(values) for section, values in facts.recipe.items() if isinstance(values, Mapping)}
        faults = differences({**facts.recipe, **as_written(tables, load())}, config)
        if facts.data.fingerprint != fingerprint:
            faults.append(f"data: {facts.data.path} there, other content in {data} now")
        if facts.data.everyone != everyone:
            whole, split = "everyone and everything (--all)", "the training split"
            before, now = (whole, split) if facts.data.everyone else (split, whole)
            faults.append(f"learns from {before} there, from {now} now")
        if _ancestor(facts.former) != _ancestor(former):
            before, now = (f"from {one.path}" if one else "from nothing" for one in (facts.former, former))
            faults.append(f"goes on {before} there, {now} now" + (" (as it is now)" if before == now else ""))
        if faults:
            raise RunError([f"{root} holds a run with other settings; choose another --out", *faults])
        return Run(root, recipe, facts)
    facts = RunFacts(
        RUN_FORMAT,
        "started",
        created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        command=" ".join(sys.argv[1:]),
        data=DataFacts(str(data.resolve()), fingerprint, everyone),
        recipe=config,
        components=_components(recipe),
        versions=installed_versions(),
        former=former,
    )
    if root.exists():  # it may be where a disk is mounted, so it stays
        _fill(root, written, facts)
    else:
        with new_directory(root) as fresh:
            _fill(fresh, written, facts)
    return Run(root, recipe, facts)


def _ancestor(former: FormerFacts | None) -> str | None:
    return None if former is None else former.fingerprint


def _fill(root: Path, config: str, facts: RunFacts) -> None:
    write_text(root / CONFIG_FILE, config)
    write_document(root / RUN_FILE, facts)


def _is_unborn(root: Path, config: str) -> bool:
    """Whether a directory holds what `create_run` leaves there when it is killed, and no more."""
    content = [path for path in root.iterdir() if not is_scratch(path)]
    return content == [root / CONFIG_FILE] and content[0].is_file() and content[0].read_bytes() == config.encode()


def open_run(root: Path, plugins: Plugins, changes: Draft | None = None) -> Run:
    """Open a run directory.

    Args:
        root: the run directory.
        plugins: where its components come from.
        changes: option values that have changed since, by section, such as where the backbone lies here.

    Raises:
        RunError: it is missing, foreign, damaged, changed or from another version.
        OptionsError: its recipe needs a component or option that is not installed here.
    """
    facts = read_facts(root)
    draft, seed = read_recipe(root / CONFIG_FILE)
    _require_same_recipe(root, {"seed": seed, **draft}, facts.recipe)
    return Run(root, resolve(merge(as_written(draft, plugins), changes or {}), plugins, seed=seed or 0), facts)


def _require_same_recipe(root: Path, config: Mapping[str, object], recipe: Mapping[str, object]) -> None:
    """Refuse a run of which one of the two places that hold its recipe was changed: it would answer otherwise.

    Raises:
        RunError: a line for each value that differs, but for where the backbone lies, whose weights are checked.
    """
    changed = differences(recipe, config, but=_MOVABLE)
    if changed:
        advice = f"put {CONFIG_FILE} back as it was, or train with it into another directory"
        where = f"{root / CONFIG_FILE}: is not what the run was made with ({RUN_FILE})"
        raise RunError([f"{where}: {line}; {advice}" for line in changed])


def former_of(run: Run, plugins: Plugins) -> Run | None:
    """Return the run that a run goes on from, as it was then; None where there is none.

    Raises:
        RunError: it is not there any more, or holds something else now.
    """
    former = run.facts.former
    if former is None:
        return None
    advice = f"train again into another directory instead of resuming {run.root}"
    try:
        opened = open_run(Path(former.path), plugins)
    except RunError as error:
        raise RunError([*error.faults, advice]) from error
    if opened.fingerprint != former.fingerprint:
        raise RunError(f"{opened.root}: was another run when {run.root} began to go on from it; {advice}")
    return opened
