"""Frozen features as a stage: the backbone reads each text once for all methods, options and seeds."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import frozen
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from copl.data.chat import decode_prompt
from copl.errors import RunError
from copl.files import write_atomically
from copl.interfaces import Backbone, Progress, Workspace
from copl.progress import SilentProgress
from copl.recipe import Stages
from copl.records import ResponseTable
from copl.reward.features import pooled_features

if TYPE_CHECKING:
    from copl.records import IntArray

STAGE = "features"
PROMPT_STAGE = "prompt-features"
_FILE = "features.safetensors"


@final
@frozen(eq=False)
class Scaling:
    """x -> (x - centre) / scale: mean 0 and variance 1 of every coordinate over the training responses.

    Attributes:
        centre: what is subtracted [H].
        scale: what is divided by [H], positive.
    """

    centre: Tensor
    scale: Tensor

    @classmethod
    def of(cls, values: Tensor) -> Scaling:
        """Return the scaling that standardises `values` [R, H]."""
        scale = values.std(0, correction=0)
        return cls(values.mean(0), scale.clamp_min(1e-3 * float(scale.mean()) + 1e-12))

    def apply(self, values: Tensor) -> Tensor:
        """Return the scaled values [R, H]."""
        return (values - self.centre) / self.scale


@final
class FrozenFeatures:
    """Pooled hidden states of texts, by response key.

    All texts of the data set are read at once, those of held-out splits too: features know nothing of comparisons.
    A text that was not among them is read when it is asked for.
    """

    def __init__(self, keys: tuple[str, ...], values: Tensor, backbone: Backbone, max_length: int) -> None:
        self._rows: Mapping[str, int] = {key: row for row, key in enumerate(keys)}
        self._values = values
        self._backbone = backbone
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
    ) -> FrozenFeatures:
        """Read all of `responses`, or take their features from the workspace.

        Args:
            responses: the texts; their order does not matter.
            stages: the recipe's parts; ``backbone`` is used.
            max_length: limit in tokens of prompt and response together.
            workspace: where the features are kept.
            stage: name of the stage.

        Raises:
            BackboneError: the backbone is missing or damaged.
        """
        backbone: Backbone = stages.build("backbone")
        keys = sorted(set(responses.keys))
        key = {
            "texts": hashlib.sha256("".join(keys).encode()).hexdigest(),
            "max_length": max_length,
            "weights": backbone.fingerprint(),
            **stages.key("backbone"),
        }

        def compute(directory: Path) -> None:
            rows = np.array([responses.rows[k] for k in keys], dtype=np.int64)
            values = pooled_features(
                backbone.load(), responses, rows, max_length=max_length, progress=workspace.progress
            )
            _save(tuple(keys), values, directory / _FILE)

        directory = workspace.stage(stage, key=key, compute=compute)
        return cls(*_load(directory / _FILE), backbone, max_length)

    @classmethod
    def load(cls, directory: Path, stages: Stages, *, max_length: int, stage: str = STAGE) -> FrozenFeatures:
        """Read the features of a run directory.

        Raises:
            RunError: they are missing or damaged.
        """
        return cls(*_load(directory / stage / _FILE), stages.build("backbone"), max_length)

    def of(self, responses: ResponseTable, rows: IntArray, progress: Progress | None = None) -> Tensor:
        """Return the features [N, H] of the responses at `rows` [N]."""
        keys = responses.keys
        distinct, place = np.unique(np.asarray(rows, dtype=np.int64), return_inverse=True)
        known = np.array([self._rows.get(keys[row], -1) for row in distinct.tolist()], dtype=np.int64)
        values = torch.zeros(len(distinct), self.size)
        here = torch.from_numpy(known >= 0)
        values[here] = self._values[torch.from_numpy(known[known >= 0])]
        new = distinct[known < 0]
        if len(new):
            values[~here] = pooled_features(
                self._backbone.load(),
                responses,
                new,
                max_length=self._max_length,
                progress=progress or SilentProgress(),
            )
        return values[torch.from_numpy(place)]


def prompt_table(responses: ResponseTable) -> ResponseTable:
    """Return the prompts of `responses` as texts of their own, row for row, to be read without any response."""
    return ResponseTable([""] * len(responses), map(_plain, responses.prompts))


def _plain(prompt: str) -> str:
    content = decode_prompt(prompt)
    return content if isinstance(content, str) else "\n\n".join(message["content"] for message in content)


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
