"""Curves sent to experiment trackers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import attrs
import pytest
from accelerate import tracking

from copl.errors import OptionsError
from copl.records import PreferenceData
from copl.reward.options import RewardOptions
from copl.reward.training.trackers import Trackers
from copl.reward.training.user_vectors import UserVectors

OPTIONS = RewardOptions(max_steps=4, eval_every=2, batch_size=8, max_length=32, trainable_layers=0, warm_start=False)


class Recorder:
    """A tracker of another package, as Accelerate knows them."""

    requires_logging_directory = True
    opened: list[Recorder] = []  # noqa: RUF012  # emptied by the fixture

    def __init__(self, project: str, directory: str) -> None:
        self.project, self.directory = project, directory
        self.said: list[tuple[int | None, dict[str, Any]]] = []
        self.done = False
        self.opened.append(self)

    def start(self) -> None:
        self.said = []

    def store_init_configuration(self, values: dict[str, Any]) -> None:
        self.settings = values

    def log(self, values: dict[str, Any], step: int | None) -> None:
        self.said.append((step, values))

    def finish(self) -> None:
        self.done = True


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> type[Recorder]:
    Recorder.opened.clear()
    monkeypatch.setitem(tracking.LOGGER_TYPE_TO_CLASS, "tensorboard", Recorder)
    monkeypatch.setattr(tracking, "get_available_trackers", lambda: ["tensorboard"])
    return Recorder


def test_a_tracker_gets_settings_losses_and_looks(
    recorder: type[Recorder],
    train_tiny: Callable[..., Any],
    preferences: tuple[PreferenceData, UserVectors],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "curves"))
    train_tiny(tmp_path / "run", *preferences, attrs.evolve(OPTIONS, report_to=("tensorboard",)))
    (tracker,) = recorder.opened
    assert (tracker.project, tracker.directory, tracker.done) == ("copl", str(tmp_path / "curves"), True)
    assert tracker.settings["max_steps"] == 4
    assert [step for step, values in tracker.said if "loss" in values] == [1, 2, 3, 4]
    assert [step for step, values in tracker.said if "validation_accuracy" in values] == [2, 4]


def test_nothing_is_opened_unless_it_is_asked_for(recorder: type[Recorder], tmp_path: Path) -> None:
    Trackers((), tmp_path, {}).log(1, loss=0.5)
    assert not recorder.opened


def test_a_tracker_that_is_not_there_is_told(recorder: type[Recorder], tmp_path: Path) -> None:
    with pytest.raises(OptionsError) as caught:
        Trackers(("tensorboard", "wandb", "tensorbord"), tmp_path, {})
    assert [fault.partition(";")[0] for fault in caught.value.faults] == [
        "reward.report_to: wandb is not installed",
        "reward.report_to: unknown tracker 'tensorbord' (did you mean 'tensorboard'?)",
    ]
    assert not recorder.opened
