"""What a run is compared with: the consensus of all users, of the texts that the run reads."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from copl.data.dataset import load_dataset
from copl.evaluate.verdict import AVERAGE_USER, CONSENSUS
from copl.plugins import load
from copl.records import Measurement
from copl.runs.directory import open_run
from copl.runs.pipeline import evaluate, train
from copl.runs.recipe import resolve
from copl.system.files import SCRATCH_SUFFIX
from copl.system.progress import RunLog, SilentProgress, read_log

if TYPE_CHECKING:
    from collections.abc import Iterator

    from copl.interfaces import Progress


@contextmanager
def silent(log: Path | None) -> Iterator[Progress]:
    yield SilentProgress(RunLog(log))


def by_split(measurements: tuple[Measurement, ...], metric: str, subset: str) -> dict[str, float]:
    return {m.split: m.value for m in measurements if (m.metric, m.subset) == (metric, subset)}


def test_it_is_method_consensus_with_the_backbone_of_the_run(
    personal_run: Path, small_data: Path, tiny_model: Path, tmp_path: Path
) -> None:
    data = load_dataset(small_data)
    shutil.copytree(personal_run, tmp_path / "copl")
    measured = evaluate(open_run(tmp_path / "copl", load()), data, plugins=load(), open_progress=silent, cache=None)
    draft: dict[str, Any] = {"method": {"name": "consensus", "max_length": 64}, "backbone": {"name": str(tiny_model)}}
    run, _ = train(resolve(draft, load()), small_data, tmp_path / "other", open_progress=silent, cache=None)
    other = evaluate(run, data, plugins=load(), open_progress=silent, cache=None)
    own, theirs = (by_split(e.measurements, "accuracy", "all") for e in (measured, other))
    ahead = by_split(measured.measurements, "accuracy_difference", f"versus:{CONSENSUS}")
    assert ahead == pytest.approx({split: own[split] - theirs[split] for split in own})
    assert not list((tmp_path / "copl").rglob(f"*{SCRATCH_SUFFIX}"))
    assert not (tmp_path / "copl" / "consensus").exists()
    assert by_split(other.measurements, "accuracy_difference", f"versus:{CONSENSUS}") == {}  # it knows no users itself


def test_a_run_whose_data_are_gone_says_that_it_is_not_compared(
    small_run: Path, small_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(small_data, tmp_path / "data")
    shutil.copytree(small_run, tmp_path / "run")
    facts = (tmp_path / "run" / "run.json").read_text(encoding="utf-8")
    (tmp_path / "run" / "run.json").write_text(facts.replace(str(small_data), str(tmp_path / "nowhere")))
    shutil.rmtree(tmp_path / "run" / "evaluation")
    run = open_run(tmp_path / "run", load())
    measured = evaluate(run, load_dataset(tmp_path / "data"), plugins=load(), open_progress=silent, cache=None)
    assert by_split(measured.measurements, "accuracy_difference", f"versus:{CONSENSUS}") == {}
    assert by_split(measured.measurements, "accuracy_difference", f"versus:{AVERAGE_USER}")
    said = [str(record["finding"]) for record in read_log(run.root / "log.jsonl") if record["stage"] == "evaluate"]
    assert any(finding.startswith(f"not compared with {CONSENSUS}") and "nowhere" in finding for finding in said)
