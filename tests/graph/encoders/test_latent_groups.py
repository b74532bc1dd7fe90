"""Latent groups: each step of the algorithm by hand or by brute force, and the encoder around it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logsumexp

from copl.graph.encoders import latent_groups
from copl.graph.encoders.catalogue import LatentGroupsOptions
from copl.graph.encoders.latent_groups.em import EffectPrior, Groups, LatentGroups, random_start, start_at
from copl.graph.encoders.latent_groups.encoder import as_embeddings
from copl.graph.encoders.latent_groups.evidence import Evidence
from copl.graph.encoders.latent_groups.starts import user_directions
from copl.graph.starts import clusters
from copl.graph.training import ComparisonTensors
from copl.options import parse_options
from copl.records import Comparisons, PreferenceGraph
from copl.system.progress import SilentProgress

PRIOR = EffectPrior(group=1.0, shared=1.0)


def build(**values):
    return latent_groups.LatentGroupsEncoder(parse_options(LatentGroupsOptions, values, where="latent-groups"))


def log_prior(effects, prior):
    """log density, up to a constant, of the effects with the shared part integrated out, by its definition."""
    count = effects.shape[1]
    covariance = np.eye(count) / prior.group + np.ones((count, count)) / prior.shared
    return -0.5 * np.einsum("rk,kl,rl->", effects, np.linalg.inv(covariance), effects)


def disjoint(num_users=60, num_pairs=6, per_user=5, seed=0):
    rng = np.random.default_rng(seed)
    pair = np.concatenate([rng.choice(num_pairs, per_user, replace=False) for _ in range(num_users)])
    won = rng.integers(0, 2, len(pair))
    return Comparisons(np.repeat(np.arange(num_users), per_user), 2 * pair + won, 2 * pair + 1 - won)


def overlapping(num_users=80, num_responses=7, per_user=6, seed=0):
    rng = np.random.default_rng(seed)
    drawn = [rng.choice(num_responses, 2, replace=False) for _ in range(num_users * per_user)]
    return Comparisons(np.repeat(np.arange(num_users), per_user), *np.array(drawn).T)


def without(comparisons, user):
    return comparisons.take(comparisons.user != user)


def test_comparisons_of_a_user_on_a_pair_are_one_row():
    rows = Comparisons([1, 0, 1, 1], [0, 2, 1, 0], [1, 1, 0, 1], [1.0, 1.0, 1.0, 1.0])
    evidence = Evidence(rows, 2, 3)
    assert evidence.user.tolist() == [0, 1]
    assert list(zip(evidence.first[evidence.pair], evidence.second[evidence.pair], strict=True)) == [(1, 2), (0, 1)]
    assert evidence.wins.tolist() == [0, 2]
    assert evidence.losses.tolist() == [1, 1]


def test_a_step_of_the_effects_by_hand():
    # three users prefer response 0: gradient 3 - 3/2; bound 2 * 3/4 + 1; coupling 1 / (1 + 1): 1.5 / (2.5 - 0.5)
    evidence = Evidence(Comparisons([0, 1, 2], [0, 0, 0], [1, 1, 1]), 3, 2)
    effects = LatentGroups(evidence, PRIOR).update_effects(np.ones((3, 1)), np.zeros((2, 1)), steps=1)
    np.testing.assert_allclose(effects, [[0.75], [-0.75]], rtol=1e-6)


def test_settled_effects_balance_data_and_prior():
    evidence = Evidence(Comparisons([0, 1, 2], [0, 0, 0], [1, 1, 1]), 3, 2)
    effects = LatentGroups(evidence, PRIOR).update_effects(np.ones((3, 1)), np.zeros((2, 1)), steps=200)
    # variance 1 + 1 of each effect: t_0 / 2 = 3 sigma(-2 t_0)
    assert effects[0, 0] / 2 == pytest.approx(3 * expit(-2 * effects[0, 0]), abs=1e-9)


def test_memberships_by_hand():
    rows = Comparisons([0, 0], [0, 2], [1, 3])
    evidence = Evidence(rows, 1, 4)
    effects = np.array([[1.0, 0.0], [0.0, 0.0], [0.5, 0.0], [0.0, 2.0]])
    shares = np.array([0.25, 0.75])
    found, log_evidence = LatentGroups(evidence, PRIOR, leave_one_out=False).update_membership(
        np.full((1, 2), 0.5), effects, shares
    )
    joint = np.array([0.25 * expit(1.0) * expit(0.5), 0.75 * expit(0.0) * expit(-2.0)])
    np.testing.assert_allclose(found[0], joint / joint.sum())
    assert log_evidence == pytest.approx(np.log(joint.sum()))


def test_what_nobody_else_compared_says_nothing_about_its_user():
    evidence = Evidence(Comparisons([0, 1, 1], [0, 2, 4], [1, 3, 5]), 2, 6)
    algorithm = LatentGroups(evidence, PRIOR)
    membership = np.array([[0.7, 0.3], [0.2, 0.8]])
    effects = algorithm.update_effects(membership, np.zeros((6, 2)), steps=500)
    assert np.abs(algorithm.margins(effects)).min() > 0.05
    np.testing.assert_allclose(algorithm.judging_margins(membership, effects), 0.0, atol=1e-6)


@pytest.mark.parametrize(("make", "responses", "tolerance"), [(disjoint, 12, 0.01), (overlapping, 7, 0.06)])
def test_leaving_one_out_is_fitting_without_the_user(make, responses, tolerance):
    rows = make()
    num_users = int(rows.user.max()) + 1
    membership = np.random.default_rng(1).dirichlet(np.ones(2), num_users)
    evidence = Evidence(rows, num_users, responses)
    algorithm = LatentGroups(evidence, PRIOR)
    effects = algorithm.update_effects(membership, np.zeros((responses, 2)), steps=400)
    judged, plain = algorithm.judging_margins(membership, effects), algorithm.margins(effects)[evidence.pair]
    errors, moves = [], []
    for user in range(0, num_users, 7):
        own = evidence.user == user
        others = LatentGroups(Evidence(without(rows, user), num_users, responses), PRIOR)
        refitted = others.update_effects(membership, np.zeros((responses, 2)), steps=400)
        pair = evidence.pair[own]
        expected = refitted[evidence.first[pair]] - refitted[evidence.second[pair]]
        errors.append(np.abs(judged[own] - expected).max())
        moves.append(np.abs(plain[own] - expected).max())
    assert max(errors) < tolerance
    assert np.mean(errors) < 0.25 * np.mean(moves)


@pytest.mark.parametrize("make", [disjoint, overlapping])
def test_no_step_of_the_effects_lowers_their_posterior(make):
    rows = make()
    evidence = Evidence(rows, 80, 12)
    membership = np.random.default_rng(2).dirichlet(np.ones(3), 80)
    algorithm, prior = LatentGroups(evidence, EffectPrior(0.2, 0.7)), EffectPrior(0.2, 0.7)
    wins, losses = evidence.counts(membership)
    effects = np.random.default_rng(3).normal(size=(12, 3)) * 3
    values = []
    for _ in range(25):
        margins = algorithm.margins(effects)
        likelihood = -(wins * np.logaddexp(0, -margins) + losses * np.logaddexp(0, margins)).sum()
        values.append(likelihood + log_prior(effects, prior))
        effects = algorithm.update_effects(membership, effects, steps=1)
    assert (np.diff(values) > -1e-9).all()
    assert values[-1] > values[0] + 1


def test_without_leaving_out_no_round_lowers_the_posterior():
    evidence = Evidence(disjoint(), 60, 12)
    algorithm, prior = LatentGroups(evidence, EffectPrior(0.5, 0.5), leave_one_out=False), EffectPrior(0.5, 0.5)
    groups = random_start(3, evidence, np.random.default_rng(0))
    membership, effects = groups.membership, groups.effects
    values = []
    for _ in range(30):
        effects = algorithm.update_effects(membership, effects, steps=2)
        membership, log_evidence = algorithm.update_membership(membership, effects, groups.shares)
        values.append(60 * log_evidence + log_prior(effects, prior))
    assert (np.diff(values) > -1e-9).all()


def test_blocks_of_users_change_nothing(monkeypatch):
    rows = overlapping()
    membership, shares = np.random.default_rng(4).dirichlet(np.ones(2), 80), np.array([0.5, 0.5])
    effects = np.random.default_rng(5).normal(size=(7, 2))
    whole = LatentGroups(Evidence(rows, 80, 7), PRIOR).update_membership(membership, effects, shares)
    monkeypatch.setattr("copl.graph.encoders.latent_groups.evidence._BLOCK", 20)
    evidence = Evidence(rows, 80, 7)
    assert len(evidence.blocks) > 20
    parts = LatentGroups(evidence, PRIOR).update_membership(membership, effects, shares)
    np.testing.assert_allclose(parts[0], whole[0], rtol=1e-12)
    assert parts[1] == pytest.approx(whole[1])


def test_a_user_without_comparisons_has_the_shares_of_the_groups():
    evidence = Evidence(Comparisons([0, 2], [0, 0], [1, 1]), 4, 2)
    shares = np.array([0.1, 0.9])
    found, _ = LatentGroups(evidence, PRIOR).update_membership(np.full((4, 2), 0.5), np.ones((2, 2)), shares)
    np.testing.assert_allclose(found[[1, 3]], [shares, shares])


def test_directions_are_those_of_the_dense_matrix():
    evidence = Evidence(disjoint(num_users=25, num_pairs=8), 25, 16)
    dense = np.zeros((25, 8))
    dense[evidence.user, evidence.pair] = evidence.wins - evidence.losses
    compared = np.abs(dense)
    scaled = dense / np.sqrt(compared.sum(axis=1, keepdims=True))
    matrix = scaled / compared.sum(axis=0) @ scaled.T
    np.fill_diagonal(matrix, 0)
    values, vectors = np.linalg.eigh(matrix)
    found = user_directions(evidence, 2, np.random.default_rng(0))
    np.testing.assert_allclose((found**2).sum(axis=0), values[:-3:-1], rtol=0.02)
    for column, vector in zip(found.T, vectors[:, :-3:-1].T, strict=True):
        assert abs(column @ vector) > 0.98 * np.linalg.norm(column)


def test_clusters_of_separate_points():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1, 2], 20)
    points = np.array([[0.0, 0.0], [5.0, 0.0], [0.0, 5.0]])[truth] + 0.1 * rng.normal(size=(60, 2))
    found = clusters(points, 3, rng)
    assert len({(a, b) for a, b in zip(truth.tolist(), found.tolist(), strict=True)}) == 3
    assert clusters(np.zeros((4, 2)), 3, rng).shape == (4,)


def test_embeddings_have_the_margins_of_the_groups():
    rng = np.random.default_rng(6)
    groups = Groups(rng.dirichlet(np.ones(3), 5), rng.normal(size=(4, 3)), np.full(3, 1 / 3), ())
    users, responses, bias = as_embeddings(groups)
    asked = Comparisons([0, 3, 4], [0, 1, 2], [3, 0, 1])
    expected = (groups.membership[asked.user] * (groups.effects[asked.chosen] - groups.effects[asked.rejected])).sum(1)
    np.testing.assert_allclose(ComparisonTensors.of(asked).margins(users, responses, bias), expected, atol=1e-5)
    np.testing.assert_allclose(users.mean(dim=0), 0, atol=1e-6)


def planted(num_users, num_groups, per_user, num_pairs, seed=0):
    """Groups that differ at random on all pairs; the last three comparisons of each user are held out."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 2, (num_pairs, num_groups))
    pair = np.concatenate([rng.choice(num_pairs, per_user + 4, replace=False) for _ in range(num_users)])
    user = np.repeat(np.arange(num_users), per_user + 4)
    won = label[pair, user % num_groups]
    rows = Comparisons(user, 2 * pair + won, 2 * pair + 1 - won)
    place = np.tile(np.arange(per_user + 4), num_users)
    ids = tuple(map(str, range(num_users))), tuple(map(str, range(2 * num_pairs)))
    graph = PreferenceGraph(*ids, rows.take(place < per_user), rows.take(place == per_user))
    return graph, rows.take(place > per_user)


