from __future__ import annotations

import json

import pytest
import torch

from copl.errors import RunError
from copl.graph.store import NODES_FILE, TENSORS_FILE, load_embeddings, save_embeddings
from copl.records import Comparisons, NodeEmbeddings


def embeddings(**changes):
    values = {
        "user_ids": ("ada", "büb\n"),
        "response_keys": ("k0", "k1", "k2"),
        "users": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "responses": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
        "response_bias": torch.tensor([0.5, 0.0, -1.0]),
        "comparisons": Comparisons([0, 1], [2, 0], [1, 1], [1.0, 0.5], [1, -1]),
        "state": {"layer.weight": torch.eye(2)},
    }
    return NodeEmbeddings(**{**values, **changes})


def test_round_trip(tmp_path):
    saved = embeddings()
    save_embeddings(saved, tmp_path / "graph")
    loaded = load_embeddings(tmp_path / "graph")
    assert loaded.user_ids == saved.user_ids
    assert loaded.response_keys == saved.response_keys
    for name in ("users", "responses", "response_bias"):
        assert torch.equal(getattr(loaded, name), getattr(saved, name))
    for column in ("user", "chosen", "rejected", "weight", "controversial"):
        before, after = getattr(saved.comparisons, column), getattr(loaded.comparisons, column)
        assert after.dtype == before.dtype
        assert after.tolist() == before.tolist()
    assert loaded.state.keys() == {"layer.weight"}
    assert torch.equal(loaded.state["layer.weight"], torch.eye(2))


def test_tensors_that_share_memory(tmp_path):
    bias = torch.zeros(3)
    save_embeddings(embeddings(response_bias=bias, state={"same": bias, "user_ids": bias}), tmp_path)
    assert load_embeddings(tmp_path).state.keys() == {"same", "user_ids"}


def test_no_nodes(tmp_path):
    empty = NodeEmbeddings((), (), torch.zeros(0, 3), torch.zeros(0, 3), torch.zeros(0), Comparisons.empty())
    save_embeddings(empty, tmp_path)
    loaded = load_embeddings(tmp_path)
    assert loaded.users.shape == (0, 3)
    assert len(loaded.comparisons) == 0


def test_overwrites_and_leaves_nothing_behind(tmp_path):
    save_embeddings(embeddings(), tmp_path)
    save_embeddings(embeddings(users=torch.zeros(2, 2)), tmp_path)
    assert not load_embeddings(tmp_path).users.any()
    assert sorted(p.name for p in tmp_path.iterdir()) == [TENSORS_FILE, NODES_FILE]


def edit_nodes(directory, **changes):
    path = directory / NODES_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def truncate(path):
    path.write_bytes(path.read_bytes()[:-7])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda d: (d / TENSORS_FILE).unlink(), "embeddings.safetensors: missing"),
        (lambda d: (d / NODES_FILE).unlink(), "nodes.json: missing"),
        (lambda d: truncate(d / TENSORS_FILE), "embeddings.safetensors: damaged"),
        (lambda d: truncate(d / NODES_FILE), "nodes.json: damaged"),
        (lambda d: (d / NODES_FILE).write_text("[1]"), "nodes.json: damaged"),
        (lambda d: edit_nodes(d, format=99), "format 99, this version of copl reads 1"),
        (lambda d: edit_nodes(d, users=["only one"]), "differ in their numbers of nodes"),
    ],
)
def test_damage_is_told(tmp_path, damage, message):
    save_embeddings(embeddings(), tmp_path)
    damage(tmp_path)
    with pytest.raises(RunError, match=message):
        load_embeddings(tmp_path)


def test_a_failed_write_leaves_no_set(tmp_path):
    save_embeddings(embeddings(), tmp_path)
    with pytest.raises(TypeError):
        save_embeddings(embeddings(user_ids=(object(), "b")), tmp_path)
    with pytest.raises(RunError, match=r"nodes\.json: missing"):
        load_embeddings(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [TENSORS_FILE]
