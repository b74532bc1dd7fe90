from __future__ import annotations

import json

import attrs
import pytest
import torch

from copl.errors import RunError
from copl.graph.store import NODES_FILE, TENSORS_FILE, load_embeddings, save_embeddings
from copl.records import Comparisons, NodeEmbeddings
from copl.records.passes import (
    GaussianPass,
    GroupPass,
    LayerPass,
    MemberPass,
    SideBySidePass,
    SignedPass,
    TastePass,
    TextMap,
)
from copl.system.tensors import save_tensors


def embeddings(**changes):
    values = {
        "user_ids": ("ada", "büb\n"),
        "response_keys": ("k0", "k1", "k2"),
        "users": torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        "responses": torch.arange(6.0).reshape(2, 3).T,  # not contiguous
        "response_bias": torch.tensor([0.5, 0.0, -1.0]),
        "comparisons": Comparisons([0, 1], [2, 0], [1, 1], [1.0, 0.5], [1, -1]),
        "newcomer_pass": GaussianPass(torch.zeros(2), torch.eye(2), sharpness=0.1),
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
    assert torch.equal(loaded.newcomer_pass.factor, torch.eye(2))
    assert (loaded.newcomer_pass.sharpness, loaded.newcomer_pass.power) == (0.1, 1.0)
    assert not loaded.trainable_users


def test_that_newcomers_are_not_placed_is_kept_and_holds_for_nobody_who_does_not_say_so(tmp_path):
    save_embeddings(embeddings(places_newcomers=False), tmp_path / "one")
    assert not load_embeddings(tmp_path / "one").places_newcomers
    save_embeddings(embeddings(), tmp_path / "other")
    path = tmp_path / "other" / NODES_FILE
    nodes = json.loads(path.read_text())
    assert nodes.pop("places_newcomers")
    path.write_text(json.dumps(nodes))  # as earlier versions wrote it
    assert load_embeddings(tmp_path / "other").places_newcomers


def test_the_mark_of_trainable_users(tmp_path):
    save_embeddings(embeddings(trainable_users=True, newcomer_pass=None), tmp_path)
    loaded = load_embeddings(tmp_path)
    assert loaded.trainable_users
    assert loaded.newcomer_pass is None


def parts(record):
    """Return the class of a pass and all that is in it, parts alike."""
    if isinstance(record, torch.Tensor):
        return record.tolist()
    if isinstance(record, tuple):
        return [parts(part) for part in record]
    if attrs.has(type(record)):
        return type(record), {name: parts(value) for name, value in attrs.asdict(record, recurse=False).items()}
    return record


def test_every_kind_of_pass(tmp_path):
    groups = GroupPass(torch.eye(2), torch.zeros(2), sharpness=1 / 3, correlation=0.1)
    layers = (
        LayerPass(torch.ones(3, 2), chosen=2 * torch.eye(2), bias=torch.ones(2)),
        LayerPass(torch.zeros(3, 2), own=torch.eye(2)),
    )
    signed = SignedPass(torch.ones(2), torch.zeros(2, 0), torch.ones(2, 3), layers, slope=0.3, length=1.0)
    inner = SideBySidePass((MemberPass(groups, 0.7, torch.ones(3)),))
    both = SideBySidePass((MemberPass(signed, 2.0, torch.zeros(3)), MemberPass(inner, 0.5, torch.ones(3))))
    save_embeddings(embeddings(newcomer_pass=both), tmp_path)
    assert parts(load_embeddings(tmp_path).newcomer_pass) == parts(both)


def test_tastes_and_the_map_of_texts(tmp_path):
    taste = TastePass(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 0.5]))
    text_map = TextMap(
        torch.tensor([1.0, 2.0]).double(),
        torch.ones(2).double(),
        torch.eye(2).double(),
        torch.ones(2, 3),
        torch.ones(3),
    )
    both = SideBySidePass((MemberPass(taste, 0.7, torch.ones(3)),))
    for newcomer_pass in (taste, both):
        save_embeddings(embeddings(newcomer_pass=newcomer_pass, text_map=text_map), tmp_path)
        loaded = load_embeddings(tmp_path)
        assert parts(loaded.newcomer_pass) == parts(newcomer_pass)
        assert parts(loaded.text_map) == parts(text_map)
        assert loaded.text_map.centre.dtype == torch.float64
    save_embeddings(embeddings(), tmp_path)
    assert load_embeddings(tmp_path).text_map is None


def test_a_map_of_texts_that_is_not_whole(tmp_path, monkeypatch):
    text_map = TextMap(*(torch.zeros(2) for _ in range(5)))
    plain = save_tensors
    monkeypatch.setattr(
        "copl.graph.store.save_tensors",
        lambda path, tensors: plain(path, {n: t for n, t in tensors.items() if n != "text_map.weight"}),
    )
    save_embeddings(embeddings(text_map=text_map), tmp_path)
    with pytest.raises(RunError, match=r"text_map\. must have the tensors centre, scale, landmarks, weight, offset"):
        load_embeddings(tmp_path)


def test_tensors_that_share_memory(tmp_path):
    bias = torch.zeros(3)
    save_embeddings(embeddings(response_bias=bias, newcomer_pass=GaussianPass(bias, bias[:, None])), tmp_path)
    assert load_embeddings(tmp_path).newcomer_pass.factor.shape == (3, 1)


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
        (lambda d: (d / NODES_FILE).write_text("[1]"), "nodes.json: format is nothing"),
        (lambda d: edit_nodes(d, format=99), "format is 99, this version of copl reads 4"),
        (lambda d: edit_nodes(d, users=["only one"]), "differ in their numbers of nodes"),
        (lambda d: edit_nodes(d, newcomer_pass={"kind": "guess"}), "newcomer_pass: expected a pass of kind groups, "),
        (lambda d: edit_nodes(d, newcomer_pass={"kind": ["groups"]}), "newcomer_pass: expected a pass of kind"),
        (lambda d: edit_nodes(d, newcomer_pass=[]), "newcomer_pass: expected a table of values"),
        (lambda d: edit_nodes(d, newcomer_pass={"kind": "groups", "log_share": 1}), "points: missing"),
        (lambda d: edit_nodes(d, users=["a", 2]), r"users\[1\]: expected text, got 2"),
        (lambda d: edit_nodes(d, trainable_users=None), "trainable_users: expected true or false, got nothing"),
    ],
)
def test_damage_is_told(tmp_path, damage, message):
    save_embeddings(embeddings(), tmp_path)
    damage(tmp_path)
    with pytest.raises(RunError, match=message) as caught:
        load_embeddings(tmp_path)
    assert not any("\n" in fault for fault in caught.value.faults)


def test_a_failed_write_leaves_no_set(tmp_path):
    save_embeddings(embeddings(), tmp_path)
    with pytest.raises(TypeError):
        save_embeddings(embeddings(user_ids=(object(), "b")), tmp_path)
    with pytest.raises(RunError, match=r"nodes\.json: missing"):
        load_embeddings(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == [TENSORS_FILE]
