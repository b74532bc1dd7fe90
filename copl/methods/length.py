"""Method ``length``: the longer response is better, or the shorter one, whichever was chosen more often.

Reads nothing and knows nobody: what a reward model has to beat before it can be said to understand anything.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import numpy as np
from attrs import frozen
from scipy.optimize import minimize_scalar

from copl.bradley_terry import log_loss
from copl.interfaces import Workspace
from copl.methods.parts.unpersonalised import Unpersonalised
from copl.options import NoOptions
from copl.records import Comparisons, FloatArray, IntArray, PreferenceData, ResponseTable
from copl.runs.code import code_digest
from copl.runs.recipe import Stages
from copl.system.documents import read_document, write_document

STAGE = "length"
_FILE = "length.json"
_BOUND = 20.0


@final
@frozen
class _Slope:
    """Reward for each e-fold of length in characters."""

    slope: float


@final
class LengthMethod(Unpersonalised):
    """The reward is a number times log(1 + characters of the response), fitted by Bradley-Terry likelihood."""

    def __init__(self, options: NoOptions, *, stages: Stages) -> None:
        self._slope: float | None = None

    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        def compute(directory: Path) -> None:
            write_document(directory / _FILE, _Slope(_fit(data.split("train").comparisons, _lengths(data.responses))))

        key = {"data": data.digest("train"), "code": code_digest(LengthMethod)}
        self._open(workspace.stage(STAGE, key=key, compute=compute))

    def load(self, directory: Path) -> None:
        self._open(directory / STAGE)

    def _open(self, directory: Path) -> None:
        self._slope = read_document(directory / _FILE, _Slope, advice="train the run again").slope

    def rewards(self, responses: ResponseTable, rows: IntArray) -> FloatArray:
        if self._slope is None:
            raise RuntimeError("fit or load the method first")
        return self._slope * _lengths(responses.take(rows))


def _lengths(responses: ResponseTable) -> FloatArray:
    return np.log1p(np.array([len(text) for text in responses.texts], dtype=np.float64))


def _fit(train: Comparisons, lengths: FloatArray) -> float:
    """Return the slope of the highest posterior under a standard normal prior."""
    differences = lengths[train.chosen] - lengths[train.rejected]

    def negative_log_density(slope: float) -> float:
        return float(train.weight @ log_loss(slope * differences)) + slope**2 / 2

    return float(minimize_scalar(negative_log_density, bounds=(-_BOUND, _BOUND), method="bounded").x)
