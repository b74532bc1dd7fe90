"""Checks of graph encoders."""

from __future__ import annotations

from functools import cached_property
from typing import Any, final

import attrs
import numpy as np
import torch

from copl.adapt.strategies.catalogue import EmpiricalOptions
from copl.adapt.strategies.empirical import Empirical
from copl.adapt.strategies.encode import Encode
from copl.bradley_terry import mean_log_loss
from copl.interfaces import AdaptationStrategy, GraphEncoder
from copl.options import NoOptions
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph
from copl.records.passes import tensors_of
from copl.system.progress import SilentProgress
from copl.testing.check import (
    Check,
    CheckResult,
    CheckSkipped,
    Once,
    fingerprint_of,
    global_randomness_untouched,
    require,
    run_checks,
)
from copl.testing.common import Described
from copl.testing.planted import (
    Crowd,
    GraphCase,
    accuracy,
    bare_graph,
    margins,
    planted_crowd,
    planted_graph,
    random_features,
)

_SEED = 3
_ENOUGH = 0.65
"""What an encoder has to be right about: chance and 15 points, of the 50 that there are to be had."""


@final
@attrs.frozen(eq=False)
class _Subject:
    described: Described
    case: GraphCase
    crowd: Crowd

    def build(self) -> Any:
        return self.described.component.build(self.described.options())

    def fit(self, graph: PreferenceGraph) -> NodeEmbeddings:
        embeddings: NodeEmbeddings = self.build().fit(graph, seed=_SEED, progress=SilentProgress())
        return embeddings

    def bare(self, num_users: int, num_responses: int, comparisons: Comparisons) -> PreferenceGraph:
        """Return a graph without validation comparisons; it has features where the encoder reads texts."""
        graph = bare_graph(num_users, num_responses, comparisons)
        if not getattr(self.build(), "reads_texts", False):  # whatever a foreign component is, another check says so
            return graph
        return attrs.evolve(graph, response_features=random_features(num_responses))

    @cached_property
    def _once(self) -> Once[NodeEmbeddings]:
        return Once(lambda: self.fit(self.case.graph))

    @property
    def fitted(self) -> NodeEmbeddings:
        return self._once.get()

    @cached_property
    def _once_of_crowd(self) -> Once[NodeEmbeddings]:
        return Once(lambda: self.fit(self.crowd.graph))

    @property
    def of_crowd(self) -> NodeEmbeddings:
        return self._once_of_crowd.get()


def _require_valid(embeddings: NodeEmbeddings, graph: PreferenceGraph) -> None:
    require(isinstance(embeddings, NodeEmbeddings), f"fit returned {type(embeddings).__name__}, not NodeEmbeddings")
    require(embeddings.user_ids == graph.user_ids, "user_ids are not those of the graph, in its order")
    require(embeddings.response_keys == graph.response_keys, "response_keys are not those of the graph, in its order")
    users, responses = tuple(embeddings.users.shape), tuple(embeddings.responses.shape)
    require(len(users) == 2 and users[0] == graph.num_users, f"users must be [{graph.num_users}, D], got {users}")
    expected = (graph.num_responses, users[1])
    require(responses == expected, f"responses must be {list(expected)}, got {list(responses)}")
    bias = tuple(embeddings.response_bias.shape)
    require(bias == (graph.num_responses,), f"response_bias must be [{graph.num_responses}], got {list(bias)}")
    named = {"users": embeddings.users, "responses": embeddings.responses, "response_bias": embeddings.response_bias}
    for field, left in (("newcomer_pass", embeddings.newcomer_pass), ("text_map", embeddings.text_map)):
        named |= {f"{field}.{name}": tensor for name, tensor in (() if left is None else tensors_of(left))}
    for name, tensor in named.items():
        require(not tensor.requires_grad, f"{name} still requires gradients; detach it")
        require(bool(torch.isfinite(tensor.double()).all()), f"{name} holds values that are not finite")
    require(
        len(embeddings.comparisons) == len(graph.comparisons),
        "comparisons must be the training comparisons of the graph; adaptation needs them",
    )


