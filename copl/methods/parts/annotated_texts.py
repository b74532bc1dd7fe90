"""The texts of the annotated responses, so that newcomers who judged other texts can be placed by similar ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from copl.adapt.lookalikes import Lookalikes
from copl.interfaces import Workspace
from copl.records import PreferenceData, ResponseTable
from copl.reward.reading.frozen_texts import FrozenTexts, OpenBackbone
from copl.runs.recipe import Stages
from copl.system.documents import read_document, write_document

STAGE = "texts"
_FILE = "responses.json"


def fit_lookalikes(
    data: PreferenceData, stages: Stages, *, workspace: Workspace, open_backbone: OpenBackbone
) -> Lookalikes:
    """Keep the texts of all responses with training comparisons; their features are those all methods share.

    Args:
        data: the split ``train`` is used.
        stages: the recipe's parts; the backbone reads texts up to the length limit of the section ``reward``.
        workspace: where the result is kept.
        open_backbone: opens the backbone, for texts that are not in the data set.
    """

    def compute(directory: Path) -> None:
        train = data.split("train").comparisons
        annotated = data.responses.take(np.unique(np.concatenate([train.chosen, train.rejected])))
        write_document(directory / _FILE, annotated)

    directory = workspace.stage(STAGE, key={"data": data.digest("train")}, compute=compute)
    texts = FrozenTexts.fit(
        data.responses,
        stages,
        max_length=stages.options("reward").max_length,
        workspace=workspace,
        open_backbone=open_backbone,
    )
    return _lookalikes(directory, texts)


def load_lookalikes(directory: Path, stages: Stages, *, open_backbone: OpenBackbone) -> Lookalikes:
    """Read what `fit_lookalikes` kept in a run directory.

    Raises:
        RunError: a file is missing or damaged.
    """
    max_length = stages.options("reward").max_length
    texts = FrozenTexts.load(directory, stages, max_length=max_length, open_backbone=open_backbone)
    return _lookalikes(directory / STAGE, texts)


def _lookalikes(directory: Path, texts: FrozenTexts) -> Lookalikes:
    responses = read_document(directory / _FILE, ResponseTable, advice="train the run again")
    features = texts.of(responses, np.arange(len(responses)))
    return Lookalikes(responses, features, lambda asked: texts.of(asked, np.arange(len(asked))))
