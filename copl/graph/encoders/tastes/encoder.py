"""The encoder `tastes`: options, and from what was learnt to embeddings."""

from __future__ import annotations

from typing import final

import attrs
import torch

from copl.graph.encoders.catalogue import TastesOptions
from copl.graph.encoders.tastes.metric import Axes
from copl.graph.encoders.tastes.shared import Strengths, evidence_of, learn_shared
from copl.graph.encoders.tastes.users import tastes
from copl.graph.newcomers import with_pass
from copl.graph.parts import compared_responses
from copl.graph.texts import TextCodes
from copl.graph.training import node_embeddings, trivial_embeddings
from copl.interfaces import GraphEncoder, Progress
from copl.passes import TastePass
from copl.records import NodeEmbeddings, PreferenceGraph

_ROUNDS = 12
_FEW_COMPARISONS = 4000


@final
class Tastes(GraphEncoder):
    """Tastes in texts: see the package."""

    def __init__(self, options: TastesOptions) -> None:
        self._options = options

    @property
    def reads_texts(self) -> bool:
        return True

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Learn the embeddings.

        Raises:
            OptionsError: the graph was built without features.
        """
        compared = compared_responses(graph.comparisons)
        if not len(compared):
            return trivial_embeddings(graph, 1)
        return learn_tastes(graph, TextCodes.of(graph, compared), self._options, progress)


def learn_tastes(
    graph: PreferenceGraph, codes: TextCodes, options: TastesOptions, progress: Progress
) -> NodeEmbeddings:
    """Learn tastes from the training comparisons of a graph and the codes of its texts.

    An embedding of a response is what everybody thinks of it, its place along the directions, and its coordinates; one
    of a user is 1 and the tastes for these.
    """
    train = graph.comparisons.take(
        (graph.comparisons.weight > 0) & (graph.comparisons.chosen != graph.comparisons.rejected)
    )
    if not len(train):
        return trivial_embeddings(graph, 1)
    power = 1 / float(train.weight.mean())
    train = attrs.evolve(train, weight=power * train.weight)
    num_axes = options.num_axes if len(train) >= _FEW_COMPARISONS else -(-options.num_axes // 2)
    axes = Axes.fit(codes.codes, train, num_axes)
    if not axes.onto.shape[1]:  # no text differs from another
        return trivial_embeddings(graph, 1)
    texts = axes.coordinates(codes.codes)
    strengths = Strengths(options.num_directions, options.isotropic, options.direction, options.own)
    with progress.task("learning tastes", _ROUNDS) as task:
        shared = learn_shared(texts, train, strengths, rounds=_ROUNDS, advance=task.advance)
    evidence = evidence_of(texts, shared, train)
    along, anyhow = tastes(evidence, train.user, graph.num_users, strengths.isotropic)
    users = torch.cat([torch.ones(graph.num_users, 1, dtype=torch.float64), along, anyhow], dim=1)
    responses = torch.cat([texts.double() @ shared.text + shared.own, texts.double()], dim=1)
    embeddings = node_embeddings(graph, users, responses, torch.zeros(graph.num_responses))
    spread = torch.full((users.shape[1],), strengths.isotropic**0.5)
    spread[0], spread[1 : 1 + along.shape[1]] = 0.0, 1.0
    taste = TastePass(torch.eye(1, len(spread))[0], spread, power)
    weight = torch.cat([axes.onto @ shared.text, axes.onto, axes.onto.new_zeros(len(axes.onto), 1)], dim=1)
    text_map = codes.onto(weight, -axes.centre @ weight)
    return attrs.evolve(with_pass(embeddings, taste), text_map=text_map)
