"""The message graph, whole, in parts and as what reaches some nodes, against dense matrices."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.graph.messages.message_graph import SIGNS, MessageGraph
from copl.records import Comparisons

USERS, RESPONSES = 4, 5
NODES = USERS + RESPONSES


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


def dense(hop, sign):
    """Messages of a hop as a matrix [target, source]."""
    edges = getattr(hop, sign)
    matrix = edges.matrix.to_dense()
    if edges.rows is None:
        return matrix
    return torch.zeros(edges.num_targets, matrix.shape[1]).index_copy(0, edges.rows, matrix)


def expected(comparisons, sign):
    """The definition, one edge after the other, in both directions."""
    counts = torch.zeros(USERS, RESPONSES)
    for user, response, weight in zip(comparisons.user, getattr(comparisons, sign), comparisons.weight, strict=True):
        counts[user, response] += weight
    norm = (counts.sum(dim=1, keepdim=True) * counts.sum(dim=0, keepdim=True)).sqrt()
    block = torch.where(norm > 0, counts / norm.clamp_min(1e-9), 0.0)
    matrix = torch.zeros(NODES, NODES)
    matrix[:USERS, USERS:], matrix[USERS:, :USERS] = block, block.T
    return matrix


@settings(max_examples=15)
@given(weighted())
def test_the_whole_graph_is_the_normalised_adjacency_in_both_directions(comparisons):
    hop = MessageGraph(comparisons, USERS, RESPONSES).whole()
    for sign in SIGNS:
        torch.testing.assert_close(dense(hop, sign), expected(comparisons, sign))


def test_repeated_edges_add_up_before_normalising():
    # user 0 chose response 0 twice and response 1 once: degrees 3 of the user, 2 and 1 of the responses
    hop = MessageGraph(Comparisons([0, 0, 0], [0, 0, 1], [2, 2, 2]), 1, 3).whole()
    torch.testing.assert_close(dense(hop, "chosen")[0], torch.tensor([0, 2 / 6**0.5, 1 / 3**0.5, 0]))
    torch.testing.assert_close(dense(hop, "rejected")[0], torch.tensor([0, 0, 0, 1.0]))


@pytest.mark.parametrize(("users", "responses"), [(0, 0), (0, 3), (2, 0), (2, 3)])
def test_without_comparisons_nothing_is_heard(users, responses):
    hop = MessageGraph(Comparisons.empty(), users, responses).whole()
    assert not hop.chosen.sums(torch.ones(users + responses, 2)).any()


@settings(max_examples=15)
@given(weighted(), st.data())
def test_without_equals_a_graph_that_never_had_them(comparisons, data):
    rows = data.draw(st.lists(st.integers(0, len(comparisons) - 1), unique=True, max_size=len(comparisons) - 1))
    graph = MessageGraph(comparisons, USERS, RESPONSES)
    before = graph.whole()
    with graph.without(torch.tensor(rows, dtype=torch.int64)):
        hop = graph.whole()
    kept = comparisons.take(~np.isin(np.arange(len(comparisons)), rows))
    for sign in SIGNS:
        torch.testing.assert_close(dense(hop, sign), expected(kept, sign))
        assert torch.equal(dense(graph.whole(), sign), dense(before, sign))


def test_dropout_takes_edges_out_after_normalising_in_both_directions_at_once():
    rng = np.random.default_rng(0)
    chosen = rng.integers(0, 20, 400)
    graph = MessageGraph(Comparisons(rng.integers(0, 30, 400), chosen, (chosen + 1) % 20), 30, 20)
    whole = dense(graph.whole(), "chosen")
    torch.manual_seed(0)
    with graph.without(torch.zeros(0, dtype=torch.int64), dropout=0.25):
        dropped = dense(graph.whole(), "chosen")
    assert torch.equal(dropped, dropped.T)
    kept = dropped > 0
    torch.testing.assert_close(dropped[kept], whole[kept] / 0.75)
    assert 0.6 < float(kept.sum() / (whole > 0).sum()) < 0.9
    assert torch.equal(dense(graph.whole(), "chosen"), whole)


@settings(max_examples=15)
@given(weighted())
def test_sums_and_edges_of_a_part_are_those_of_its_matrix(comparisons):
    graph = MessageGraph(comparisons, USERS, RESPONSES)
    responses, part = graph.of_users(torch.unique(torch.from_numpy(comparisons.user)))
    assert part.num_users + len(responses) <= NODES
    _, (near,) = graph.reaching(torch.tensor([0]), 1)
    for hop in (graph.whole(), part, near):
        matrix = dense(hop, "rejected")
        nodes = torch.randn(matrix.shape[1], 2, generator=torch.Generator().manual_seed(0))
        torch.testing.assert_close(hop.rejected.sums(nodes), matrix @ nodes)
        source, target = hop.rejected.index()
        assert {*zip(target.tolist(), source.tolist(), strict=True)} == {*map(tuple, matrix.nonzero().tolist())}


def test_a_part_stands_for_what_is_left_out():
    # response 0 is chosen by users 0, 1 and 2; a part with users 0 and 1 alone receives 3/2 of what they send
    comparisons = Comparisons([0, 1, 2], [0, 0, 0], [1, 1, 1])
    responses, part = MessageGraph(comparisons, 3, 2).of_users(torch.tensor([0, 1]))
    assert responses.tolist() == [0, 1]
    received = dense(part, "chosen")
    single = 1 / 3**0.5
    torch.testing.assert_close(received[2], torch.tensor([1.5 * single, 1.5 * single, 0, 0]))
    torch.testing.assert_close(received[0], torch.tensor([0, 0, single, 0]))  # all of what user 0 receives is here


def test_edges_are_those_not_taken_out():
    graph = MessageGraph(Comparisons([0, 1], [0, 1], [1, 0]), 2, 2)
    with graph.without(torch.tensor([0])):
        hop = graph.whole()
    assert sorted(map(tuple, hop.chosen.index().T.tolist())) == [(1, 3), (3, 1)]
    assert sorted(map(tuple, hop.rejected.index().T.tolist())) == [(1, 2), (2, 1)]


def test_a_field_is_what_reaches_its_nodes():
    # user 0 compares 0 and 1, user 1 compares 1 and 2, user 2 compares 3 and 4; user 2 is never reached from user 0
    graph = MessageGraph(Comparisons([0, 1, 2], [0, 1, 3], [1, 2, 4]), 3, 5)
    nodes = torch.tensor([0, 3, 4])  # user 0, responses 0 and 1
    reached = [graph.reaching(nodes, num_hops) for num_hops in (1, 2, 3)]
    assert [before.tolist() for before, _ in reached] == [[0, 1, 3, 4], [0, 1, 3, 4, 5], [0, 1, 3, 4, 5]]
    last = reached[1][1][-1]
    assert (last.num_users, last.targets.tolist()) == (1, [0, 2, 3])
    assert last.chosen.rows.tolist() == [0, 1, 2]  # response 0 is chosen by user 0, response 1 by user 1
    assert last.rejected.rows.tolist() == [0, 2]  # of responses 0 and 1 only response 1 is rejected


@settings(max_examples=25)
@given(weighted(), st.lists(st.integers(0, NODES - 1), min_size=1, max_size=4, unique=True), st.integers(1, 3))
def test_hops_of_a_field_follow_one_another_to_what_the_whole_graph_gives(comparisons, nodes, num_hops):
    graph, places = MessageGraph(comparisons, USERS, RESPONSES), torch.tensor(sorted(nodes))
    before, hops = graph.reaching(places, num_hops)
    everything = torch.randn(NODES, 2, generator=torch.Generator().manual_seed(0))
    near, whole, far = everything[before], graph.whole(), everything
    for hop in hops:
        near = 0.5 * hop.own(near) + hop.chosen.sums(near) - hop.rejected.sums(near)
        far = 0.5 * far + whole.chosen.sums(far) - whole.rejected.sums(far)
    torch.testing.assert_close(near, far[places])
    assert hops[-1].num_users == sum(node < USERS for node in nodes)
