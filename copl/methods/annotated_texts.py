"""The texts of the annotated responses, so that newcomers who judged other texts can be placed by similar ones."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from copl.adapt.lookalikes import Lookalikes
from copl.errors import RunError
from copl.files import write_atomically, write_text
from copl.interfaces import Backbone, Progress, Workspace
from copl.methods.response_features import features_key
from copl.progress import RunLog, SilentProgress
from copl.recipe import Stages
from copl.records import PreferenceData, ResponseTable
from copl.reward.backbone import LoadedBackbone
from copl.reward.features import pooled_features

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import IntArray

STAGE = "texts"
_TEXTS_FILE = "responses.json"
_FEATURES_FILE = "features.safetensors"


def fit_lookalikes(data: PreferenceData, stages: Stages, *, workspace: Workspace) -> Lookalikes:
    """Read the texts of all responses with training comparisons by the frozen backbone, or take what is there.

    Args:
        data: the split ``train`` is used.
        stages: the recipe's parts; the backbone reads the texts, up to the length limit of the section ``reward``.
        workspace: where the result is kept.
    """
    key = {"data": data.digest("train"), **features_key(stages)}

    def compute(directory: Path) -> None:
        backbone: Backbone = stages.build("backbone")
        train = data.split("train").comparisons
        rows = np.unique(np.concatenate([train.chosen, train.rejected]))
        features = _read(backbone.load(), data.responses, rows, stages, workspace.progress)
        tensors = {"features": features.half().contiguous()}
        write_atomically(directory / _FEATURES_FILE, lambda path: save_file(tensors, path))
        content = {
            "prompts": [data.responses.prompts[row] for row in rows.tolist()],
            "texts": [data.responses.texts[row] for row in rows.tolist()],
        }
        write_text(directory / _TEXTS_FILE, json.dumps(content))

    return _open(workspace.stage(STAGE, key=key, compute=compute), stages)


def load_lookalikes(directory: Path, stages: Stages) -> Lookalikes:
    """Read what `fit_lookalikes` kept in a run directory.

    Raises:
        RunError: a file is missing or damaged.
    """
    return _open(directory / STAGE, stages)


def _open(directory: Path, stages: Stages) -> Lookalikes:
    try:
        content = json.loads((directory / _TEXTS_FILE).read_text(encoding="utf-8"))
        responses = ResponseTable(content["prompts"], content["texts"])
        features = load_file(directory / _FEATURES_FILE)["features"].float()
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{directory}: the annotated texts cannot be read ({error}); train the run again") from error
    if len(features) != len(responses):
        raise RunError(f"{directory}: {_TEXTS_FILE} and {_FEATURES_FILE} differ in length; train the run again")

    @cache
    def backbone() -> LoadedBackbone:  # another one than the reward model's, which carries adapters
        part: Backbone = stages.build("backbone")
        loaded: LoadedBackbone = part.load()
        return loaded

    def read(asked: ResponseTable) -> Tensor:
        return _read(backbone(), asked, np.arange(len(asked)), stages, SilentProgress(RunLog(None)))

    return Lookalikes(responses, features, read)


def _read(
    backbone: LoadedBackbone, responses: ResponseTable, rows: IntArray, stages: Stages, progress: Progress
) -> Tensor:
    max_length = stages.options("reward").max_length
    return pooled_features(backbone, responses, rows, max_length=max_length, progress=progress)
