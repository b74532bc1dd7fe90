"""What a trained reward model leaves for one that goes on from it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, final

from attrs import frozen

from copl.reward.store import read_reward_card
from copl.reward.training.head_fit import FittedHead
from copl.reward.training.reward_training import FormerModel
from copl.system.tensors import ANY_FLOATS, load_tensors, save_tensors

if TYPE_CHECKING:
    from copl.records import BoolArray

_FILE = "head.safetensors"
_AGAIN = "train the reward model again"


@final
@frozen
class FormerReward:
    """A trained reward model on disk to go on from.

    Attributes:
        directory: where `copl.reward.training.train.train_reward_model` saved it.
        is_new: which training comparisons it has not learnt from [N].
    """

    directory: Path
    is_new: BoolArray

    def read(self) -> FormerModel:
        """Read what there is to know of it.

        Raises:
            RunError: a file is missing or damaged.
        """
        card = read_reward_card(self.directory)
        head = _read_head(self.directory / _FILE)
        return FormerModel(int(card.training.get("kept_step") or 0), card.kept_frozen, head, self.is_new)


@final
@frozen
class _Header:
    shared_penalty: float
    personal_penalty: float
    new_text_loss: float
    new_text_accuracy: float


def save_head(head: FittedHead, directory: Path) -> None:
    """Write a head as it was fitted to everything, and the penalties that were chosen."""
    weights = {f"{place:02d}": weight for place, weight in enumerate(head.whole)}
    save_tensors(directory / _FILE, weights, header=_Header(**head.facts()))


def _read_head(path: Path) -> FittedHead | None:
    if not path.is_file():
        return None
    read = load_tensors(path, {}, others={"": ANY_FLOATS}, advice=_AGAIN)
    said = read.read_header(_Header, advice=_AGAIN)
    weights = tuple(read.tensors[name] for name in sorted(read.tensors))
    penalties = said.shared_penalty, said.personal_penalty
    return FittedHead(weights, weights, *penalties, said.new_text_loss, said.new_text_accuracy)
