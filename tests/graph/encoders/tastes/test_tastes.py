"""The encoder `tastes` on islands: users who share no text with anybody."""

from __future__ import annotations

import attrs
import numpy as np
import pytest
import torch

from copl.errors import OptionsError
from copl.graph.encoders.catalogue import TastesOptions
from copl.graph.encoders.tastes import Tastes
from copl.graph.training import ComparisonTensors
from copl.records import Comparisons, PreferenceGraph
from copl.records.passes import TastePass
from copl.system.progress import SilentProgress


def islands(num_users: int = 60, per_user: int = 10, seed: int = 0) -> tuple[PreferenceGraph, Comparisons]:
    """Each user likes one direction of the texts or its opposite; two comparisons each are held out."""
    rng = np.random.default_rng(seed)
    count = num_users * per_user
    user, first = np.repeat(np.arange(num_users), per_user), np.arange(count)
    features = torch.from_numpy(rng.normal(size=(2 * count, 5))).float()
    sign = np.where(user % 2, 1.0, -1.0)
    won = sign * (features[:count, 0] - features[count:, 0]).numpy() > 0
    rows = Comparisons(user, np.where(won, first, first + count), np.where(won, first + count, first))
    ids = tuple(f"u{n}" for n in range(num_users)), tuple(f"r{n}" for n in range(2 * count))
    late = first % per_user >= per_user - 2
    return PreferenceGraph(*ids, rows.take(~late), Comparisons.empty(), features), rows.take(late)


@pytest.fixture(scope="module")
def fitted():
    graph, heldout = islands()
    return graph, heldout, Tastes(TastesOptions()).fit(graph, seed=0, progress=SilentProgress())


def test_users_who_share_no_text_are_known_by_what_they_read(fitted):
    _, heldout, found = fitted
    margins = ComparisonTensors.of(heldout).margins(found.users, found.responses, found.response_bias)
    assert float((margins > 0).double().mean()) > 0.8


def test_embeddings_are_one_and_tastes_with_a_prior_of_their_own(fitted):
    _, _, found = fitted
    assert (found.users[:, 0] == 1).all()
    assert not found.response_bias.any()
    taste = found.newcomer_pass
    assert isinstance(taste, TastePass)
    assert taste.dim == found.dim
    assert taste.mean.tolist() == [[1.0] + [0.0] * (found.dim - 1)]
    assert taste.log_share.tolist() == [0.0]
    assert taste.scale.tolist() == [0.0, 1.0, 1.0] + [1.0] * (found.dim - 3)


def test_the_map_of_texts_gives_the_rows_of_responses_nobody_compared(fitted):
    graph, heldout, found = fitted
    never = np.unique(np.concatenate([heldout.chosen, heldout.rejected]))
    mapped = found.text_map(graph.response_features)
    torch.testing.assert_close(mapped[never, :-1], found.responses[never], rtol=1e-3, atol=1e-4)
    assert not mapped[:, -1].any()
    # the coordinates are those of the text even where it was compared; what everybody thinks is not
    torch.testing.assert_close(mapped[:, 3:-1], found.responses[:, 3:], rtol=1e-3, atol=1e-4)


def test_without_texts_it_says_so():
    graph, _ = islands(num_users=2)
    with pytest.raises(OptionsError, match="reads texts"):
        Tastes(TastesOptions()).fit(attrs.evolve(graph, response_features=None), seed=0, progress=SilentProgress())


def test_a_graph_in_which_nobody_says_anything_is_no_problem():
    graph, _ = islands(num_users=2)
    for rows in (Comparisons.empty(), Comparisons([0], [1], [1])):
        found = Tastes(TastesOptions()).fit(attrs.evolve(graph, comparisons=rows), seed=0, progress=SilentProgress())
        assert not found.users.any()
        assert len(found.responses) == graph.num_responses


def votes(*, texts_tell: bool, num_users: int = 200, per_user: int = 3) -> PreferenceGraph:
    """Everybody judges the same 30 responses, by their texts or by what these do not tell; a third is held out."""
    rng = np.random.default_rng(0)
    features = rng.normal(size=(30, 5))
    effect = 2 * (features[:, 0] if texts_tell else rng.normal(size=30))
    user = np.repeat(np.arange(num_users), per_user)
    first, second = np.stack([rng.permutation(30)[:2] for _ in user]).T
    won = rng.random(len(user)) < 1 / (1 + np.exp(effect[second] - effect[first]))
    rows = Comparisons(user, np.where(won, first, second), np.where(won, second, first))
    ids = tuple(f"u{n}" for n in range(num_users)), tuple(f"r{n}" for n in range(30))
    held = np.arange(len(user)) % per_user == 0
    return PreferenceGraph(*ids, rows.take(~held), rows.take(held), torch.from_numpy(features).float())


def test_how_much_a_response_says_beyond_its_text_is_chosen_by_what_is_held_out():
    variances = [
        Tastes(TastesOptions()).fit(votes(texts_tell=tell), seed=0, progress=SilentProgress()).memory.facts["own"]
        for tell in (True, False)
    ]
    assert variances == [0.03, 1.0]


def test_along_directions_little_is_beyond_the_text_unless_comparisons_are_many(monkeypatch):
    graph = votes(texts_tell=False)
    few = Tastes(TastesOptions()).fit(graph, seed=0, progress=SilentProgress()).memory
    monkeypatch.setattr("copl.graph.encoders.tastes.encoder._MANY_COMPARISONS", 100)
    many = Tastes(TastesOptions()).fit(graph, seed=0, progress=SilentProgress()).memory
    assert few is not None
    assert many is not None
    assert (few.facts, many.facts) == (
        {"own": 1.0, "along": 0.01, "groups": 1},
        {"own": 0.1, "along": 1.0, "groups": 1},
    )
    along = [
        float(memory.responses["own"][:, 1:].norm() / memory.responses["own"][:, 0].norm()) for memory in (few, many)
    ]
    assert along[0] < 0.1 * along[1]


def test_without_validation_the_middle_variance_is_taken(fitted):
    assert fitted[2].memory.facts == {"own": 0.1, "along": 0.01, "groups": 1}


def test_a_single_variance_is_no_choice_and_gives_what_it_gives_as_the_chosen_one():
    graph = votes(texts_tell=False)
    chosen = Tastes(TastesOptions()).fit(graph, seed=0, progress=SilentProgress())
    given = Tastes(TastesOptions(own=(1.0,))).fit(graph, seed=0, progress=SilentProgress())
    torch.testing.assert_close(given.users, chosen.users)
    torch.testing.assert_close(given.responses, chosen.responses)