def is_an_encoder(subject: _Subject) -> None:
    """build gives a GraphEncoder"""
    encoder = subject.build()
    require(isinstance(encoder, GraphEncoder), f"build gave {type(encoder).__name__}, which does not derive from it")


def says_whether_it_reads_texts(subject: _Subject) -> None:
    """reads_texts says whether fit makes use of text embeddings of the responses"""
    reads = subject.build().reads_texts
    require(isinstance(reads, bool), f"reads_texts must be True or False, got {reads!r}")
    if not reads:
        _require_valid(subject.fit(attrs.evolve(subject.case.graph, response_features=None)), subject.case.graph)


def embeds_every_node(subject: _Subject) -> None:
    """fit gives finite embeddings of all users and responses, in the graph's order"""
    _require_valid(subject.fitted, subject.case.graph)


def maps_texts_to_embeddings(subject: _Subject) -> None:
    """text_map, where one is left, embeds texts, and those that nobody compared as the table has them"""
    if subject.fitted.text_map is None:
        return
    require(subject.build().reads_texts, "an encoder that leaves a text_map has read texts; reads_texts must be True")
    case = subject.case.graph
    rows = case.comparisons
    never = case.num_responses - 1
    graph = attrs.evolve(
        case,
        comparisons=rows.take((rows.chosen != never) & (rows.rejected != never)),
        validation=Comparisons.empty(),
    )
    embeddings = subject.fit(graph)
    require(embeddings.text_map is not None, "text_map was left for one graph and not for another with features")
    assert embeddings.text_map is not None
    assert graph.response_features is not None
    mapped = embeddings.text_map(graph.response_features)
    expected = [graph.num_responses, embeddings.dim + 1]
    require(list(mapped.shape) == expected, f"text_map must give {expected}, got {list(mapped.shape)}")
    table = torch.cat([embeddings.responses[never], embeddings.response_bias[never, None]])
    apart = float((mapped[never] - table).abs().max())
    require(
        apart <= 1e-3 * (1 + float(table.abs().max())),
        f"a response that nobody compared is {apart:.3g} away from what text_map makes of its text",
    )


def repeats_itself(subject: _Subject) -> None:
    """the same seed gives the same embeddings, from a new encoder and from one already used"""
    encoder = subject.build()
    for drawn_before in (17, 18):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(drawn_before)  # what the caller drew before must not matter
            again = encoder.fit(subject.case.graph, seed=_SEED, progress=SilentProgress())
        same = torch.equal(again.users, subject.fitted.users) and torch.equal(again.responses, subject.fitted.responses)
        require(same, "two fits with the same seed differ; draw only from generators made from the seed")


def leaves_the_world_alone(subject: _Subject) -> None:
    """fit changes neither the graph nor the global random state"""
    graph = planted_graph(seed=1).graph
    before = fingerprint_of(graph)
    with global_randomness_untouched():
        subject.fit(graph)
    require(fingerprint_of(graph) == before, "fit changed the arrays of the graph; copy what is to be changed")


def goes_on(subject: _Subject) -> None:
    """continues says whether fit_from goes on; from the same graph it gives the same, and new nodes are embedded"""
    encoder = subject.build()
    require(isinstance(encoder.continues, bool), f"continues must be True or False, got {encoder.continues!r}")
    if not encoder.continues:
        return
    graph = subject.case.graph
    again = encoder.fit_from(graph, subject.fitted, seed=_SEED, progress=SilentProgress())
    _require_valid(again, graph)
    apart = float((again.users @ again.responses.T - subject.fitted.users @ subject.fitted.responses.T).abs().max())
    require(apart <= 1e-3, f"fit_from the same graph moves scores by {apart:.3g}")
    rows, late = graph.comparisons, graph.num_users - 1
    early = attrs.evolve(
        graph,
        user_ids=graph.user_ids[:late],
        comparisons=rows.take(rows.user < late),
        validation=graph.validation.take(graph.validation.user < late),
    )
    grown = subject.build().fit_from(graph, subject.fit(early), seed=_SEED, progress=SilentProgress())
    _require_valid(grown, graph)


