"""The table of users and responses: scores of responses by comparisons and by text, and vectors of users."""

from __future__ import annotations

from typing import Any

import attrs
import numpy as np
import pytest
import torch

from copl.adapt.strategies.catalogue import COMPONENTS
from copl.data.dataset import load_dataset
from copl.errors import DataError
from copl.methods.parts.gate_view import GateView
from copl.methods.parts.user_space import UserSpace
from copl.plugins import load
from copl.records import (
    AdaptedUsers,
    Comparisons,
    ComparisonSet,
    NodeEmbeddings,
    ResponseTable,
    ScoreRequests,
    UserTable,
)
from copl.records.passes import TextMap
from copl.reward.reading.reader import TextReader
from copl.runs.recipe import resolve
from copl.runs.workspace import RunWorkspace
from copl.system.progress import SilentProgress

KNOWN = ResponseTable(["p"] * 3, ["t1", "t2", "t3"])


class Numbers:
    """Reads the number in a text; notes what it has read."""

    def __init__(self) -> None:
        self.read: list[str] = []

    def features(self, responses: ResponseTable, rows: np.ndarray) -> torch.Tensor:
        texts = [responses.texts[row] for row in rows]
        self.read += texts
        return torch.tensor([[float(text[1:])] for text in texts]).reshape(-1, 1)


def space(reader: Any = None) -> UserSpace:
    """Users at 1 and -3; text n lies at n with the bias n / 2, but for t1, of which comparisons say 10 and 0."""
    comparisons = Comparisons([0, 1, 1], [1, 1, 2], [0, 2, 1])  # t1 once, t2 three times, t3 twice
    responses, bias = torch.tensor([[10.0], [2.0], [3.0]]), torch.tensor([0.0, 1.0, 1.5])
    text_map = TextMap(torch.zeros(1), torch.ones(1), torch.zeros(0, 1), torch.tensor([[1.0, 0.5]]), torch.zeros(2))
    trained = NodeEmbeddings(
        ("a", "b"), KNOWN.keys, torch.tensor([[1.0], [-3.0]]), responses, bias, comparisons, text_map=text_map
    )
    return UserSpace(trained, COMPONENTS[0].build(COMPONENTS[0].options()), GateView.of(trained), reader)


def requests(texts: list[str], user: str = "a") -> ScoreRequests:
    count = len(texts)
    return ScoreRequests(
        UserTable.ungrouped([user]), ResponseTable(["p"] * count, texts), np.zeros(count, np.int64), np.arange(count)
    )


MEAN, MEAN_BIAS = (10 + 3 * 2 + 2 * 3) / 6, (0 + 3 * 1 + 2 * 1.5) / 6


def test_a_known_response_scores_by_its_own_embedding_and_a_new_one_by_its_text() -> None:
    reader = Numbers()
    found = space(reader).scores(requests(["t1", "t7", "t2"], "b"), None)
    average = -3 * MEAN + MEAN_BIAS
    assert found.tolist() == pytest.approx([-30 - average, -21 + 3.5 - average, -6 + 1 - average], abs=1e-5)
    assert reader.read == ["t7"]  # of the others all is known


def test_alone_and_together_are_the_same() -> None:
    texts = ["t1", "t7", "t2", "t9", "t7"]
    together = space(Numbers()).scores(requests(texts), None)
    alone = [float(space(Numbers()).scores(requests([text]), None)[0]) for text in texts]
    assert together.tolist() == pytest.approx(alone)


def test_without_a_reader_a_new_response_counts_as_average() -> None:
    found = space().scores(requests(["t1", "t7"]), None)
    assert found.tolist() == pytest.approx([10 - MEAN - MEAN_BIAS, 0.0], abs=1e-5)


def test_a_user_is_as_adapted_else_as_trained_else_the_mean() -> None:
    users = UserTable.ungrouped(["nobody", "b", "a", "new"])
    adapted = AdaptedUsers(
        ("new", "a"), torch.tensor([[5.0], [7.0]]), ("mean", "mean"), np.array([1, 1]), np.array([1.0, 1.0])
    )
    assert space().vectors(users, None)[:, 0].tolist() == [-1.0, -3.0, 1.0, -1.0]
    assert space().vectors(users, adapted)[:, 0].tolist() == [-1.0, -3.0, 7.0, 5.0]


