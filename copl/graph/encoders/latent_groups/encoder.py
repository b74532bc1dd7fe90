"""The encoder: searches for the number of groups and the priors by held-out loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, final

import attrs
import numpy as np
import torch

from copl.graph.encoders.catalogue import LatentGroupsOptions
from copl.graph.encoders.latent_groups.em import EVEN_ROUNDS, EffectPrior, Groups, LatentGroups, random_start, start_at
from copl.graph.encoders.latent_groups.evidence import Evidence
from copl.graph.encoders.latent_groups.starts import user_directions
from copl.graph.going_on import GoesOn
from copl.graph.newcomers import plain, with_pass
from copl.graph.recall import Recall
from copl.graph.starts import clusters
from copl.graph.training import ComparisonTensors, Judgement, learnable, node_embeddings, trivial_embeddings
from copl.interfaces import Progress, Task
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph
from copl.records.memory import Memory
from copl.records.passes import GroupPass

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import FloatArray

STAGE = "graph"

_CLUSTER_WEIGHT = 0.5
_FINER = (0.5, 2.0)
_FEW = 2
_AFFORDABLE = 1_000_000
_FEWEST_ROUNDS = 8
_ROUNDS_AT_LEAST = 2


@final
@attrs.frozen
class Candidate:
    """One point of the search.

    Attributes:
        num_groups: number of groups.
        precision: prior precision of what sets them apart.
        shared: prior precision of what they share.
        power: exponent of the evidence.
    """

    num_groups: int
    precision: float
    shared: float
    power: float

    def algorithm(
        self, evidence: Evidence, options: LatentGroupsOptions, *, even_rounds: int = EVEN_ROUNDS
    ) -> LatentGroups:
        """Return the algorithm at this point."""
        prior = EffectPrior(self.precision, self.shared)
        leave_one_out = options.leave_one_out
        return LatentGroups(evidence, prior, power=self.power, leave_one_out=leave_one_out, even_rounds=even_rounds)


@final
class LatentGroupsEncoder(GoesOn):
    r"""Users are mixtures of latent groups, posterior weights :math:`\pi_{ug}` of which give the margin.

    .. math::
        m = \sum_g \pi_{ug} (t_{gc} - t_{gr})

    See `copl.graph.encoders.latent_groups.em` for the model. The embedding of a user is the posterior weights less the
    shares of the groups, that of a response its effects in each group less their mean, which is the response bias.

    The settings are chosen by validation loss, one option after the other: the precisions and the power of the evidence
    with two groups, then fewer or more groups, then a finer precision. Groups that the data have no
    use for empty themselves. Where the graph has no validation comparisons, those held out for the choice are learnt
    from in the end.
    """

    def __init__(self, options: LatentGroupsOptions) -> None:
        self._options = options

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Learn the embeddings."""
        groups = self.find(graph, seed=seed, progress=progress)
        if groups is None:
            return trivial_embeddings(graph, min(self._options.num_groups))
        return (groups if len(graph.validation) else groups.with_all_of(graph)).embeddings(graph)

    def go_on(self, graph: PreferenceGraph, recall: Recall, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Go on from groups that were found, in the setting that was chosen.

        A new user begins in all groups by their shares, a new response without effects.
        """
        groups = FoundGroups.remembered(recall, self._options)
        return (groups.grown(graph) if recall.is_changed else groups).embeddings(graph)

    def find(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> FoundGroups | None:
        """Choose the settings and find the groups; None where there is nothing to learn from."""
        train, validation = learnable(graph, seed)
        if not len(train):
            return None
        held = ComparisonTensors.of(validation if len(validation) else train)
        return _Search(graph, train, held, self._options, seed, progress).run()


@final
@attrs.frozen(eq=False)
class FoundGroups:
    """Groups with the setting they were found by.

    Attributes:
        groups: the groups.
        setting: the setting that the held-out comparisons chose.
        scale: the scale of the margins that they chose.
        unit: what a comparison weighs that counts as one.
        per_user: how many comparisons a user has, on average.
        options: the options of the search.
    """

    groups: Groups
    setting: Candidate
    scale: float
    unit: float
    per_user: float
    options: LatentGroupsOptions

    def with_all_of(self, graph: PreferenceGraph) -> FoundGroups:
        """Return the groups after further rounds on all comparisons of a graph, those held out included."""
        everything = attrs.evolve(graph, validation=graph.comparisons)
        train, _ = learnable(everything, seed=0)
        evidence = Evidence(train, graph.num_users, graph.num_responses)
        algorithm = self.setting.algorithm(evidence, self.options)
        groups = algorithm.fit(self.groups, max(self.options.final_rounds, 1))
        return attrs.evolve(self, groups=groups, unit=evidence.unit, per_user=evidence.per_user)

    @classmethod
    def remembered(cls, recall: Recall, options: LatentGroupsOptions) -> FoundGroups:
        """Return the groups that were kept, in the rows of a graph that has grown."""
        memory = recall.memory
        shares = memory.shared["shares"].double().numpy()
        membership = memory.users["membership"].double().numpy()
        membership[~recall.known_users] = shares
        groups = Groups(membership, memory.responses["effects"].double().numpy(), shares, ())
        facts = memory.facts
        setting = Candidate(**facts["setting"])
        return cls(groups, setting, facts["scale"], facts["unit"], facts["per_user"], options)

    def grown(self, graph: PreferenceGraph) -> FoundGroups:
        """Return the groups after two rounds on all comparisons of a graph, or settled.

        The validation comparisons decide, as when the groups were found; where there are none, they settle.
        """
        train, validation = learnable(attrs.evolve(graph, validation=graph.validation or graph.comparisons), seed=0)
        evidence = Evidence(train, graph.num_users, graph.num_responses)
        algorithm = self.setting.algorithm(evidence, self.options, even_rounds=0)
        groups = algorithm.fit(self.groups, _ROUNDS_AT_LEAST)
        settled = algorithm.fit(groups, self.options.final_rounds)
        held = ComparisonTensors.of(validation)
        near, far = (held.loss(self.scale * held.margins(*as_embeddings(each))) for each in (groups, settled))
        if far <= near or not len(graph.validation):
            groups = settled
        return attrs.evolve(self, groups=groups, unit=evidence.unit, per_user=evidence.per_user)

    def embeddings(self, graph: PreferenceGraph) -> NodeEmbeddings:
        """Return the embeddings of the nodes of the graph, with the pass that places a newcomer in the groups."""
        users, responses, bias = as_embeddings(self.groups)
        embedded = node_embeddings(graph, users * self.scale, responses, bias * self.scale)
        corners = np.eye(self.groups.num_groups) - _mean_membership(self.groups)
        posterior = GroupPass(
            points=plain(torch.from_numpy(corners * self.scale)),
            log_share=plain(torch.from_numpy(np.log(self.groups.shares))),
            sharpness=1 / self.scale,  # memberships are judged by the margins before they are scaled
            power=1 / self.unit,
            # the exponent was chosen for as many comparisons as seen users have; a newcomer's few depend less
            correlation=(1 / self.setting.power - 1) / max(self.per_user - 1, 1),
        )
        groups, facts = self.groups, attrs.asdict(self.setting)
        memory = Memory(
            {"membership": torch.from_numpy(groups.membership)},
            {"effects": torch.from_numpy(groups.effects)},
            {"shares": torch.from_numpy(groups.shares)},
            {"setting": facts, "scale": self.scale, "unit": self.unit, "per_user": self.per_user},
        )
        return attrs.evolve(with_pass(embedded, posterior), memory=memory)


def as_embeddings(groups: Groups) -> tuple[Tensor, Tensor, Tensor]:
    """Return users [U, K], responses [R, K] and response bias [R] with the margins of the groups."""
    mean = _mean_membership(groups)
    bias = groups.effects @ mean
    tables = groups.membership - mean, groups.effects - bias[:, None], bias
    users, responses, shared = (torch.from_numpy(np.ascontiguousarray(table)).float() for table in tables)
    return users, responses, shared


def _mean_membership(groups: Groups) -> FloatArray:
    mean: FloatArray = groups.membership.mean(axis=0) if len(groups.membership) else groups.shares
    return mean


@final
class _Search:
    """Chooses the setting by the loss on comparisons that were held out."""

    def __init__(
        self,
        graph: PreferenceGraph,
        train: Comparisons,
        held: ComparisonTensors,
        options: LatentGroupsOptions,
        seed: int,
        progress: Progress,
    ) -> None:
        self._evidence = Evidence(train, graph.num_users, graph.num_responses)
        self._held = held
        self._options = options
        self._seed = seed
        self._progress = progress
        rounds = round(options.num_rounds * _AFFORDABLE / max(self._evidence.num_rows, 1))
        self._num_rounds = min(max(rounds, _FEWEST_ROUNDS), options.num_rounds)
        self._starts: dict[int, Groups] = {}
        self._losses: dict[Candidate, float] = {}
        self._chosen: tuple[Groups, Judgement] | None = None

    def run(self) -> FoundGroups:
        """Return the groups of the best setting, run on until they settle."""
        options = self._options
        numbers = sorted(set(options.num_groups))
        # Few groups first: too many of them split by noise what is one group, and then no smaller number looks better.
        first_place = min(range(len(numbers)), key=lambda i: abs(numbers[i] - _FEW))
        total = len(options.group_precision) + 2 * len(options.shared_precision) + len(options.power)
        total += len(numbers) + len(_FINER)
        with self._progress.task("graph encoder latent-groups", total=total) as task:
            precisions = sorted(set(options.group_precision), reverse=True)
            shared = options.shared_precision
            first = Candidate(numbers[first_place], precisions[0], shared[0], options.power[0])
            settings = [attrs.evolve(first, precision=p) for p in precisions]
            best = self._best(task, settings, patience=len(settings))
            best = self._best(task, self._sharing_less(best, precisions), patience=2 * len(shared))
            best = self._best(task, [attrs.evolve(best, power=p) for p in options.power])
            fewer = [attrs.evolve(best, num_groups=k) for k in numbers[first_place::-1]]
            more = [attrs.evolve(best, num_groups=k) for k in numbers[first_place:]]
            best = min(self._best(task, fewer), self._best(task, more, patience=2), key=self._loss)
            best = self._best(task, [attrs.evolve(best, precision=best.precision * f) for f in (1.0, *_FINER)], 2)
        assert self._chosen is not None  # every search tries something
        groups, judgement = self._chosen
        settled = best.algorithm(self._evidence, options).fit(groups, options.final_rounds)
        final_judgement = self._judge(settled)
        if final_judgement.loss <= judgement.loss:
            groups, judgement = settled, final_judgement
        return FoundGroups(groups, best, judgement.scale, self._evidence.unit, self._evidence.per_user, options)

    def _sharing_less(self, best: Candidate, precisions: Sequence[float]) -> list[Candidate]:
        """Return the other shared precisions, each with the group precision as it is and with the next larger one.

        What the shared effects may no longer explain falls to those of the groups, whose best precision moves along.
        """
        larger = [p for p in precisions if p > best.precision][-1:]
        others = [s for s in self._options.shared_precision if s != best.shared]
        return [best, *(attrs.evolve(best, shared=s, precision=p) for s in others for p in (best.precision, *larger))]

    def _best(self, task: Task, settings: Sequence[Candidate], patience: int = 1) -> Candidate:
        """Return the best of the settings, tried in order until `patience` of them have been no better."""
        best, since = settings[0], 0
        for setting in settings:
            loss = self._loss(setting)
            task.advance(validation_loss=loss)
            if loss < self._loss(best):
                best, since = setting, 0
            elif setting != best:
                since += 1
            if since == patience:
                break
        return best

    def _loss(self, setting: Candidate) -> float:
        """Return the validation loss of a setting; the groups of the lowest so far are kept."""
        if setting not in self._losses:
            if setting.num_groups not in self._starts:
                self._starts[setting.num_groups] = self._start(setting.num_groups)
            groups = setting.algorithm(self._evidence, self._options).fit(
                self._starts[setting.num_groups], self._num_rounds
            )
            judgement = self._judge(groups)
            if judgement.loss < min(self._losses.values(), default=float("inf")):
                self._chosen = groups, judgement
            self._losses[setting] = judgement.loss
            self._progress.log(
                f"{STAGE}: latent groups",
                **attrs.asdict(setting),
                validation_loss=judgement.loss,
                validation_accuracy=judgement.accuracy,
            )
        return self._losses[setting]

    def _judge(self, groups: Groups) -> Judgement:
        return Judgement.of(self._held, self._held.margins(*as_embeddings(groups)))

    def _start(self, num_groups: int) -> Groups:
        rng = np.random.default_rng(self._seed)
        if self._options.start == "random" or num_groups == 1:
            return random_start(num_groups, self._evidence, rng)
        directions = user_directions(self._evidence, num_groups, rng)
        hard = np.eye(num_groups)[clusters(directions, num_groups, rng)]
        return start_at(_CLUSTER_WEIGHT * hard + (1 - _CLUSTER_WEIGHT) / num_groups, self._evidence)
