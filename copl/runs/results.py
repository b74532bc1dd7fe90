"""What an evaluation leaves in a run: margins and diagnostics as a stage, measurements as ``metrics.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import final

import numpy as np
from attrs import frozen

from copl.errors import RunError
from copl.records import SPLITS, Diagnostics, FloatArray, Measurement, PreferenceData
from copl.runs.directory import Run
from copl.runs.facts import read_facts
from copl.runs.stages import EVALUATION, STAGE_FILE, verify_stage
from copl.system.documents import read_document, to_json, write_document
from copl.system.files import sha256, write_text
from copl.system.tensors import ANY_FLOATS, floats, load_arrays, save_tensors

METRICS_FILE = "metrics.json"
_MARGINS_FILE = "margins.safetensors"
_REFERENCE_FILES = {"average": "average.safetensors", "consensus": "consensus.safetensors"}
_SHOWN_FILE = "diagnostics.safetensors"
_WORDS_FILE = "diagnostics.json"
_AGAIN = "evaluate the run again"


@final
@frozen
class _Words:
    user_ids: tuple[str, ...]
    notes: tuple[str, ...]


def evaluation_of(root: Path) -> Path:
    """Return the checked stage of a run's evaluation.

    Raises:
        RunError: the run has not been evaluated, or a file is damaged.
    """
    if not (root / EVALUATION / STAGE_FILE).is_file() or not (root / METRICS_FILE).is_file():
        raise RunError(f"{root}: not evaluated yet; run `copl evaluate {root}`")
    verify_stage(root / EVALUATION)
    return root / EVALUATION


@final
@frozen(eq=False)
class References:
    """Margins of what a run is compared with on the same comparisons, by split.

    Attributes:
        average: those of the run itself for the average user.
        consensus: those of the best that knows no users; of no split where there is none.
    """

    average: Mapping[str, FloatArray]
    consensus: Mapping[str, FloatArray]


def save_margins(margins: Mapping[str, FloatArray], references: References, directory: Path) -> None:
    """Write the margins of each split, and those of the references."""
    save_tensors(directory / _MARGINS_FILE, margins)
    for name, file in _REFERENCE_FILES.items():
        save_tensors(directory / file, getattr(references, name))


def load_margins(directory: Path, data: PreferenceData | None = None) -> dict[str, FloatArray]:
    """Read the margins of each split.

    Args:
        directory: the stage.
        data: the data set they are of, where it is at hand: there is one for each of its comparisons.

    Raises:
        RunError: they are missing, damaged or of other data.
    """
    return _load_margins(directory / _MARGINS_FILE, data)


def load_references(directory: Path, data: PreferenceData) -> References:
    """Read the margins of the references.

    Args:
        directory: the stage.
        data: the data set they are of.

    Raises:
        RunError: they are missing, damaged or of other data.
    """
    return References(**{name: _load_margins(directory / file, data) for name, file in _REFERENCE_FILES.items()})


def _load_margins(path: Path, data: PreferenceData | None) -> dict[str, FloatArray]:
    sizes = {"": ANY_FLOATS} if data is None else {split: floats(len(data.split(split))) for split in SPLITS}
    read = load_arrays(path, others=sizes, advice=_AGAIN)
    return {split: read.array(split) for split in read.tensors}


def save_diagnostics(diagnostics: Diagnostics, directory: Path) -> None:
    """Write what a method shows of its inside."""
    arrays = {"user_embeddings": diagnostics.user_embeddings, "expert_weights": diagnostics.expert_weights}
    present = {name: np.asarray(array) for name, array in arrays.items() if array is not None}
    save_tensors(directory / _SHOWN_FILE, present)
    write_document(directory / _WORDS_FILE, _Words(diagnostics.user_ids, diagnostics.notes))


def load_diagnostics(directory: Path) -> Diagnostics:
    """Read what a method showed of its inside.

    Raises:
        RunError: it is missing or damaged.
    """
    words = read_document(directory / _WORDS_FILE, _Words, advice=_AGAIN)
    num_users = len(words.user_ids)
    shapes = {"user_embeddings": floats(num_users, "D"), "expert_weights": floats(num_users, "M")}
    shown = load_arrays(directory / _SHOWN_FILE, others=shapes, advice=_AGAIN)
    arrays = {name: shown.array(name) for name in shown.tensors}
    return Diagnostics(words.user_ids, notes=words.notes, **arrays)


def write_metrics(run: Run, measurements: Sequence[Measurement]) -> None:
    """Write measurements as ``metrics.json``: one record a measurement."""
    text = to_json(measurements, indent=1) + "\n"
    run.note_measured(hashlib.sha256(text.encode()).hexdigest())  # first: where there are metrics, this is said of them
    write_text(run.root / METRICS_FILE, text)


def read_metrics(root: Path) -> list[Measurement]:
    """Read ``metrics.json``.

    Raises:
        RunError: it is missing, damaged or changed.
    """
    path = root / METRICS_FILE
    measurements = read_document(path, _MEASUREMENTS, advice=_AGAIN)
    if read_facts(root).measured not in (None, sha256(path)):
        raise RunError(f"{path}: is not what the last evaluation has written (its checksum differs); {_AGAIN}")
    return list(measurements)


_MEASUREMENTS: type[tuple[Measurement, ...]] = tuple[Measurement, ...]
