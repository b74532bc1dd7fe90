"""All adaptation strategies: parity with the reference, fallbacks, and what must hold for each of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from copl.adapt.support import COMPARISONS_PER_BLOCK, match
from copl.options import parse_options
from copl.plugins import load
from copl.records import AdaptedUsers, Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable, UserTable

GOLDEN = Path(__file__).resolve().parents[3] / "../shared/golden/adapt_small.npz"
COMPONENTS = {r.component.name: r.component for r in load().registry("adapter") if r.package == "copl"}
EVERY = pytest.mark.parametrize("name", sorted(COMPONENTS))


def strategy(name: str, **options: Any) -> Any:
    component = COMPONENTS[name]
    return component.build(parse_options(component.options, options, where=name))


def responses(count: int) -> ResponseTable:
    return ResponseTable(["prompt"] * count, [f"text {row}" for row in range(count)])


def trained_on(
    users: Any, table: Any, chosen: list[tuple[int, int, int]], bias: Any = None, known: int | None = None
) -> NodeEmbeddings:
    """`chosen` holds user, chosen and rejected response of each training comparison."""
    users, table = torch.tensor(users, dtype=torch.float32), torch.tensor(table, dtype=torch.float32)
    columns = np.array(chosen, dtype=np.int64).reshape(-1, 3).T
    return NodeEmbeddings(
        tuple(f"seen {row}" for row in range(len(users))),
        responses(len(table)).keys[:known],
        users,
        table,
        torch.zeros(len(table)) if bias is None else torch.tensor(bias, dtype=torch.float32),
        Comparisons(*columns),
    )


def support_of(rows: list[tuple[int, int, int]], num_responses: int, num_users: int = 8) -> ComparisonSet:
    columns = np.array(rows, dtype=np.int64).reshape(-1, 3).T
    return ComparisonSet(
        UserTable.ungrouped([f"new {row}" for row in range(num_users)]), responses(num_responses), Comparisons(*columns)
    )


def random_problem(
    seed: int, *, num_newcomers: int = 12, num_responses: int = 20
) -> tuple[ComparisonSet, NodeEmbeddings]:
    """Newcomers of all sorts: known, half known and unknown responses, many comparisons and few."""
    generator = np.random.default_rng(seed)
    pairs = np.array([generator.choice(num_responses, 2, replace=False) for _ in range(60)])
    trained = trained_on(
        generator.normal(size=(9, 4)),
        generator.normal(size=(num_responses, 4)),
        [(int(user), *map(int, pair)) for user, pair in zip(generator.integers(9, size=60), pairs, strict=True)],
        bias=generator.normal(size=num_responses),
    )
    rows = [
        (newcomer, *map(int, generator.choice(num_responses + 6, 2, replace=False)))
        for newcomer in range(num_newcomers)
        for _ in range(generator.integers(1, 7))
    ]
    generator.shuffle(rows)
    return support_of([tuple(row) for row in rows], num_responses + 6, num_newcomers), trained


def by_id(adapted: AdaptedUsers) -> dict[str, np.ndarray]:
    return dict(zip(adapted.user_ids, adapted.embeddings.numpy(), strict=True))


# --- parity with the reference implementation ---


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    if not GOLDEN.exists():
        pytest.skip("shared/golden is not here")
    with np.load(GOLDEN) as archive:
        return dict(archive)


def golden_problem(golden: dict[str, np.ndarray]) -> tuple[ComparisonSet, NodeEmbeddings]:
    table = golden["response_embeddings"]
    training = np.stack([golden["users"], golden["chosen"], golden["rejected"]], axis=1)
    support = np.stack([golden["new_users"], golden["new_chosen"], golden["new_rejected"]], axis=1)
    return (
        support_of([tuple(row) for row in support], len(table), len(golden["adapted"])),
        trained_on(golden["user_embeddings"], table, [tuple(row) for row in training]),
    )


def test_two_hop_agrees_with_the_reference(golden: dict[str, np.ndarray]) -> None:
    adapted = strategy("two-hop", temperature=float(golden["temperature"])).adapt(*golden_problem(golden))
    np.testing.assert_allclose(adapted.embeddings, golden["adapted"], atol=1e-5)
    np.testing.assert_array_equal(adapted.num_neighbours, golden["two_hop"].sum(axis=1))
    assert set(adapted.how) == {"two-hop"}


def test_mean_agrees_with_the_reference(golden: dict[str, np.ndarray]) -> None:
    adapted = strategy("mean").adapt(*golden_problem(golden))
    np.testing.assert_allclose(adapted.embeddings, golden["mean_of_neighbours"], atol=1e-5)
    np.testing.assert_array_equal(adapted.num_neighbours, golden["two_hop"].sum(axis=1))


# --- two-hop and mean by hand ---

# Three seen users in the plane; users 0 and 1 chose response 0, user 2 chose response 2.
USERS = [[2.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]
TABLE = [[1.0, 0.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]]
CHOSEN = [(0, 0, 1), (1, 0, 3), (2, 2, 0)]


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_two_hop_by_hand() -> None:
    trained = trained_on(USERS, TABLE, CHOSEN)
    adapted = strategy("two-hop", temperature=1.0).adapt(support_of([(0, 0, 1)], 4), trained)
    # agreement: unit embeddings (1, 0) and (0, 1) against (1, 0) - (0, 1); softmax of log sigmoid at temperature one
    first, second = sigmoid(1.0), sigmoid(-1.0)
    weights = np.array([first, second]) / (first + second)
    np.testing.assert_allclose(adapted.embeddings[0], [2 * weights[0], weights[1]], rtol=1e-6)
    assert adapted.how == ("two-hop",)
    assert adapted.num_neighbours.tolist() == [2]
    # one comparison halves the length of the mean direction
    assert adapted.confidence[0] == pytest.approx(math.hypot(*weights) / 2)


@pytest.mark.parametrize(("response_bias", "margins"), [(True, (4.0, 2.0)), (False, (1.0, -1.0))])
def test_two_hop_can_take_the_response_bias_into_account(response_bias: bool, margins: tuple[float, float]) -> None:
    trained = trained_on(USERS, TABLE, CHOSEN, bias=[3.0, 0.0, 0.0, 0.0])
    two_hop = strategy("two-hop", temperature=1.0, response_bias=response_bias)
    adapted = two_hop.adapt(support_of([(0, 0, 1)], 4), trained)
    first, second = map(sigmoid, margins)
    expected = [2 * first / (first + second), second / (first + second)]
    np.testing.assert_allclose(adapted.embeddings[0], expected, rtol=1e-6)


def test_weights_of_comparisons_count_like_repeats() -> None:
    trained = trained_on(USERS, TABLE, CHOSEN)
    repeated = support_of([(0, 0, 1), (0, 0, 1), (0, 3, 0)], 4)
    weighted = support_of([(0, 0, 1), (0, 3, 0)], 4)
    weighted = ComparisonSet(
        weighted.users, weighted.responses, Comparisons([0, 0], [0, 3], [1, 0], weight=np.array([2.0, 1.0]))
    )
    for name in ("two-hop", "posterior", "empirical"):
        expected = strategy(name).adapt(repeated, trained).embeddings
        torch.testing.assert_close(strategy(name).adapt(weighted, trained).embeddings, expected)


def test_without_a_shared_response_all_seen_users_are_asked() -> None:
    trained = trained_on(USERS, TABLE, CHOSEN)
    support = support_of([(0, 1, 0)], 4)  # nobody chose response 1
    adapted = strategy("two-hop", temperature=1.0).adapt(support, trained)
    likelihood = np.array([sigmoid(-1.0), sigmoid(1.0), sigmoid(1.0)])
    expected = likelihood / likelihood.sum() @ np.array(USERS)
    np.testing.assert_allclose(adapted.embeddings[0], expected, rtol=1e-6)
    assert (adapted.how, adapted.num_neighbours.tolist()) == (("all-users",), [3])
    fallback = strategy("mean").adapt(support, trained)
    np.testing.assert_allclose(fallback.embeddings[0], np.mean(USERS, axis=0), rtol=1e-6)
    assert fallback.how == ("population",)


@EVERY
def test_nothing_known_gives_the_population_mean(name: str) -> None:
    trained = trained_on(USERS, TABLE, CHOSEN)
    adapted = strategy(name).adapt(support_of([(3, 5, 6), (3, 6, 4)], 7), trained)
    assert adapted.user_ids == ("new 3",)
    assert adapted.how == ("population",)
    assert adapted.confidence.tolist() == [0.0]
    np.testing.assert_allclose(adapted.embeddings[0], np.mean(USERS, axis=0), rtol=1e-6)


@pytest.mark.parametrize("name", ["two-hop", "posterior", "empirical"])
def test_an_untrained_response_counts_as_the_mean_response(name: str) -> None:
    trained = trained_on(USERS, [*TABLE[:3], [1 / 3, 1 / 3]], CHOSEN)  # response 3 is the mean of all four
    half_known = strategy(name).adapt(support_of([(0, 0, 9)], 10), trained)
    known = strategy(name).adapt(support_of([(0, 0, 3)], 10), trained)
    torch.testing.assert_close(half_known.embeddings, known.embeddings)


# --- posterior and empirical ---


def test_posterior_mode_by_hand() -> None:
    # one dimension, prior mean 0 and variance 1: e = sigmoid(-d e) d at the mode, with d = 2
    trained = trained_on([[1.0], [-1.0]], [[2.0], [0.0]], [(0, 0, 1)])
    adapted = strategy("posterior", prior_scale=1.0).adapt(support_of([(0, 0, 1)], 2), trained)
    mode = float(adapted.embeddings[0, 0])
    assert mode == pytest.approx(2 * sigmoid(-2 * mode), abs=1e-6)
    curvature = 1 + 4 * sigmoid(2 * mode) * sigmoid(-2 * mode)
    assert adapted.confidence[0] == pytest.approx(1 - 1 / curvature, abs=1e-6)


@pytest.mark.parametrize("count", [1, 3, 12])
def test_posterior_gradient_vanishes_at_the_mode(count: int) -> None:
    generator = np.random.default_rng(count)
    users, table = generator.normal(size=(50, 5)), 3 * generator.normal(size=(30, 5))
    bias = generator.normal(size=30)
    pairs = [(0, int(2 * row), int(2 * row + 1)) for row in range(count)]
    trained = trained_on(users, table, [], bias=bias)
    e = strategy("posterior", prior_scale=2.0).adapt(support_of(pairs, 30), trained).embeddings[0].double().numpy()
    differences = np.array([table[c] - table[r] for _, c, r in pairs])
    margins = differences @ e + np.array([bias[c] - bias[r] for _, c, r in pairs])
    prior = np.linalg.solve(2 * np.cov(users.T, bias=True), e - users.mean(axis=0))
    np.testing.assert_allclose(differences.T @ (1 / (1 + np.exp(margins))), prior, atol=1e-4)


def test_posterior_stays_finite_where_a_plain_newton_step_overshoots() -> None:
    trained = trained_on([[30.0], [-30.0]], [[10.0], [0.0]], [(0, 0, 1)], bias=[-200.0, 0.0])
    adapted = strategy("posterior", prior_scale=1.0).adapt(support_of([(0, 0, 1)], 2), trained)
    mode = float(adapted.embeddings[0, 0])
    assert mode / 900 == pytest.approx(10 * sigmoid(200 - 10 * mode), rel=1e-3)


def test_posterior_of_identical_users_is_that_user() -> None:
    trained = trained_on([[1.0, 2.0]] * 3, TABLE, CHOSEN)
    adapted = strategy("posterior").adapt(support_of([(0, 0, 1)], 4), trained)
    np.testing.assert_allclose(adapted.embeddings[0], [1.0, 2.0], rtol=1e-6)
    assert adapted.confidence.tolist() == [0.0]


def test_empirical_by_hand() -> None:
    trained = trained_on([[1.0], [-1.0]], [[1.0], [0.0]], [], bias=[0.5, 0.0])
    adapted = strategy("empirical", sharpness=1.0).adapt(support_of([(0, 0, 1), (0, 0, 1)], 2), trained)
    likely, unlikely = sigmoid(1.5) ** 2, sigmoid(-0.5) ** 2
    p = likely / (likely + unlikely)
    assert float(adapted.embeddings[0, 0]) == pytest.approx(2 * p - 1, rel=1e-5)
    assert adapted.confidence[0] == pytest.approx((2 * p - 1) ** 2, rel=1e-4)  # variance 1 before, 4 p (1 - p) after
    assert adapted.num_neighbours.tolist() == [round(1 / (p**2 + (1 - p) ** 2))]


@pytest.mark.parametrize("name", ["posterior", "empirical"])
def test_more_comparisons_make_surer(name: str) -> None:
    trained = trained_on([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], [[1.0, 1.0], [0.0, 0.0]], [])
    rows = [(0, 0, 1)] + [(1, 0, 1)] * 4 + [(2, 0, 1)] * 16
    confidence = strategy(name).adapt(support_of(rows, 2), trained).confidence
    assert 0 < confidence[0] < confidence[1] < confidence[2] < 1


@pytest.mark.parametrize("name", ["two-hop", "posterior", "empirical"])
def test_newcomers_are_found_in_a_planted_graph(name: str) -> None:
    """Two groups that disagree on everything: newcomers must come out on the side of their own group."""
    generator = np.random.default_rng(3)
    sides = np.array([1.0, -1.0])
    users = np.repeat(sides, 20)[:, None] * [[1.0, 0.0]] + 0.3 * generator.normal(size=(40, 2))
    table = np.stack([np.tile([2.0, 0.0], 15), generator.normal(size=30)], axis=1)
    group = np.repeat([0, 1], 20)

    def vote(user: int, own: int, pair: int) -> tuple[int, int, int]:
        return (user, 2 * pair + own, 2 * pair + 1 - own)

    training = [vote(user, int(group[user]), int(pair)) for user in range(40) for pair in generator.choice(15, 6)]
    rows = [vote(new, new % 2, int(pair)) for new in range(8) for pair in generator.choice(15, 4)]
    adapted = strategy(name).adapt(support_of(rows, 30), trained_on(users, table, training))
    assert np.sign(adapted.embeddings[:, 0].numpy()).tolist() == [1.0, -1.0] * 4


# --- what must hold for every strategy ---


@EVERY
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_every_newcomer_gets_a_finite_answer(name: str, seed: int) -> None:
    support, trained = random_problem(seed)
    before = trained.users.clone()
    adapted = strategy(name).adapt(support, trained)
    assert adapted.user_ids == support.users.ids
    assert adapted.embeddings.shape == (12, 4)
    assert adapted.embeddings.dtype == trained.users.dtype
    assert torch.isfinite(adapted.embeddings).all()
    assert len(adapted.how) == len(adapted.num_neighbours) == len(adapted.confidence) == 12
    assert ((adapted.confidence >= 0) & (adapted.confidence <= 1)).all()
    assert ((adapted.num_neighbours >= 1) & (adapted.num_neighbours <= 9)).all()
    assert torch.equal(trained.users, before)


@EVERY
@given(seed=st.integers(0, 10_000))
@settings(max_examples=15)
def test_neither_order_nor_batch_matters(name: str, seed: int) -> None:
    support, trained = random_problem(seed)
    chosen = strategy(name)
    together = chosen.adapt(support, trained)
    shuffled = support.comparisons.take(np.random.default_rng(seed).permutation(len(support)))
    turned = UserTable.ungrouped(support.users.ids[::-1])
    renamed = Comparisons(len(turned) - 1 - shuffled.user, shuffled.chosen, shuffled.rejected)
    again = chosen.adapt(ComparisonSet(turned, support.responses, renamed), trained)
    alone = [
        chosen.adapt(
            ComparisonSet(support.users, support.responses, support.comparisons.take(support.comparisons.user == row)),
            trained,
        )
        for row in range(len(support.users))
    ]
    expected = by_id(together)
    for user, embedding in by_id(again).items():
        np.testing.assert_allclose(embedding, expected[user], atol=1e-5)
    for row, one in enumerate(alone):
        assert one.how == together.how[row : row + 1]
        assert one.num_neighbours.tolist() == together.num_neighbours[row : row + 1].tolist()
        np.testing.assert_allclose(one.confidence, together.confidence[row : row + 1], atol=1e-5)
        np.testing.assert_allclose(one.embeddings[0], expected[one.user_ids[0]], atol=1e-5)


@EVERY
def test_responses_are_matched_by_key_not_by_row(name: str) -> None:
    support, trained = random_problem(1)
    order = np.random.default_rng(1).permutation(len(support.responses))
    table = ResponseTable(
        [support.responses.prompts[row] for row in order], [support.responses.texts[row] for row in order]
    )
    place = np.argsort(order)
    rows = support.comparisons
    moved = ComparisonSet(support.users, table, Comparisons(rows.user, place[rows.chosen], place[rows.rejected]))
    expected = strategy(name).adapt(support, trained).embeddings
    torch.testing.assert_close(strategy(name).adapt(moved, trained).embeddings, expected)


@EVERY
@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([(0, 0, 0)], id="chosen is rejected"),
        pytest.param([(0, 0, 1), (0, 1, 0)], id="contradiction"),
        pytest.param([(0, 1, 0)] * 300, id="more than a block"),
    ],
)
def test_odd_support(name: str, rows: list[tuple[int, int, int]]) -> None:
    adapted = strategy(name).adapt(support_of(rows, 4), trained_on(USERS, TABLE, CHOSEN))
    assert adapted.user_ids == ("new 0",)
    assert torch.isfinite(adapted.embeddings).all()


@EVERY
def test_no_newcomers(name: str) -> None:
    adapted = strategy(name).adapt(support_of([], 4), trained_on(USERS, TABLE, CHOSEN))
    assert adapted.user_ids == adapted.how == ()
    assert adapted.embeddings.shape == (0, 2)


@EVERY
def test_no_seen_users(name: str) -> None:
    trained = trained_on(np.zeros((0, 2)), TABLE, [])
    adapted = strategy(name).adapt(support_of([(0, 0, 1)], 4), trained)
    assert adapted.embeddings.tolist() == [[0.0, 0.0]]
    assert (adapted.how, adapted.num_neighbours.tolist()) == (("population",), [0])


@EVERY
def test_users_of_length_zero(name: str) -> None:
    adapted = strategy(name).adapt(support_of([(0, 0, 1)], 4), trained_on(np.zeros((3, 2)), TABLE, CHOSEN))
    assert adapted.embeddings.tolist() == [[0.0, 0.0]]
    assert adapted.confidence.tolist() == [0.0]


def test_blocks_cover_each_newcomer_once() -> None:
    rows = [(new, 0, 1) for new in range(40) for _ in range(1 + 17 * (new % 3))]
    matched = match(support_of([*rows, (41, 0, 1)], 4, num_users=42), trained_on(USERS, TABLE, CHOSEN))
    blocks = list(matched.blocks())
    assert len(blocks) > 1
    assert np.concatenate([newcomers for newcomers, _ in blocks]).tolist() == list(range(41))
    assert sum(len(part.newcomer) for _, part in blocks) == len(rows) + 1
    assert all(len(part.newcomer) <= COMPARISONS_PER_BLOCK for _, part in blocks)
