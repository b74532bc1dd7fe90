"""Encoder ``stacked``: latent groups, matrix factorisation and message passing, weighted by held-out likelihood."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, final

import attrs
import numpy as np
import torch
from scipy.optimize import minimize

from copl.graph.encoders.gcf import Gcf, GcfOptions
from copl.graph.encoders.latent_groups import FoundGroups, LatentGroupsEncoder, LatentGroupsOptions
from copl.graph.encoders.mf import Mf, MfOptions
from copl.graph.newcomers import side_by_side, with_pass
from copl.graph.training import ComparisonTensors, held_out, node_embeddings, trivial_embeddings
from copl.interfaces import GraphEncoder, Progress
from copl.options import option
from copl.plugins import Component
from copl.records import NodeEmbeddings, PreferenceGraph

if TYPE_CHECKING:
    from copl.records import FloatArray

STAGE = "graph"

_SMALL_LOSS = 0.1
"""Where nearly everything is explained, a share of what is left is not worth another fit."""

Member = Literal["latent-groups", "mf", "gcf"]


@final
@attrs.frozen
class StackedOptions:
    members: tuple[Member, ...] = option(
        ("latent-groups", "mf", "gcf"),
        help="encoders to combine, in the order they are tried in, with their default options; gcf refines mf",
        validator=attrs.validators.min_len(1),
    )
    worthwhile: float = option(
        0.01,
        help="share of the validation loss, or of 0.1 where that is less, by which a member must lower it to be kept,"
        " and for the next to be tried",
        validator=attrs.validators.ge(0),
    )
    max_comparisons: int = option(
        1_000_000,
        help="training comparisons above which the first member stands alone, to save time",
        validator=attrs.validators.ge(1),
    )
    shrinkage: float = option(
        10.0,
        help="how many comparisons' worth of evidence draws the weights to equal ones",
        validator=attrs.validators.ge(0),
    )


@final
class Stacked(GraphEncoder):
    r"""Adds the margins of several encoders with weights that are not negative (stacking, Wolpert, 1992).

    .. math::
        m = \sum_k a_k m_k, \qquad
        a = \arg\min_{a \ge 0} \sum_{\text{held out}} \log(1 + e^{-m}) + \tfrac{s}{2} \sum_k (a_k - 1/M)^2

    The embeddings lie side by side, users scaled by the weights. Groups that share their tastes and tastes that vary by
    degrees are different worlds; the held-out comparisons tell how much of each there is. Members are tried in order;
    when one adds nothing, dearer ones are not tried.
    """

    def __init__(self, options: StackedOptions) -> None:
        self._options = options

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Learn the embeddings.

        Raises:
            TrainingError: the loss of a member is no finite number.
        """
        train, validation = held_out(graph, seed)
        if not len(train):
            return trivial_embeddings(graph, 1)
        inner = attrs.evolve(graph, comparisons=train, validation=validation)
        judge = ComparisonTensors.of(validation if len(validation) else train)
        kept: dict[Member, NodeEmbeddings] = {}
        groups: FoundGroups | None = None
        best, weights = float("inf"), np.ones(0)
        large = len(train) > self._options.max_comparisons
        members = dict.fromkeys(self._options.members)  # each once, in order
        for name in list(members)[:1] if large else members:
            if name == "latent-groups":
                groups = LatentGroupsEncoder(LatentGroupsOptions()).find(inner, seed=seed, progress=progress)
                assert groups is not None  # there are comparisons
                found = groups.embeddings(inner)
            else:
                found = _fit(name, inner, kept.get("mf"), seed, progress)
            loss, accuracy, tried = self._weigh([*kept.values(), found], judge)
            progress.log(
                f"{STAGE}: stacking",
                member=name,
                weight=float(tried[-1]),
                validation_loss=loss,
                validation_accuracy=accuracy,
            )
            if best - loss < self._options.worthwhile * max(best, _SMALL_LOSS):
                break
            kept[name], best, weights = found, loss, tried
        if groups is not None and "latent-groups" in kept and len(validation) > len(graph.validation):
            # Some training comparisons were held out for the choice; they are learnt from now.
            kept["latent-groups"] = groups.with_all_of(graph).embeddings(graph)
        return _side_by_side(graph, list(kept.values()), weights)

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
            value = weight @ np.logaddexp(0.0, -together) + self._options.shrinkage / 2 * (pull @ pull)
            slope = -margins.T @ (weight / (1 + np.exp(np.clip(together, -500, 500)))) + self._options.shrinkage * pull
            return float(value), slope

        found = minimize(
            objective, np.full(len(members), equal), jac=True, bounds=[(0, None)] * len(members), method="L-BFGS-B"
        ).x
        together = margins @ found
        loss = float(weight @ np.logaddexp(0.0, -together) / weight.sum())
        return loss, float((together > 0).mean()), found


def _fit(
    name: Literal["mf", "gcf"], graph: PreferenceGraph, factors: NodeEmbeddings | None, seed: int, progress: Progress
) -> NodeEmbeddings:
    if name == "mf":
        return Mf(MfOptions()).fit(graph, seed=seed, progress=progress)
    return Gcf(GcfOptions(), factors=factors).fit(graph, seed=seed, progress=progress)


def _side_by_side(graph: PreferenceGraph, members: Sequence[NodeEmbeddings], weights: FloatArray) -> NodeEmbeddings:
    scaled = list(zip(members, weights.tolist(), strict=True))
    joined = node_embeddings(
        graph,
        torch.cat([member.users * weight for member, weight in scaled], dim=1),
        torch.cat([member.responses for member, _ in scaled], dim=1),
        torch.stack([member.response_bias * weight for member, weight in scaled]).sum(dim=0),
    )
    return with_pass(joined, side_by_side(members, weights.tolist()))


COMPONENTS = [
    Component(
        name="stacked",
        options=StackedOptions,
        build=Stacked,
        summary="latent groups, matrix factorisation and message passing, weighted by held-out likelihood",
        reference="Wolpert, Stacked generalization, Neural Networks 5, 1992",
    )
]