def test_only_texts_that_are_not_trained_and_matter_are_read() -> None:
    reader = Numbers()
    table = ResponseTable(["p"] * 5, ["t1", "t7", "t8", "t9", "t2"])
    said = Comparisons([0, 0], [0, 2], [1, 4], [1.0, 0.0])
    asked = ComparisonSet(UserTable.ungrouped(["new"]), table, said)
    found = space(reader)._read(asked)
    assert reader.read == ["t7"]
    assert found.features is not None
    assert found.features[1].tolist() == [7.0]
    assert space()._read(asked) is asked


# ---------------------------------------------------------------- fitted


def stages(tiny_model, method="copl", **encoder):
    encoder = {"name": "lightgcn", "num_epochs": 2, "embedding_dim": 4, **encoder}
    draft = {"method": {"name": method}, "encoder": encoder}
    return resolve({**draft, **({"backbone": {"name": str(tiny_model)}} if method == "copl" else {})}, load()).stages


def fit(data, asked, workspace):
    reader = TextReader.of(asked)
    reader.read(data.responses, workspace)
    return UserSpace.fit(data, asked, reader, seed=0, workspace=workspace), reader


def test_all_responses_are_embedded_where_the_encoder_reads_texts(small_data, tiny_model, tmp_path):
    data, workspace = load_dataset(small_data), RunWorkspace(tmp_path, SilentProgress())
    found, _ = fit(data, stages(tiny_model, response_features=True), workspace)
    assert found.trained.response_keys == data.responses.keys
    train = data.split("train").comparisons
    cold = np.setdiff1d(np.arange(len(data.responses)), np.concatenate([train.chosen, train.rejected]))
    assert len(cold) > 1
    assert torch.unique(found.trained.responses[torch.from_numpy(cold)], dim=0).shape[0] > 1  # texts tell them apart
    assert found.trained.text_map is not None


def test_an_encoder_that_reads_no_texts_is_carried_over_to_them(small_data, tiny_model, tmp_path):
    data, workspace = load_dataset(small_data), RunWorkspace(tmp_path, SilentProgress())
    asked = stages(tiny_model)
    found, reader = fit(data, asked, workspace)
    train = data.split("train").comparisons
    compared = np.unique(np.concatenate([train.chosen, train.rejected]))
    assert len(found.trained.response_keys) == len(compared)
    new = np.setdiff1d(np.arange(len(data.responses)), compared)[:3]
    asks = ScoreRequests(data.users, data.responses, np.zeros(3, np.int64), new)
    scores = found.scores(asks, None)
    assert len(set(scores.tolist())) == 3
    again = UserSpace.load(tmp_path, asked, reader)
    np.testing.assert_array_equal(again.scores(asks, None), scores)


def test_the_key_holds_the_features_where_somebody_reads(small_data, tiny_model):
    data, asked = load_dataset(small_data), stages(tiny_model)
    reader = TextReader.of(asked)
    assert UserSpace.key(data, asked, reader, 0)["features"] == reader.key
    assert "features" not in UserSpace.key(data, asked, None, 0)


def test_an_encoder_that_needs_texts_says_so_where_there_are_none(small_data, tmp_path):
    data, workspace = load_dataset(small_data), RunWorkspace(tmp_path, SilentProgress())
    asked = stages(None, method="graph", response_features=True)
    with pytest.raises(DataError, match=r"encoder.lightgcn: response_features is on"):
        UserSpace.fit(data, asked, None, seed=0, workspace=workspace)


def test_without_a_map_of_texts_there_is_nothing_to_read() -> None:
    reader = Numbers()
    known = space(reader)
    blind = UserSpace(attrs.evolve(known.trained, text_map=None), known._strategy, known.view, reader)
    assert blind.scores(requests(["t7"]), None).tolist() == [0.0]
    assert reader.read == []


def test_newcomers_whom_an_encoder_cannot_place_get_the_mean_of_the_seen_users() -> None:
    placing = space(Numbers())
    said = ComparisonSet(UserTable.ungrouped(["new"]), KNOWN, Comparisons([0, 0, 0], [0, 1, 1], [1, 2, 0]))
    plain = UserSpace(attrs.evolve(placing.trained, places_newcomers=False), placing._strategy, placing.view, Numbers())
    assert plain.adapt(said).embeddings.tolist() == [[-1.0]]
    assert plain.adapt(said).how == ("population",)
    assert placing.adapt(said).embeddings.tolist() != [[-1.0]]
