"""How a reward model scored texts before it learnt from them: what its word on new texts is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import frozen
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from copl.errors import RunError
from copl.system.files import write_atomically

if TYPE_CHECKING:
    from copl.records import BoolArray, FloatArray, IntArray

_FILE = "new_texts.safetensors"


@final
@frozen(eq=False)
class NewTextMargins:
    """Margins of validation comparisons with a text that was held out from training.

    Attributes:
        rows: which comparisons of the validation split [N].
        margins: the model's margins, before what the held-out texts say was added [N].
        new: whether the chosen and the rejected text were held out [N, 2].
    """

    rows: IntArray
    margins: FloatArray
    new: BoolArray

    def save(self, directory: Path) -> None:
        """Write them into a reward model's directory."""
        tensors = {name: torch.from_numpy(np.ascontiguousarray(getattr(self, name))) for name in _NAMES}
        write_atomically(directory / _FILE, lambda temporary: save_file(tensors, temporary))

    @classmethod
    def load(cls, directory: Path) -> NewTextMargins:
        """Read those of the reward model in `directory`.

        Raises:
            RunError: they are missing or damaged.
        """
        try:
            tensors = load_file(directory / _FILE)
            return cls(*(tensors[name].numpy() for name in _NAMES))
        except (OSError, SafetensorError, KeyError) as error:
            raise RunError(f"{directory / _FILE} cannot be read ({error}); train the run again") from error


_NAMES = ("rows", "margins", "new")
