"""Frozen features as a stage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from copl.data.dataset import load_dataset
from copl.errors import RunError
from copl.plugins import load
from copl.records import PreferenceData, ResponseTable
from copl.reward.backbones.loaded import LoadedBackbone
from copl.reward.reading.features import pooled_features
from copl.reward.reading.frozen_texts import STAGE, FrozenTexts
from copl.runs.recipe import Stages, resolve
from copl.runs.workspace import RunWorkspace
from copl.system.progress import SilentProgress

LENGTH = 48


@pytest.fixture
def data(small_data: Path) -> PreferenceData:
    return load_dataset(small_data)


@pytest.fixture
def stages(tiny_model: Path) -> Stages:
    return resolve({"method": {"name": "btl"}, "backbone": {"name": str(tiny_model)}}, load()).stages


def fit(responses: ResponseTable, stages: Stages, root: Path, cache: Path | None = None, **options: Any) -> FrozenTexts:
    workspace = RunWorkspace(root, options.pop("progress", SilentProgress()), cache)
    return FrozenTexts.fit(responses, stages, **{"max_length": LENGTH, "workspace": workspace, **options})


def test_they_are_the_features_of_the_backbone_in_any_order(
    data: PreferenceData, stages: Stages, tmp_path: Path
) -> None:
    fit(data.responses, stages, tmp_path)
    texts = FrozenTexts.load(tmp_path, stages, max_length=LENGTH)
    rows = np.array([7, 3, 7, 0])
    loaded: LoadedBackbone = stages.build("backbone").load()
    plain = pooled_features(loaded, data.responses, rows, max_length=LENGTH, progress=SilentProgress())
    found = texts.of(data.responses, rows)
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    assert torch.equal(found[0], found[2])
    assert not torch.allclose(found[0], found[1])
    assert texts.size == loaded.hidden_size == found.shape[1]


def test_the_same_texts_are_read_once_whatever_their_order(
    data: PreferenceData, stages: Stages, tmp_path: Path, listener: Any
) -> None:
    backwards = ResponseTable(data.responses.prompts[::-1], data.responses.texts[::-1])
    fewer = ResponseTable(data.responses.prompts[1:], data.responses.texts[1:])
    found = []
    for number, (table, length) in enumerate(
        [(data.responses, LENGTH), (backwards, LENGTH), (fewer, LENGTH), (data.responses, LENGTH // 2)]
    ):
        (tmp_path / str(number)).mkdir()
        cache = tmp_path / "cache"
        texts = fit(table, stages, tmp_path / str(number), cache, max_length=length, progress=listener)
        found.append((texts.of(table, np.arange(len(table))), len(listener.tasks)))
    (first, once), (second, still), (_, twice), (_, thrice) = found
    assert (once, still, twice, thrice) == (1, 1, 2, 3)
    assert torch.equal(first.flip(0), second)


def test_whoever_reads_is_asked_for_all_texts_and_only_where_they_are_not_there(
    data: PreferenceData, stages: Stages, tmp_path: Path
) -> None:
    asked: list[int] = []

    def read(responses: ResponseTable, rows: np.ndarray[Any, Any]) -> Tensor:
        asked.append(len(set(rows.tolist())))
        return torch.from_numpy(rows).float()[:, None]

    for _ in range(2):
        texts = fit(data.responses, stages, tmp_path, read=read)
        rows = np.array([5, 0, 2])
        assert texts.of(data.responses, rows)[:, 0].tolist() == [5, 0, 2]
    assert asked == [len(data.responses)]


def test_a_new_text_is_read_by_the_backbone_that_is_at_hand(
    data: PreferenceData, stages: Stages, tmp_path: Path
) -> None:
    opened: list[LoadedBackbone] = []

    @contextmanager
    def at_hand() -> Iterator[LoadedBackbone]:
        opened.append(stages.build("backbone").load())
        yield opened[-1]

    texts = fit(data.responses, stages, tmp_path, open_backbone=at_hand)
    known, new = data.responses.texts[0], data.responses.texts[1] + " and more"
    table = ResponseTable([data.responses.prompts[0]] * 2, [known, new])
    opened.clear()
    assert torch.equal(texts.of(table, np.array([0])), texts.of(data.responses, np.array([0])))
    assert not opened
    found = texts.of(table, np.array([1, 0]))
    plain = pooled_features(opened[0], table, np.array([1, 0]), max_length=LENGTH, progress=SilentProgress())
    torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-5)
    assert len(opened) == 1


@pytest.mark.parametrize(
    ("spoil", "said"),
    [(Path.unlink, "missing; train again"), (lambda path: path.write_bytes(b"nonsense"), "damaged")],
)
def test_missing_and_damaged_files_are_errors_of_the_run(
    spoil: Callable[[Path], Any], said: str, data: PreferenceData, stages: Stages, tmp_path: Path
) -> None:
    fit(data.responses, stages, tmp_path)
    spoil(tmp_path / STAGE / "features.safetensors")
    with pytest.raises(RunError, match=said):
        FrozenTexts.load(tmp_path, stages, max_length=LENGTH)
