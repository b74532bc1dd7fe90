"""Frozen features as a stage: the backbone reads each text of a data set once, for all methods, options and seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from copl.errors import RunError
from copl.interfaces import Backbone, Progress, Workspace
from copl.records import ResponseTable
from copl.reward.backbones.loaded import LoadedBackbone
from copl.reward.reading.features import Read, pooled_features
from copl.runs.recipe import Stages
from copl.system.files import write_atomically
from copl.system.processes import is_main
from copl.system.progress import SilentProgress

if TYPE_CHECKING:
    from copl.records import IntArray

STAGE = "features"
_FILE = "features.safetensors"

OpenBackbone: TypeAlias = Callable[[], AbstractContextManager[LoadedBackbone]]
"""Opens a backbone for reading; while it is open it carries no adapters."""


def features_key(stages: Stages, max_length: int) -> dict[str, Any]:
    """Return what frozen features depend on beside the texts."""
    backbone: Backbone = stages.build("backbone")
    return {**stages.key("backbone"), "weights": backbone.fingerprint(), "max_length": max_length}


@final
class FrozenTexts:
    """Pooled hidden states of the texts of a data set, by response key.

    All texts of the data set are read at once, those of held-out splits too: features know nothing of comparisons. So
    every method, whatever it trains on, every seed and every way to split the same texts share one result. Training
    adapters could do without the held-out texts; they are mostly a small part, and whatever is scored by features
    asks for them. A text that was not among them is read when it is asked for.
    """

    def __init__(self, keys: tuple[str, ...], values: Tensor, open_backbone: OpenBackbone, max_length: int) -> None:
        self._rows: Mapping[str, int] = {key: row for row, key in enumerate(keys)}
        self._values = values
        self._open_backbone = open_backbone
        self._max_length = max_length

    @property
    def size(self) -> int:
        """Size H of a feature vector."""
        return int(self._values.shape[1])

    @classmethod
    def fit(
        cls,
        responses: ResponseTable,
        stages: Stages,
        *,
        max_length: int,
        workspace: Workspace,
        stage: str = STAGE,
        read: Read | None = None,
        open_backbone: OpenBackbone | None = None,
    ) -> FrozenTexts:
        """Read all of `responses`, or take their features from the workspace.

        Args:
            responses: the texts; their order does not matter.
            stages: the recipe's parts; ``backbone`` is used.
            max_length: limit in tokens of prompt and response together.
            workspace: where the features are kept.
            stage: name of the stage.
            read: reads the texts, where somebody has the backbone at hand or wants more of the pass than features;
                called in every process, where a launcher started several.
            open_backbone: opens the backbone, which is loaded unless it is given.

        Raises:
            BackboneError: the backbone is missing or damaged.
            RunError: the stage is there but damaged.
            TrainingError: memory is exhausted.
        """
        opened = open_backbone or _own_backbone(stages)
        # in one order whoever reads, so that batches, and with them the last bits, are the same
        keys = sorted(set(responses.keys))

        def plainly(table: ResponseTable, rows: IntArray) -> Tensor:
            with opened() as backbone:
                return pooled_features(backbone, table, rows, max_length=max_length, progress=workspace.progress)

        def compute(directory: Path) -> None:
            rows = np.array([responses.rows[key] for key in keys], dtype=np.int64)
            values = (read or plainly)(responses, rows)
            if is_main():
                _save(tuple(keys), values, directory / _FILE)

        texts = hashlib.sha256("".join(keys).encode()).hexdigest()
        key = {"texts": texts, **features_key(stages, max_length)}
        directory = workspace.stage(stage, key=key, compute=compute, together=read is not None)
        return cls(*_load(directory / _FILE), opened, max_length)

    @classmethod
    def load(
        cls,
        directory: Path,
        stages: Stages,
        *,
        max_length: int,
        stage: str = STAGE,
        open_backbone: OpenBackbone | None = None,
    ) -> FrozenTexts:
        """Read the features of a run directory.

        Raises:
            RunError: they are missing or damaged.
        """
        return cls(*_load(directory / stage / _FILE), open_backbone or _own_backbone(stages), max_length)

    def of(self, responses: ResponseTable, rows: IntArray, progress: Progress | None = None) -> Tensor:
        """Return the features [N, H] of the responses at `rows` [N].

        Raises:
            BackboneError: a text is new, and the backbone is missing or cannot read it.
        """
        keys = responses.keys
        distinct, place = np.unique(np.asarray(rows, dtype=np.int64), return_inverse=True)
        known = np.array([self._rows.get(keys[row], -1) for row in distinct.tolist()], dtype=np.int64)
        values = torch.zeros(len(distinct), self.size)
        here = torch.from_numpy(known >= 0)
        values[here] = self._values[torch.from_numpy(known[known >= 0])]
        new = distinct[known < 0]
        if len(new):
            length, shown = self._max_length, progress or SilentProgress()
            with self._open_backbone() as backbone:
                values[~here] = pooled_features(backbone, responses, new, max_length=length, progress=shown)
        return values[torch.from_numpy(place)]


def _own_backbone(stages: Stages) -> OpenBackbone:
    """Return what loads the backbone when it is first opened, on the accelerator where there is one."""

    @cache
    def loaded() -> LoadedBackbone:
        backbone: LoadedBackbone = stages.build("backbone").load().on_accelerator()
        return backbone

    return lambda: nullcontext(loaded())


def _save(keys: tuple[str, ...], values: Tensor, path: Path) -> None:
    # As bytes: a file's header is no place for a million keys.
    packed = np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8).reshape(len(keys), -1)
    tensors = {"keys": torch.from_numpy(packed.copy()), "values": values.contiguous()}
    write_atomically(path, lambda temporary: save_file(tensors, temporary))


def _load(path: Path) -> tuple[tuple[str, ...], Tensor]:
    if not path.is_file():
        raise RunError(f"{path}: missing; train again")
    try:
        tensors = load_file(path)
        return tuple(row.tobytes().hex() for row in tensors["keys"].numpy()), tensors["values"]
    except (SafetensorError, KeyError) as error:
        raise RunError(f"{path}: damaged ({error}); delete {path.parent} and train again") from error
