"""The texts of the annotated responses, so that newcomers who judged other texts can be placed by similar ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from copl.adapt.lookalikes import Lookalikes
from copl.interfaces import Workspace
from copl.records import PreferenceData, ResponseTable
from copl.reward.reading.reader import TextReader
from copl.system.documents import read_document, write_document

STAGE = "texts"
_FILE = "responses.json"


def fit_lookalikes(data: PreferenceData, reader: TextReader, *, workspace: Workspace) -> Lookalikes:
    """Keep the texts of all responses with training comparisons.

    Args:
        data: the split ``train`` is used.
        reader: has read the texts of the data, and reads others as they come.
        workspace: where the result is kept.
    """

    def compute(directory: Path) -> None:
        train = data.split("train").comparisons
        annotated = data.responses.take(np.unique(np.concatenate([train.chosen, train.rejected])))
        write_document(directory / _FILE, annotated)

    directory = workspace.stage(STAGE, key={"data": data.digest("train")}, compute=compute)
    return _lookalikes(directory, reader)


def load_lookalikes(directory: Path, reader: TextReader) -> Lookalikes:
    """Read what `fit_lookalikes` kept in a run directory.

    Raises:
        RunError: a file is missing or damaged.
    """
    return _lookalikes(directory / STAGE, reader)


def _lookalikes(directory: Path, reader: TextReader) -> Lookalikes:
    responses = read_document(directory / _FILE, ResponseTable, advice="train the run again")
    features = reader.features(responses, np.arange(len(responses)))
    return Lookalikes(responses, features, lambda asked: reader.features(asked, np.arange(len(asked))))
