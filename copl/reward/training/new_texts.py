"""How a reward model scored texts before it learnt from them: what its word on new texts is worth."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

from attrs import frozen

from copl.system.tensors import booleans, floats, integers, load_tensors, save_tensors

if TYPE_CHECKING:
    from copl.records import BoolArray, FloatArray, IntArray

_FILE = "new_texts.safetensors"
_EXPECTED = {"rows": integers("N"), "margins": floats("N"), "new": booleans("N", 2)}


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
        save_tensors(directory / _FILE, {name: getattr(self, name) for name in _EXPECTED})

    @classmethod
    def load(cls, directory: Path) -> NewTextMargins:
        """Read those of the reward model in `directory`.

        Raises:
            RunError: they are missing or damaged.
        """
        tensors = load_tensors(directory / _FILE, _EXPECTED, advice="train the run again")
        return cls(*(tensors.array(name) for name in _EXPECTED))
