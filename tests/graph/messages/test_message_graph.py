"""The message graph, whole and in parts, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.graph.messages.adjacency import SignedEdges
from copl.graph.messages.batches import user_parts, whole_graph
from copl.graph.messages.geometric import weighted_sum
from copl.graph.messages.message_graph import MessageGraph
from copl.records import Comparisons

USERS, RESPONSES = 4, 5


@st.composite
def weighted(draw):
    rows = st.tuples(
        st.integers(0, USERS - 1),
        st.integers(0, RESPONSES - 1),
        st.integers(0, RESPONSES - 1),
        st.sampled_from([0.3, 1.0, 2.0]),
    )
    columns = list(zip(*draw(st.lists(rows, min_size=1, max_size=12)), strict=True))
    return Comparisons(*(np.array(c, dtype=np.int64) for c in columns[:3]), columns[3])


def dense(index, norm, size):
    """Messages as a matrix [target, source]."""
    matrix = torch.zeros(size, size)
    source, target = index.as_tensor()
    matrix[target, source] = norm
    return matrix


def expected(comparisons, sign):
    """The same from the bipartite adjacency."""
    weight = torch.from_numpy(comparisons.weight / comparisons.weight.mean()).float()
    block = getattr(SignedEdges(comparisons, USERS, RESPONSES).adjacency(weight), sign).to_dense()
    matrix = torch.zeros(USERS + RESPONSES, USERS + RESPONSES)
    matrix[:USERS, USERS:], matrix[USERS:, :USERS] = block, block.T
    return matrix


@settings(max_examples=15)
@given(weighted())
def test_the_whole_graph_is_the_normalised_adjacency_in_both_directions(comparisons):
    edges = MessageGraph(comparisons, USERS, RESPONSES).whole()
    for sign in ("chosen", "rejected"):
        found = dense(getattr(edges, sign), getattr(edges, f"{sign}_norm"), USERS + RESPONSES)
        torch.testing.assert_close(found, expected(comparisons, sign))


@settings(max_examples=15)
@given(weighted(), st.data())
def test_without_equals_a_graph_that_never_had_them(comparisons, data):
    rows = data.draw(st.lists(st.integers(0, len(comparisons) - 1), unique=True, max_size=len(comparisons) - 1))
    graph = MessageGraph(comparisons, USERS, RESPONSES)
    before = graph.whole()
    with graph.without(torch.tensor(rows, dtype=torch.int64)):
        edges = graph.whole()
    kept = comparisons.take(~np.isin(np.arange(len(comparisons)), rows))
    for sign in ("chosen", "rejected"):
        found = dense(getattr(edges, sign), getattr(edges, f"{sign}_norm"), USERS + RESPONSES)
        torch.testing.assert_close(found, expected(kept, sign))
        assert torch.equal(getattr(graph.whole(), f"{sign}_norm"), getattr(before, f"{sign}_norm"))


@settings(max_examples=15)
@given(weighted(), st.integers(1, 3))
def test_sums_and_their_gradients_equal_the_dense_ones(comparisons, dim):
    graph, add = MessageGraph(comparisons, USERS, RESPONSES), weighted_sum()
    responses, part = graph.of_users(torch.unique(torch.from_numpy(comparisons.user)))
    assert part.num_users + len(responses) <= USERS + RESPONSES
    generator = torch.Generator().manual_seed(0)
    for edges in (graph.whole(), part):
        size = edges.chosen.sparse_size(0)
        nodes = torch.randn(size, dim, generator=generator).requires_grad_()
        upstream = torch.randn(size, dim, generator=generator)
        matrix = dense(edges.rejected, edges.rejected_norm, size)
        summed = add(nodes, edges.rejected, edges.rejected_norm)
        torch.testing.assert_close(summed, matrix @ nodes)
        torch.testing.assert_close(torch.autograd.grad(summed, nodes, upstream)[0], matrix.T @ upstream)
        # by single messages, as for edges that are in no order
        plain = add(nodes, edges.rejected.as_tensor(), edges.rejected_norm)
        torch.testing.assert_close(plain, summed)


def test_a_part_stands_for_what_is_left_out():
    # response 0 is chosen by users 0, 1 and 2; a part with users 0 and 1 alone receives 3/2 of what they send
    comparisons = Comparisons([0, 1, 2], [0, 0, 0], [1, 1, 1])
    responses, part = MessageGraph(comparisons, 3, 2).of_users(torch.tensor([0, 1]))
    assert responses.tolist() == [0, 1]
    received = dense(part.chosen, part.chosen_norm, 4)
    single = 1 / 3**0.5
    torch.testing.assert_close(received[2], torch.tensor([1.5 * single, 1.5 * single, 0, 0]))
    torch.testing.assert_close(received[0], torch.tensor([0, 0, single, 0]))  # all of what user 0 receives is here


def test_present_edges_are_those_not_taken_out():
    graph = MessageGraph(Comparisons([0, 1], [0, 1], [1, 0]), 2, 2)
    with graph.without(torch.tensor([0])):
        chosen, rejected = graph.whole().present()
    assert sorted(map(tuple, chosen.T.tolist())) == [(1, 3), (3, 1)]
    assert sorted(map(tuple, rejected.T.tolist())) == [(1, 2), (2, 1)]


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize("kind", ["full", "users"])
def test_batches_supervise_by_what_is_not_an_edge(kind, share):
    rng = np.random.default_rng(0)
    user = np.repeat(np.arange(12), 4)
    liked = np.concatenate([rng.permutation(20)[:4] for _ in range(12)])  # nobody chooses a response twice
    comparisons = Comparisons(user, liked, 39 - liked)
    graph = MessageGraph(comparisons, 12, 40)
    torch.manual_seed(0)
    batches = whole_graph(graph, share) if kind == "full" else user_parts(graph, share, batch_size=10)
    seen = set()
    for _ in range(6):
        batch = next(batches)
        seen |= set(batch.users.tolist())
        rows = batch.comparisons
        supervising = {*zip(rows.user.tolist(), (rows.chosen + len(batch.users)).tolist(), strict=True)}
        edges = set(map(tuple, batch.edges.present()[0].T.tolist()))
        assert supervising
        assert (supervising <= edges) if share == 0 else not supervising & edges
        known = {*zip(comparisons.user.tolist(), comparisons.chosen.tolist(), strict=True)}
        assert {(int(batch.users[u]), int(batch.responses[r - len(batch.users)])) for u, r in supervising} <= known
    assert seen == set(range(12))
