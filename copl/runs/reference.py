"""A fixed set of training responses kept with a run, against which the rewards of different users are compared.

It is drawn by the responses' keys, so that it depends neither on a seed nor on the order of the data, and is the same
for every run on the same data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import final

import numpy as np
from attrs import frozen

from copl.data.dataset import dataset_fingerprint, load_dataset
from copl.errors import DataError, RunError
from copl.records import PreferenceData, ResponseTable
from copl.runs.directory import Run
from copl.runs.recipe import canonical_hash
from copl.system.documents import read_document, write_document

REFERENCE_FILE = "reference.json"
NUM_RESPONSES = 128
_FORMAT = 1


@final
@frozen
class _Reference:
    format: int
    prompts: Sequence[str]
    texts: Sequence[str]
    content: str | None = None
    """A checksum of these; earlier versions kept none."""

    @classmethod
    def of(cls, table: ResponseTable) -> _Reference:
        return cls(_FORMAT, table.prompts, table.texts, canonical_hash([*table.prompts, *table.texts]))

    @property
    def is_whole(self) -> bool:
        alike = len(self.prompts) == len(self.texts) > 0
        return alike and self.content in (None, canonical_hash([*self.prompts, *self.texts]))


def draw_reference(data: PreferenceData) -> ResponseTable:
    """Return the reference set of a data set: 128 of the responses compared in training."""
    rows = data.split("train").comparisons
    compared = np.unique(np.concatenate([rows.chosen, rows.rejected])).tolist()
    drawn = sorted(compared, key=lambda row: data.responses.keys[row])[:NUM_RESPONSES]
    return data.responses.take(np.array(drawn, dtype=np.int64))


def keep_reference(root: Path, data: PreferenceData) -> None:
    """Write the reference set of a data set into a run directory."""
    table = draw_reference(data)
    write_document(root / REFERENCE_FILE, _Reference.of(table))


def data_of(run: Run) -> PreferenceData | None:
    """Return the data set that a run was trained on, or None where it is not there any more."""
    try:
        same = dataset_fingerprint(run.data_directory) == run.facts.data.fingerprint
        return load_dataset(run.data_directory) if same else None
    except DataError:
        return None


def reference_of(run: Run) -> ResponseTable:
    """Return the reference set of a run, from its directory; a run of an earlier version has it drawn from its data.

    Raises:
        RunError: the file is damaged, or neither it nor the data are there.
    """
    path = run.root / REFERENCE_FILE
    if not path.is_file():
        data = data_of(run)
        if data is not None:
            return draw_reference(data)
        raise RunError(
            f"{run.root}: has no reference responses to put rewards on one scale with ({REFERENCE_FILE}), and its data "
            "are not where they were; `copl train` with the same --out adds them"
        )
    read = read_document(path, _Reference, advice="train the run again", version={"format": _FORMAT})
    if not read.is_whole:
        raise RunError(f"{path}: damaged; train the run again")
    return ResponseTable(read.prompts, read.texts)
