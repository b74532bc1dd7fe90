"""Method ``consensus``: what everybody thinks of a response, by comparisons and by its text, and nothing of the user.

The strongest reference that knows no users: on responses that were compared it has their Bradley-Terry effects, on new
ones what frozen features tell (`copl.methods.parts.effects`). What a personal method gains is what it gains over this.
"""

from __future__ import annotations

from pathlib import Path
from typing import final

import attrs
import numpy as np
from attrs import frozen

from copl.interfaces import Workspace
from copl.methods.catalogue import ConsensusOptions
from copl.methods.parts.effects import fit_effects
from copl.methods.parts.unpersonalised import Unpersonalised
from copl.records import Comparisons, FloatArray, IntArray, PreferenceData, ResponseTable
from copl.reward.reading.reader import TextReader
from copl.runs.recipe import Stages
from copl.system.tensors import floats, load_tensors, save_tensors

STAGE = "consensus"
_FILE = "effects.safetensors"


@final
@frozen
class _Card:
    """What is kept beside the tensors: the responses that were compared, in order, and what was chosen."""

    response_keys: tuple[str, ...]
    power: float
    text_precision: float | None
    own_precision: float | None
    loss: float


@final
class ConsensusMethod(Unpersonalised):
    """Response effects with the text as prior."""

    def __init__(self, options: ConsensusOptions, *, stages: Stages) -> None:
        self._options, self._stages = options, stages
        self._reader: TextReader | None = None
        self._weights: FloatArray = np.zeros(0)
        self._own: dict[str, float] = {}

    def fit(self, data: PreferenceData, *, seed: int, workspace: Workspace) -> None:
        reader = TextReader.of(self._stages, self._options.max_length)
        reader.read(data.responses, workspace)
        prompts = data.responses.prompt_rows

        def compute(directory: Path) -> None:
            train, validation = (data.split(split).comparisons for split in ("train", "validation"))
            used = np.unique(np.concatenate([c for rows in (train, validation) for c in (rows.chosen, rows.rejected)]))
            features = reader.features(data.responses, used).numpy()
            effects = fit_effects(_among(used, train), _among(used, validation), features, prompts[used])
            compared = np.unique(np.concatenate([train.chosen, train.rejected]))
            card = _Card(
                response_keys=tuple(data.responses.keys[row] for row in compared),
                power=effects.power,
                text_precision=_finite(effects.text_precision),
                own_precision=_finite(effects.own_precision),
                loss=effects.loss,
            )
            tensors = {"weights": effects.weights, "own": effects.own[np.searchsorted(used, compared)]}
            save_tensors(directory / _FILE, tensors, header=card)
            workspace.progress.log(STAGE, validation_loss=effects.loss)

        key = {"data": data.digest("train", "validation"), **reader.key}
        self._open(workspace.stage(STAGE, key=key, compute=compute), reader)

    def load(self, directory: Path) -> None:
        reader = TextReader.of(self._stages, self._options.max_length)
        reader.load(directory)
        self._open(directory / STAGE, reader)

    def _open(self, directory: Path, reader: TextReader) -> None:
        expected = {"weights": floats("F"), "own": floats("R")}
        kept = load_tensors(directory / _FILE, expected, advice="train the run again")
        keys = kept.read_header(_Card, advice="train the run again").response_keys
        self._reader, self._weights = reader, kept.array("weights")
        self._own = dict(zip(keys, kept.array("own").tolist(), strict=True))

    def rewards(self, responses: ResponseTable, rows: IntArray) -> FloatArray:
        if self._reader is None:
            raise RuntimeError("fit or load the method first")
        by_text = self._reader.features(responses, rows).double().numpy() @ self._weights
        own = [self._own.get(responses.keys[row], 0.0) for row in rows]
        rewards: FloatArray = by_text + np.array(own, dtype=np.float64)
        return rewards


def _among(used: IntArray, rows: Comparisons) -> Comparisons:
    """Return comparisons whose rows refer to the responses at `used` [n], which are in ascending order."""
    return attrs.evolve(rows, chosen=np.searchsorted(used, rows.chosen), rejected=np.searchsorted(used, rows.rejected))


def _finite(precision: float) -> float | None:
    """Return a precision as it is kept: None for a part that was left out."""
    return precision if np.isfinite(precision) else None