def isolated_nodes(subject: _Subject) -> None:
    """a user without comparisons and a response nobody saw are embedded too"""
    graph = subject.bare(3, 4, Comparisons([0, 0, 1], [0, 1, 1], [1, 2, 0]))
    _require_valid(subject.fit(graph), graph)


def repeated_and_contradictory(subject: _Subject) -> None:
    """repeated and contradictory comparisons are no problem"""
    graph = subject.bare(2, 3, Comparisons([0, 0, 0, 1, 1], [0, 0, 1, 1, 2], [1, 1, 0, 2, 1]))
    _require_valid(subject.fit(graph), graph)


def one_user(subject: _Subject) -> None:
    """a graph of one user and two responses is no problem"""
    graph = subject.bare(1, 2, Comparisons([0], [0], [1]))
    _require_valid(subject.fit(graph), graph)


def knows_seen_users(subject: _Subject) -> None:
    """knows seen users: right about 65 % of held-out comparisons of two camps, where chance is 50 % and all can be"""
    _require_of_users(subject)
    share = accuracy(subject.of_crowd, subject.of_crowd.users, subject.crowd.heldout)
    require(
        share >= _ENOUGH,
        f"right about {share:.0%} of held-out comparisons of seen users; whoever knows their camps is right about all, "
        "whoever knows nobody about half; do the default options train long enough?",
    )


def places_newcomers(subject: _Subject) -> None:
    """places newcomers: right about 65 % of what they are asked after six comparisons, or says that it does not"""
    _require_of_users(subject)
    embeddings = subject.of_crowd
    if not embeddings.places_newcomers:
        raise CheckSkipped("it says that it does not place newcomers (NodeEmbeddings.places_newcomers)")
    strategies: dict[str, AdaptationStrategy] = {"empirical": Empirical(EmpiricalOptions())}
    if embeddings.newcomer_pass is not None:
        strategies["encode"] = Encode(NoOptions())
    for name, strategy in strategies.items():
        adapted = strategy.adapt(subject.crowd.support, embeddings)
        share = accuracy(embeddings, adapted.embeddings, subject.crowd.asked.comparisons)
        seen = accuracy(embeddings, embeddings.users, subject.crowd.heldout)
        require(
            share >= _ENOUGH,
            f"newcomers placed by strategy {name!r} are right about {share:.0%}, where seen users are about {seen:.0%} "
            f"and chance is 50 %; {_advice(subject)}",
        )


def _require_of_users(subject: _Subject) -> None:
    """Leave out encoders that know no users, or leave it to the reward model to know them."""
    if not subject.described.component.personal:
        raise CheckSkipped("it says that it knows no users (Component.personal)")
    if subject.of_crowd.trainable_users:
        raise CheckSkipped("its users are but a start, for the reward model to train (NodeEmbeddings.trainable_users)")


def _advice(subject: _Subject) -> str:
    """Say by how much margins are off, where that is why newcomers cannot be told from one another."""
    own = margins(subject.of_crowd, subject.of_crowd.users, subject.crowd.heldout)
    factors = 2.0 ** np.arange(-20, 21)
    losses = [mean_log_loss(factor * own, np.ones(len(own))) for factor in factors]
    factor = float(factors[int(np.argmin(losses))])
    if 1 / 16 <= factor <= 16:
        return "if newcomers are not its business, it says so by NodeEmbeddings(..., places_newcomers=False)"
    return f"margins are read as log-odds, and these fit best when multiplied by about {factor:.3g}"


_CHECKS: list[Check[_Subject]] = [
    is_an_encoder,
    says_whether_it_reads_texts,
    embeds_every_node,
    maps_texts_to_embeddings,
    repeats_itself,
    leaves_the_world_alone,
    goes_on,
    isolated_nodes,
    repeated_and_contradictory,
    one_user,
    knows_seen_users,
    places_newcomers,
]


def check_encoder(described: Described) -> list[CheckResult]:
    """Check a graph encoder on planted graphs."""
    return run_checks(_CHECKS, _Subject(described, planted_graph(), planted_crowd()))
