"""Encoder ``stacked``: tastes in texts, latent groups, matrix factorisation and message passing, weighted."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, final

import attrs
import numpy as np
import torch
from scipy.optimize import minimize
from scipy.special import expit

from copl.bradley_terry import correct, log_loss, mean_log_loss
from copl.errors import OptionsError
from copl.graph.encoders import gcf
from copl.graph.encoders.catalogue import (
    GcfOptions,
    LatentGroupsOptions,
    Member,
    MfOptions,
    StackedOptions,
    TastesOptions,
)
from copl.graph.encoders.latent_groups import FoundGroups, LatentGroupsEncoder
from copl.graph.encoders.mf import Mf
from copl.graph.encoders.tastes import continue_tastes, learn_tastes
from copl.graph.going_on import GoesOn
from copl.graph.newcomers import side_by_side, with_pass
from copl.graph.parts import compared_responses, restricted, spread_out
from copl.graph.recall import Recall
from copl.graph.texts import TextCodes, side_by_side_maps, with_texts
from copl.graph.training import ComparisonTensors, Judgement, held_out, node_embeddings, trivial_embeddings
from copl.interfaces import Progress
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph
from copl.records.memory import Memory

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray, IntArray

STAGE = "graph"

_SMALL_LOSS = 0.1
"""Where nearly everything is explained, a share of what is left is not worth another fit."""


@final
class Stacked(GoesOn):
    r"""Adds the margins of several encoders with weights that are not negative (stacking, Wolpert, 1992).

    .. math::
        m = \sum_k a_k m_k, \qquad
        a = \arg\min_{a \ge 0} \sum_{\text{held out}} \log(1 + e^{-m}) + \tfrac{s}{2} \sum_k (a_k - 1/M)^2

    The embeddings lie side by side, users scaled by the weights. Groups that share their tastes, tastes that vary by
    degrees and tastes in what a text says are different worlds; the held-out comparisons tell how much of each there
    is. Members are tried in order; when one adds nothing, dearer ones are not tried. Where there are texts, tastes are
    learnt besides, what a member learns of responses is carried over to those that were compared seldom or never
    (`copl.graph.texts`), and a member that adds nothing to the others is left out.
    """

    def __init__(self, options: StackedOptions) -> None:
        self._options = options

    @property
    def reads_texts(self) -> bool:
        return "tastes" in self._options.members

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Learn the embeddings.

        Raises:
            OptionsError: no member is left, since there are no texts.
            TrainingError: the loss of a member is no finite number.
        """
        has_texts = graph.response_features is not None
        names = [name for name in dict.fromkeys(self._options.members) if name != "tastes" or has_texts]
        if not names:
            raise OptionsError("encoder.stacked.members: tastes reads texts, and this method has none; name others too")
        graph = self._as_read(graph)
        train, validation = held_out(graph, seed)
        if not len(train):
            return trivial_embeddings(graph, 1)
        inner = attrs.evolve(graph, comparisons=train, validation=validation)
        judge = ComparisonTensors.of(validation if len(validation) else train)
        members = _Members(inner, compared_responses(graph.comparisons), judge, seed, progress)
        kept: dict[Member, NodeEmbeddings] = {}
        best, weights = float("inf"), np.ones(0)
        for name in self._tried(names, len(train), len(validation)):
            embeddings = members.fit(name)
            loss, accuracy, tried = self._weigh([*kept.values(), embeddings], judge)
            progress.log(
                f"{STAGE}: stacking",
                member=name,
                weight=float(tried[-1]),
                validation_loss=loss,
                validation_accuracy=accuracy,
            )
            if best - loss < self._options.worthwhile * max(best, _SMALL_LOSS):
                break
            kept[name], best, weights = embeddings, loss, tried
        if "tastes" in names:
            kept, weights = self._with_tastes(kept, members.fit("tastes"), judge)
        if len(validation) > len(graph.validation):
            # Some training comparisons were held out for the choice; they are learnt from now.
            kept.update(members.with_all_of(graph, kept))
        return _side_by_side(graph, kept, weights, members.texts_to_remember())

    def go_on(self, graph: PreferenceGraph, recall: Recall, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Go on with the members that were kept, by the weights that were found."""
        graph = self._as_read(graph)
        names: list[Member] = recall.memory.facts["members"]
        _, validation = held_out(graph, seed)
        if len(validation) > len(graph.validation):  # what is held out for the choice has been learnt from by now
            validation = Comparisons.empty()
        inner = attrs.evolve(graph, validation=validation)
        judge = ComparisonTensors.of(validation) if len(validation) else None
        members = _Members(inner, compared_responses(graph.comparisons), judge, seed, progress, recall)
        kept = {name: members.go_on(name) for name in names}
        weights = np.array(recall.memory.facts["weights"])
        return _side_by_side(graph, kept, weights, members.texts_to_remember())

    def _with_tastes(
        self, kept: dict[Member, NodeEmbeddings], tastes: NodeEmbeddings, judge: ComparisonTensors
    ) -> tuple[dict[Member, NodeEmbeddings], FloatArray]:
        """Return the members worth keeping beside tastes in texts, which need no dearer ones to be tried after them."""
        members: dict[Member, NodeEmbeddings] = {"tastes": tastes, **kept}
        loss, _, weights = self._weigh(list(members.values()), judge)
        for name in kept:
            fewer = {other: member for other, member in members.items() if other != name}
            without, _, own = self._weigh(list(fewer.values()), judge)
            if without - loss < self._options.worthwhile * max(loss, _SMALL_LOSS):
                members, loss, weights = fewer, without, own
        return members, weights

    def _as_read(self, graph: PreferenceGraph) -> PreferenceGraph:
        """Return the graph, without its texts where no member reads any: then nothing may depend on them."""
        return graph if self.reads_texts else attrs.evolve(graph, response_features=None)

    def _tried(self, names: Sequence[Member], num_train: int, num_held_out: int) -> Sequence[Member]:
        """Return the members beside tastes that are tried: those that can be told apart, and that time allows."""
        graph_members = [name for name in names if name != "tastes"]
        if num_held_out < self._options.least_held_out:
            return [] if "tastes" in names else graph_members[:1]
        return graph_members[:1] if num_train > self._options.max_comparisons else graph_members

    def _weigh(self, members: Sequence[NodeEmbeddings], judge: ComparisonTensors) -> tuple[float, float, FloatArray]:
        """Return the held-out loss and accuracy of the members together, and their weights."""
        margins = np.stack(
            [judge.margins(m.users, m.responses, m.response_bias).double().numpy() for m in members], axis=1
        )
        weight = judge.weight.double().numpy()
        equal = 1 / len(members)

        def objective(a: FloatArray) -> tuple[float, FloatArray]:
            together = margins @ a
            pull = a - equal
            value = weight @ log_loss(together) + self._options.shrinkage / 2 * (pull @ pull)
            slope = -margins.T @ (weight * expit(-together)) + self._options.shrinkage * pull
            return float(value), slope

        weights = minimize(
            objective, np.full(len(members), equal), jac=True, bounds=[(0, None)] * len(members), method="L-BFGS-B"
        ).x
        together = margins @ weights
        loss = mean_log_loss(together, weight)
        return loss, float(correct(together).mean()), weights


@final
class _Members:
    """Fits the members: those that know nothing of texts on what was compared, then carried over to all responses."""

    def __init__(
        self,
        graph: PreferenceGraph,
        compared: IntArray,
        judge: ComparisonTensors | None,
        seed: int,
        progress: Progress,
        recall: Recall | None = None,
    ) -> None:
        self._graph, self._kept, self._judge, self._seed, self._progress = graph, compared, judge, seed, progress
        self._recall = recall
        self._compared = graph if graph.response_features is None else restricted(graph, compared)
        self._factors: NodeEmbeddings | None = None
        self._groups: FoundGroups | None = None
        self._chosen: TastesOptions | None = None

    def fit(self, name: Member) -> NodeEmbeddings:
        """Return the embeddings of all users and responses by one member."""
        seed, progress = self._seed, self._progress
        if name == "tastes":
            learnt = learn_tastes(self._graph, self._codes, TastesOptions(), progress)
            if learnt.memory is not None:
                facts, num_directions = learnt.memory.facts, learnt.memory.shared["text"].shape[1] - 1
                self._chosen = TastesOptions(
                    num_directions=(num_directions,), own=(facts["own"],), groups=(facts["groups"],)
                )
            return learnt
        if name == "latent-groups":
            self._groups = LatentGroupsEncoder(LatentGroupsOptions()).find(self._compared, seed=seed, progress=progress)
            assert self._groups is not None  # there are comparisons
            return self._everywhere(self._groups.embeddings(self._compared))
        if name == "mf":
            self._factors = Mf(MfOptions()).fit(self._compared, seed=seed, progress=progress)
            return self._everywhere(self._factors)
        network = gcf.build(GcfOptions(), self._factors)
        return self._everywhere(network.fit(self._compared, seed=seed, progress=progress))

    def go_on(self, name: Member) -> NodeEmbeddings:
        """Return the embeddings by a member that has learnt before."""
        assert self._recall is not None
        seed, progress = self._seed, self._progress
        if name == "tastes":
            return continue_tastes(self._graph, self._codes, TastesOptions(), self._recall.part(name))
        recall = self._recall if self._graph.response_features is None else self._recall.of_responses(self._kept)
        own = recall.part(name)
        if name == "latent-groups":
            groups = LatentGroupsEncoder(LatentGroupsOptions())
            return self._everywhere(groups.go_on(self._compared, own, seed=seed, progress=progress))
        if name == "mf":
            self._factors = Mf(MfOptions()).go_on(self._compared, own, seed=seed, progress=progress)
            return self._everywhere(self._factors)
        network = gcf.build(GcfOptions(), self._factors)
        return self._everywhere(network.go_on(self._compared, own, seed=seed, progress=progress))

    def with_all_of(self, graph: PreferenceGraph, kept: Collection[Member]) -> dict[Member, NodeEmbeddings]:
        """Return what latent groups and tastes learn from all training comparisons of `graph`, by what was chosen."""
        anew: dict[Member, NodeEmbeddings] = {}
        if "latent-groups" in kept:
            assert self._groups is not None
            compared = graph if graph.response_features is None else restricted(graph, self._kept)
            anew["latent-groups"] = self._everywhere(self._groups.with_all_of(compared).embeddings(compared))
        if "tastes" in kept and self._chosen is not None:
            everything = attrs.evolve(graph, validation=Comparisons.empty())
            anew["tastes"] = learn_tastes(everything, self._codes, self._chosen, self._progress)
        return anew

    def _everywhere(self, embeddings: NodeEmbeddings) -> NodeEmbeddings:
        if self._graph.response_features is None:
            return embeddings
        judge = self._judge

        def loss(candidate: NodeEmbeddings) -> float:
            assert judge is not None
            return Judgement.of_embeddings(judge, candidate).loss

        everywhere = spread_out(embeddings, self._graph, self._kept)
        return with_texts(everywhere, self._codes, loss if judge is not None else None)

    def texts_to_remember(self) -> Mapping[str, Tensor]:
        """Return how texts are coded, as tensors for a `Memory`; nothing where there are none."""
        return {} if self._graph.response_features is None else self._codes.to_remember()

    @cached_property
    def _codes(self) -> TextCodes:
        if self._recall is not None:
            return TextCodes.remembered(self._recall.memory, self._graph)
        return TextCodes.of(self._graph, self._kept)


def _side_by_side(
    graph: PreferenceGraph,
    kept: Mapping[Member, NodeEmbeddings],
    weights: FloatArray,
    texts: Mapping[str, Tensor],
) -> NodeEmbeddings:
    members, factors = list(kept.values()), weights.tolist()
    scaled = list(zip(members, factors, strict=True))
    joined = node_embeddings(
        graph,
        torch.cat([member.users * weight for member, weight in scaled], dim=1),
        torch.cat([member.responses for member, _ in scaled], dim=1),
        torch.stack([member.response_bias * weight for member, weight in scaled]).sum(dim=0),
    )
    passed = with_pass(joined, side_by_side(members, factors))
    memories: dict[str, Memory] = {name: member.memory for name, member in kept.items() if member.memory is not None}
    memory = Memory.joined(memories, {"members": list(kept), "weights": factors})
    memory = attrs.evolve(memory, shared={**memory.shared, **texts})
    return attrs.evolve(
        passed,
        text_map=side_by_side_maps(members, factors),
        memory=memory if len(memories) == len(kept) else None,
    )