def test_finds_three_sparse_groups_and_how_many_they_are():
    graph, heldout = planted(900, 3, 10, 1000)
    found = build().fit(graph, seed=0, progress=SilentProgress())
    margins = ComparisonTensors.of(heldout).margins(found.users, found.responses, found.response_bias)
    assert float((margins > 0).float().mean()) > 0.85
    truth = np.arange(900) % 3
    members = np.array([found.users[truth == group].mean(dim=0).numpy() for group in range(3)])
    assert (members.max(axis=1) > 0.5).all()
    assert len(set(members.argmax(axis=1).tolist())) == 3


def test_a_power_below_one_tempers_memberships():
    evidence = Evidence(disjoint(), 60, 12)
    start = random_start(2, evidence, np.random.default_rng(0))
    sharp, soft = (
        LatentGroups(evidence, EffectPrior(0.1, 0.1), power=p).fit(start, 10).membership.max(axis=1).mean()
        for p in (1, 0.1)
    )
    assert soft < sharp


def test_a_start_has_equal_shares_and_no_effects():
    evidence = Evidence(disjoint(), 60, 12)
    start = start_at(np.full((60, 4), 0.25), evidence)
    assert start.num_groups == 4
    assert not start.effects.any()
    assert logsumexp(np.log(start.shares)) == pytest.approx(0)


def test_two_groups_are_found_where_answers_are_noisy():
    """One label in ten is flipped; a search that begins with more groups splits one of them and stays there."""
    rng = np.random.default_rng(0)
    num_users, num_pairs, per_user = 1200, 500, 9
    label = rng.integers(0, 2, (num_pairs, 2))
    pair = np.concatenate([rng.choice(num_pairs, per_user + 3, replace=False) for _ in range(num_users)])
    user = np.repeat(np.arange(num_users), per_user + 3)
    won = label[pair, user % 2] ^ (rng.random(len(pair)) < 0.1)
    rows, place = Comparisons(user, 2 * pair + won, 2 * pair + 1 - won), np.tile(np.arange(per_user + 3), num_users)
    ids = tuple(map(str, range(num_users))), tuple(map(str, range(2 * num_pairs)))
    graph = PreferenceGraph(*ids, rows.take(place < per_user), rows.take(place >= per_user))
    found = build().find(graph, seed=0, progress=SilentProgress())
    assert found.setting.num_groups == 2
    member = found.groups.membership.argmax(axis=1) == np.arange(num_users) % 2
    assert max(member.mean(), 1 - member.mean()) > 0.9
