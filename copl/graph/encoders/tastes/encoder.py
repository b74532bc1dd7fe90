"""The encoder `tastes`: options, and from what was learnt to embeddings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import itemgetter
from typing import final

import attrs
import numpy as np
import torch
from torch import Tensor

from copl.graph.encoders.catalogue import TastesOptions
from copl.graph.encoders.tastes.groups import TasteGroups, find_groups, tastes
from copl.graph.encoders.tastes.metric import Axes
from copl.graph.encoders.tastes.shared import Learning, Shared, Strengths, evidence_of, with_own_parts
from copl.graph.going_on import GoesOn
from copl.graph.newcomers import with_pass
from copl.graph.parts import compared_responses
from copl.graph.recall import Recall
from copl.graph.texts import TextCodes, exact_product
from copl.graph.training import ComparisonTensors, Judgement, node_embeddings, trivial_embeddings
from copl.interfaces import Progress
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph
from copl.records.memory import Memory
from copl.records.passes import TastePass

_ROUNDS = 12
_ROUNDS_TO_CHOOSE = 4
"""After so many it shows which variance of own parts foretells best."""
_MANY_COMPARISONS = 20_000
"""Comparisons above which the middle variance is taken, to save time, for all directions alike."""
_FEW_COMPARISONS = 4000
_GROWN = 0.1
_WORTH_OF_GROUPS = 0.01
"""Share of the held-out loss that groups of users have to be worth."""
_WORTH_OF_DIRECTIONS = 0.1
"""Share of the held-out loss that more directions have to be worth: on real votes they gain half of that, and cost
accuracy on new texts."""


@final
class Tastes(GoesOn):
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
        codes = TextCodes.of(graph, compared)
        return _with_codes(learn_tastes(graph, codes, self._options, progress), codes)

    def go_on(self, graph: PreferenceGraph, recall: Recall, *, seed: int, progress: Progress) -> NodeEmbeddings:
        codes = TextCodes.remembered(recall.memory, graph)
        return _with_codes(continue_tastes(graph, codes, self._options, recall), codes)


def _with_codes(embeddings: NodeEmbeddings, codes: TextCodes) -> NodeEmbeddings:
    memory = embeddings.memory
    if memory is None:
        return embeddings
    return attrs.evolve(embeddings, memory=attrs.evolve(memory, shared={**memory.shared, **codes.to_remember()}))


def learn_tastes(
    graph: PreferenceGraph, codes: TextCodes, options: TastesOptions, progress: Progress
) -> NodeEmbeddings:
    """Learn tastes from the training comparisons of a graph and the codes of its texts.

    An embedding of a response is what everybody thinks of it, its place along the directions, and its coordinates; one
    of a user is 1 and the tastes for these.
    """
    train, power = _of_unit_weight(graph.comparisons)
    if not len(train):
        return trivial_embeddings(graph, 1)
    num_axes = options.num_axes if len(train) >= _FEW_COMPARISONS else -(-options.num_axes // 2)
    axes = Axes.fit(codes.codes, train, num_axes)
    if not axes.onto.shape[1]:  # no text differs from another
        return trivial_embeddings(graph, 1)
    texts = axes.coordinates(codes.codes)
    held = ComparisonTensors.of(graph.validation)

    def embeddings(shared: Shared, strengths: Strengths, groups: TasteGroups) -> NodeEmbeddings:
        return _Tastes(codes, axes, texts, shared, strengths, groups).embeddings(graph, train, power)

    def gathering_nowhere(learning: Learning) -> NodeEmbeddings:
        strengths = learning.strengths
        return embeddings(learning.shared, strengths, TasteGroups.one(strengths.num_directions))

    def loss(learning: Learning) -> float:
        return _loss(held, gathering_nowhere(learning))

    learning = _learn(texts, train, options, loss if len(held) else None, progress)
    shared, is_choice = learning.shared, len(options.groups) > 1
    if is_choice and not len(held):
        return gathering_nowhere(learning)
    evidence = evidence_of(texts, shared, train)
    groups, basis = find_groups(evidence, train.user, options.isotropic, options.groups)
    gathered = embeddings(shared.rotated(basis), learning.strengths, groups)
    if is_choice and len(groups) > 1:
        alone = gathering_nowhere(learning)
        return gathered if _loss(held, gathered) < (1 - _WORTH_OF_GROUPS) * _loss(held, alone) else alone
    return gathered


def _learn(
    texts: Tensor,
    train: Comparisons,
    options: TastesOptions,
    loss: Callable[[Learning], float] | None,
    progress: Progress,
) -> Learning:
    """Learn what users have in common; `loss` tells what is held out, if anything, where there is a choice."""
    are_few = len(train) <= _MANY_COMPARISONS
    variances = options.own if loss is not None and are_few else (_middle(options.own),)
    fewest, *more = sorted(set(options.num_directions)) if loss is not None else (min(options.num_directions),)
    strengths = _strengths(options, fewest, _middle(options.own), options.along if are_few else 1.0)
    num_rounds = _ROUNDS + _ROUNDS_TO_CHOOSE * (len(variances) - 1 + len(more))
    with progress.task("learning tastes", num_rounds) as task:

        def after(rounds: int, learning: Learning) -> Learning:
            for _ in range(rounds):
                learning.round()
                task.advance()
            return learning

        def tried(learning: Learning) -> tuple[float, Learning]:
            after(_ROUNDS_TO_CHOOSE, learning)
            return loss(learning) if loss is not None and len(variances) + len(more) > 1 else 0.0, learning

        start = Learning(texts, train, strengths)
        least, best = min((tried(start.with_own(variance)) for variance in variances), key=itemgetter(0))
        for number in more:
            value, candidate = tried(Learning(texts, train, attrs.evolve(best.strengths, num_directions=number)))
            if value < (1 - _WORTH_OF_DIRECTIONS) * least:
                least, best = value, candidate
        return after(_ROUNDS - _ROUNDS_TO_CHOOSE, best)


def _loss(held: ComparisonTensors, embeddings: NodeEmbeddings) -> float:
    return Judgement.of_embeddings(held, embeddings).loss


def continue_tastes(graph: PreferenceGraph, codes: TextCodes, options: TastesOptions, recall: Recall) -> NodeEmbeddings:
    """Return the tastes in a graph that has grown, by what was shared before.

    Directions and what texts say stay as they are, being told by all comparisons there were. Own parts are learnt of
    new responses and of those a tenth of whose comparisons are new. What users make of all this follows in closed form.
    """
    memory = recall.memory
    axes = Axes(memory.shared["centre"], memory.shared["onto"])
    texts = axes.coordinates(codes.codes)
    facts = memory.facts  # those of older runs say nothing of strengths
    own, num_directions = facts.get("own", _middle(options.own)), memory.shared["text"].shape[1] - 1
    strengths = _strengths(options, num_directions, own, facts.get("along", 1.0))
    train, power = _of_unit_weight(graph.comparisons)
    known = torch.from_numpy(recall.known_responses)[:, None]
    own_variance = torch.where(known, memory.responses["own_variance"], strengths.own_variances)
    shared = Shared(memory.shared["text"], memory.responses["own"], own_variance)
    if recall.is_changed:
        shared = with_own_parts(texts, shared, train, strengths, _grown(graph, recall))
    groups = TasteGroups.one(num_directions)
    if "group_share" in memory.shared:  # runs before there were groups have none
        groups = TasteGroups(*(memory.shared[f"group_{name}"] for name in ("share", "mean", "scale")))
    return _Tastes(codes, axes, texts, shared, strengths, groups).embeddings(graph, train, power)


def _grown(graph: PreferenceGraph, recall: Recall) -> Tensor:
    """Return which responses are known much better than before [R]."""
    rows = graph.comparisons
    new, every = (
        np.bincount(np.r_[part.chosen, part.rejected], minlength=graph.num_responses)
        for part in (rows.take(recall.is_new), rows)
    )
    return torch.from_numpy(new > _GROWN * (every - new))


def _of_unit_weight(comparisons: Comparisons) -> tuple[Comparisons, float]:
    """Return the comparisons that say something, of mean weight 1, and what their weights were multiplied by."""
    train = comparisons.take((comparisons.weight > 0) & (comparisons.chosen != comparisons.rejected))
    power = 1 / float(train.weight.mean()) if len(train) else 1.0
    return attrs.evolve(train, weight=power * train.weight), power


def _strengths(options: TastesOptions, num_directions: int, own: float, along: float) -> Strengths:
    return Strengths(num_directions, options.isotropic, options.direction, own, along)


def _middle(variances: Sequence[float]) -> float:
    return sorted(variances)[len(variances) // 2]


@final
@attrs.frozen(eq=False)
class _Tastes:
    """What was learnt, the coordinates of the graph's texts among it."""

    codes: TextCodes
    axes: Axes
    texts: Tensor
    shared: Shared
    strengths: Strengths
    groups: TasteGroups

    def embeddings(self, graph: PreferenceGraph, train: Comparisons, power: float) -> NodeEmbeddings:
        """Return the embeddings; users by the comparisons `train`, the weights of which were multiplied by `power`."""
        texts, shared, axes, groups = self.texts, self.shared, self.axes, self.groups
        isotropic = self.strengths.isotropic
        along, anyhow = tastes(evidence_of(texts, shared, train), train.user, graph.num_users, isotropic, groups)
        users = torch.cat([torch.ones(graph.num_users, 1, dtype=torch.float64), along, anyhow], dim=1)
        coordinates = exact_product(texts, shared.text) + shared.own
        responses = torch.cat([coordinates.float(), texts], dim=1)
        embeddings = node_embeddings(graph, users, responses, torch.zeros(graph.num_responses))
        spread = torch.full((users.shape[1],), isotropic**0.5)
        spread[0], spread[1 : 1 + along.shape[1]] = 0.0, groups.scale
        mean = torch.eye(1, len(spread)).repeat(len(groups), 1)
        mean[:, 1 : 1 + along.shape[1]] = groups.means
        taste = TastePass(mean, spread, power, groups.shares.log().float())
        weight = torch.cat([axes.onto @ shared.text, axes.onto, axes.onto.new_zeros(len(axes.onto), 1)], dim=1)
        text_map = self.codes.onto(weight, -axes.centre @ weight)
        memory = Memory(
            responses={"own": shared.own, "own_variance": shared.own_variance},
            shared={
                "centre": axes.centre,
                "onto": axes.onto,
                "text": shared.text,
                "group_share": groups.shares,
                "group_mean": groups.means,
                "group_scale": groups.scale,
            },
            facts={"own": self.strengths.own, "along": self.strengths.along, "groups": len(groups)},
        )
        return attrs.evolve(with_pass(embeddings, taste), text_map=text_map, memory=memory)
