"""What a run is compared with: the consensus of all users, the best that knows none, on the same comparisons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from copl.interfaces import PreferenceModel, Progress
from copl.plugins import Plugins
from copl.records import FloatArray, PreferenceData
from copl.runs.directory import Run
from copl.runs.recipe import Draft, Recipe, resolve
from copl.runs.workspace import RunWorkspace, link_tree
from copl.system.files import scratch_beside
from copl.system.processes import num_processes

if TYPE_CHECKING:
    from collections.abc import Iterator

_FEATURES = "features"


def consensus_margins(
    run: Run,
    learned: PreferenceData,
    asked: PreferenceData,
    splits: Sequence[str],
    *,
    plugins: Plugins,
    progress: Progress,
    cache: Path | None,
) -> Mapping[str, FloatArray]:
    """Return the margins of the consensus of all users on each split; of none where the run itself knows no users.

    It has the backbone of the run and its limit in tokens; where the run reads no texts, it has comparisons alone. It
    takes a second or so, as the texts have been read.

    Args:
        run: the run.
        learned: what the run was trained on.
        asked: what is to be foretold.
        splits: splits of `asked`.
        plugins: where its components come from.
        progress: where to show progress.
        cache: directory shared between runs.

    Raises:
        CoplError: the backbone is not there.
    """
    if not run.recipe.personal or num_processes() > 1 or not splits:
        return {}
    with _workspace(run, progress, cache) as workspace, progress.task("consensus of all users", total=1) as task:
        consensus: PreferenceModel = _recipe(run, plugins).build()
        consensus.fit(learned, seed=run.recipe.seed, workspace=workspace)
        margins = {split: consensus.margins(asked.split(split)) for split in splits}
        task.advance()
    return margins


@contextmanager
def _workspace(run: Run, progress: Progress, cache: Path | None) -> Iterator[RunWorkspace]:
    """Give a workspace that has what the run has read, and is gone in the end."""
    with scratch_beside(run.root / "versus") as root:
        if (run.root / _FEATURES).is_dir():
            link_tree(run.root / _FEATURES, root / _FEATURES)
        yield RunWorkspace(root, progress, cache)


def _recipe(run: Run, plugins: Plugins) -> Recipe:
    draft = run.recipe.to_dict()
    if "backbone" not in draft:
        return resolve({"method": {"name": "graph"}, "encoder": {"name": "none"}}, plugins, seed=run.recipe.seed)
    limits = [
        draft[section]["max_length"] for section in ("reward", "method") if "max_length" in draft.get(section, {})
    ]
    method = {"name": "consensus", **({"max_length": limits[0]} if limits else {})}
    chosen: Draft = {"method": method, "backbone": draft["backbone"]}
    return resolve(chosen, plugins, seed=run.recipe.seed)
