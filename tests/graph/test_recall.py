"""Former nodes and comparisons found again in a graph that has grown, by ids and keys."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from copl.errors import RunError
from copl.graph.recall import Recall
from copl.graph.store import MEMORY_FILE, load_embeddings, load_memory, save_embeddings
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph
from copl.records.memory import Memory


def former(memory=True):
    left = Memory(
        {"at": torch.tensor([[1.0], [2.0]])},
        {"at": torch.tensor([[10.0], [20.0], [30.0]])},
        {"layer": torch.eye(2)},
        {"scale": 0.5},
    )
    rows = Comparisons([0, 1, 1], [0, 1, 1], [1, 2, 2])
    tables = torch.zeros(2, 1), torch.zeros(3, 1), torch.zeros(3)
    return NodeEmbeddings(("ada", "bob"), ("a", "b", "c"), *tables, rows, memory=left if memory else None)


def graph(*rows):
    user, chosen, rejected = zip(*rows, strict=True)
    return PreferenceGraph(("cy", "bob", "ada"), ("c", "d", "b", "a"), Comparisons(user, chosen, rejected))


KEPT = ((2, 3, 2), (1, 2, 0), (1, 2, 0))


def test_rows_are_found_by_name_and_new_ones_are_zero():
    found = Recall.of(former(), graph(*KEPT, (0, 0, 1)))
    assert found.known_users.tolist() == [False, True, True]
    assert found.known_responses.tolist() == [True, False, True, True]
    assert found.memory.users["at"].flatten().tolist() == [0, 2, 1]
    assert found.memory.responses["at"].flatten().tolist() == [30, 0, 20, 10]
    assert found.is_new.tolist() == [False, False, False, True]
    assert torch.equal(found.memory.shared["layer"], torch.eye(2))
    assert found.is_changed


def test_said_once_more_is_new():
    found = Recall.of(former(), graph(*KEPT, (1, 2, 0)))
    assert found.is_new.tolist() == [False, False, False, True]


def test_nothing_new():
    same = PreferenceGraph(("bob", "ada"), ("c", "b", "a"), Comparisons([1, 0, 0], [2, 1, 1], [1, 0, 0]))
    assert not Recall.of(former(), same).is_changed


def test_of_a_user_with_comparisons_that_are_gone_nothing_is_known():
    found = Recall.of(former(), graph((2, 2, 3), (1, 2, 0), (1, 2, 0)))  # ada has changed her mind
    assert found.known_users.tolist() == [False, True, False]
    assert found.memory.users["at"].flatten().tolist() == [0, 2, 0]
    assert found.is_new.tolist() == [True, False, False]


def test_an_encoder_that_left_nothing():
    with pytest.raises(RunError, match="nothing to go on from"):
        Recall.of(former(memory=False), graph(*KEPT))


def test_some_responses():
    found = Recall.of(former(), graph(*KEPT)).of_responses(np.array([2, 3]))
    assert found.memory.responses["at"].flatten().tolist() == [20, 10]
    assert found.known_responses.tolist() == [True, True]


def test_memories_joined_come_apart_again():
    one, other = former().memory, Memory(facts={"kept": "factors"})
    joined = Memory.joined({"one": one, "other": other}, {"weights": [1.0]})
    assert joined.facts["weights"] == [1.0]
    assert joined.part("one").facts == {"scale": 0.5}
    assert torch.equal(joined.part("one").responses["at"], one.responses["at"])
    assert joined.part("other").facts == {"kept": "factors"}
    assert not joined.part("other").users


def test_memory_on_disk(tmp_path):
    save_embeddings(former(), tmp_path)
    loaded = load_embeddings(tmp_path)
    assert loaded.memory is None  # scoring needs none
    kept, again = former().memory, load_memory(tmp_path, loaded).memory
    assert again.facts == kept.facts
    for kind in ("users", "responses", "shared"):
        for name, tensor in getattr(kept, kind).items():
            assert torch.equal(getattr(again, kind)[name], tensor)


def test_damaged_memory_is_told(tmp_path):
    save_embeddings(former(), tmp_path)
    (tmp_path / MEMORY_FILE).write_bytes(b"nonsense")
    with pytest.raises(RunError, match="damaged"):
        load_memory(tmp_path, load_embeddings(tmp_path))
