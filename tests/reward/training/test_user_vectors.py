from __future__ import annotations

from pathlib import Path

import pytest
import torch

from copl.errors import RunError
from copl.methods.parts.text_reward import TextReward
from copl.records import UserTable
from copl.reward.training.user_vectors import UserVectors, load_trained_users, save_trained_users


def test_users_trained_along_come_back_and_damaged_ones_are_refused(tmp_path: Path) -> None:
    assert load_trained_users(tmp_path) is None
    save_trained_users(UserVectors(("a", "ü"), torch.eye(2), trainable=True), tmp_path)
    again = load_trained_users(tmp_path)
    assert again is not None
    assert (again.ids, again.trainable, again.groups) == (("a", "ü"), True, (None, None))
    assert torch.equal(again.values, torch.eye(2))
    file = tmp_path / "users.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(RunError, match="damaged"):
        load_trained_users(tmp_path)


def test_ids_embeddings_and_groups_belong_together() -> None:
    with pytest.raises(ValueError, match="1 ids, 2 embeddings"):
        UserVectors(("a",), torch.eye(2))
    with pytest.raises(ValueError, match="2 ids, 2 embeddings and 1 groups"):
        UserVectors(("a", "b"), torch.eye(2), ("one",))


def test_seen_users_are_what_they_have_become_and_newcomers_their_mean() -> None:
    users = UserVectors(("a", "b"), torch.tensor([[1.0, 0.0], [3.0, 4.0]]), trainable=True)
    reward = TextReward(None, users)  # type: ignore[arg-type]  # no text is read here
    vectors = reward.own_vectors(UserTable.ungrouped(("b", "new", "a")))
    assert vectors.tolist() == [[3.0, 4.0], [2.0, 2.0], [1.0, 0.0]]
    assert reward.own_vectors(UserTable.ungrouped(())).shape == (0, 2)
