"""From a data set to the preference graph its encoder learns from, and on to torch_geometric."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from copl.errors import DataError
from copl.graph.messages.adjacency import SignedEdges
from copl.graph.messages.geometric import geometric
from copl.records import Comparisons, PreferenceData, PreferenceGraph

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import BoolArray, IntArray


def build_graph(data: PreferenceData, *, response_features: Tensor | None = None) -> PreferenceGraph:
    """Return the preference graph of a data set.

    Users are those with training comparisons, in the order of the data set. Responses are those that a training
    comparison touches, so that every response of the graph is a trained one; with `response_features` all responses of
    the data set are kept, since features carry over to responses nobody has judged. A comparison of weight 0, or of a
    response with itself, says nothing and is left out. Validation comparisons that refer to users or responses outside
    the graph are left out.

    Args:
        data: the data set; its splits ``train`` and ``validation`` are used.
        response_features: text embeddings of the data set's responses [R, F].

    Raises:
        DataError: there is nothing to learn from.
    """
    train = _telling(data.split("train").comparisons)
    if not len(train):
        raise DataError(f"{data.name}: no comparisons to train on; a preference graph needs some in the split 'train'")
    users = np.unique(train.user)
    if response_features is None:
        responses = np.unique(np.concatenate([train.chosen, train.rejected]))
    else:
        responses = np.arange(len(data.responses))
    user_rows = _renumbering(users, len(data.users))
    response_rows = _renumbering(responses, len(data.responses))
    keys = data.responses.keys
    return PreferenceGraph(
        user_ids=tuple(data.users.ids[row] for row in users.tolist()),
        response_keys=tuple(keys[row] for row in responses.tolist()),
        comparisons=_renumbered(train, user_rows, response_rows),
        validation=_renumbered(_telling(data.split("validation").comparisons), user_rows, response_rows),
        response_features=response_features,
    )


def _telling(comparisons: Comparisons) -> Comparisons:
    keep: BoolArray = (comparisons.weight > 0) & (comparisons.chosen != comparisons.rejected)
    return comparisons.take(keep)


def _renumbering(kept: IntArray, size: int) -> IntArray:
    """Return the new row of each old row, -1 for those not kept."""
    rows = np.full(size, -1, dtype=np.int64)
    rows[kept] = np.arange(len(kept))
    return rows


def _renumbered(comparisons: Comparisons, user_rows: IntArray, response_rows: IntArray) -> Comparisons:
    """Return the comparisons in new rows, without those that touch a row not kept."""
    user = user_rows[comparisons.user]
    chosen, rejected = response_rows[comparisons.chosen], response_rows[comparisons.rejected]
    keep = (user >= 0) & (chosen >= 0) & (rejected >= 0)
    return Comparisons(
        user[keep], chosen[keep], rejected[keep], comparisons.weight[keep], comparisons.controversial[keep]
    )


def to_hetero_data(graph: PreferenceGraph) -> Any:
    """Return the graph as `torch_geometric.data.HeteroData`.

    Node types ``user`` and ``response``, whose names are ``user_ids`` and ``response_keys``; edge types ``(user,
    chosen, response)`` and ``(user, rejected, response)``, each distinct edge once, as a `torch_geometric.EdgeIndex`
    sorted by user, with the sum of its comparisons' weights as ``edge_weight`` and its normalised value
    1/sqrt(deg_u deg_r) as ``edge_norm``; the reversed edge types ``chosen_by`` and ``rejected_by``. The training and
    validation comparisons lie on the user store as ``comparisons`` and ``validation`` [N, 3] (user, chosen, rejected),
    their weights as ``comparisons_weight`` and ``validation_weight`` [N].
    """
    data = geometric().data.HeteroData()
    data["user"].num_nodes = graph.num_users
    data["response"].num_nodes = graph.num_responses
    data.user_ids, data.response_keys = graph.user_ids, graph.response_keys
    if graph.response_features is not None:
        data["response"].x = graph.response_features
    for name, rows in (("comparisons", graph.comparisons), ("validation", graph.validation)):
        data["user"][name] = torch.from_numpy(np.stack([rows.user, rows.chosen, rows.rejected], axis=1))
        data["user"][f"{name}_weight"] = torch.from_numpy(rows.weight)
    edges = SignedEdges(graph.comparisons, graph.num_users, graph.num_responses)
    weight = torch.from_numpy(graph.comparisons.weight).float()
    for sign, part in (("chosen", edges.chosen), ("rejected", edges.rejected)):
        index, weights = part.index, part.sum_weights(weight)
        size = (graph.num_users, graph.num_responses)
        there = geometric().EdgeIndex(index, sparse_size=size, sort_order="row")
        back = geometric().EdgeIndex(index.flip(0), sparse_size=size[::-1], sort_order="col")
        for kind, edge_index in ((("user", sign, "response"), there), (("response", f"{sign}_by", "user"), back)):
            data[kind].edge_index = edge_index
            data[kind].edge_weight = weights
            data[kind].edge_norm = part.normalise(weights)
    return data


def from_hetero_data(data: Any) -> PreferenceGraph:
    """Return the preference graph that `to_hetero_data` made `data` of; edges are read from the comparisons."""
    comparisons, validation = (
        Comparisons(user, chosen, rejected, weight)
        for (user, chosen, rejected), weight in (
            (data["user"][name].T.numpy(), data["user"][f"{name}_weight"].numpy())
            for name in ("comparisons", "validation")
        )
    )
    features = data["response"].x if "x" in data["response"] else None
    return PreferenceGraph(tuple(data.user_ids), tuple(data.response_keys), comparisons, validation, features)
