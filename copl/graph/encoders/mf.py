"""Encoder ``mf``: matrix factorisation of comparisons with response effects."""

from __future__ import annotations

from collections.abc import Mapping
from typing import final

import attrs
import torch
from torch import Tensor

from copl.graph.encoders.catalogue import MfOptions
from copl.graph.following import Factors, Precisions, follow
from copl.graph.going_on import GoesOn
from copl.graph.messages.sparse import SparseMatrix
from copl.graph.newcomers import plain, with_pass
from copl.graph.recall import Recall
from copl.graph.starts import spectral_tables
from copl.graph.training import (
    BestState,
    ComparisonTensors,
    Curve,
    Judgement,
    learnable,
    node_embeddings,
    train,
    trivial_embeddings,
)
from copl.interfaces import Progress
from copl.records import NodeEmbeddings, PreferenceGraph
from copl.records.memory import Memory
from copl.records.passes import GaussianPass
from copl.system.optimizers import eager

STAGE = "graph"


@final
class Mf(GoesOn):
    r"""Maximum a posteriori of the Bradley-Terry model with a bilinear margin.

    .. math::
        \min \sum_{(u, c, r)} w \log(1 + e^{-m}) + \frac{\lambda}{2} (|E_U|^2 + |E_R|^2) + \frac{\lambda_b}{2} |b|^2,
        \quad m = e_u \cdot (e_c - e_r) + b_c - b_r

    Started from the leading singular vectors of the signed incidence; lambda is chosen, and training stopped, by
    validation loss. A newcomer has a closed form in this model, the mode of the posterior given the responses.
    """

    def __init__(self, options: MfOptions) -> None:
        self._options = options

    def fit(self, graph: PreferenceGraph, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Learn the embeddings.

        Raises:
            TrainingError: the loss is no finite number; a lower learning rate mends it.
        """
        options = self._options
        learned, validation = learnable(graph, seed)
        if not len(learned):
            return trivial_embeddings(graph, options.embedding_dim)
        start = spectral_tables(attrs.evolve(graph, comparisons=learned), options.embedding_dim, seed)
        held = ComparisonTensors.of(validation if len(validation) else learned)
        differences = Differences.of(ComparisonTensors.of(learned), graph.num_users, graph.num_responses)
        best: BestState | None = None
        chosen = options.precision[0]
        with progress.task("graph encoder mf", total=options.num_steps * len(options.precision)) as task:
            for precision in options.precision:
                # one curve a candidate, in a panel of their own
                curve = Curve(f"{STAGE}: factors", task, progress, f"precision {precision:g}, ")
                candidate = train(
                    _Factors(differences, held, start, precision, options),
                    num_epochs=options.num_steps,
                    validate_every=options.validate_every,
                    patience=options.patience,
                    curve=curve,
                )
                if best is None or candidate.loss < best.loss:
                    best, chosen = candidate, precision
        assert best is not None  # there is at least one precision
        factors = Factors(*(best.tensors[name] for name in ("users", "responses", "bias")))
        return _embedded(graph, factors, _Setting(chosen, best.scale), power=1 / float(learned.weight.mean()))

    def go_on(self, graph: PreferenceGraph, recall: Recall, *, seed: int, progress: Progress) -> NodeEmbeddings:
        """Take new comparisons into the factors, with the precision and the scale that were chosen."""
        memory, setting = recall.memory, _Setting(**recall.memory.facts)
        start = Factors(*(t.double() for t in (memory.users["own"], memory.responses["own"], memory.responses["bias"])))
        anew = torch.from_numpy(recall.is_new)
        unknown = torch.from_numpy(~recall.known_users)[torch.from_numpy(graph.comparisons.user)]
        factors = follow(
            start,
            ComparisonTensors.of(graph.comparisons),
            Precisions(setting.precision, self._options.bias_precision),
            new_of_user=anew | unknown,
            new_of_response=anew,
        )
        return _embedded(graph, factors, setting, power=1 / float(graph.comparisons.weight.mean()))


@final
@attrs.frozen
class _Setting:
    """What validation has chosen: the precision of the embeddings, and the scale of margins."""

    precision: float
    scale: float


def _embedded(graph: PreferenceGraph, factors: Factors, setting: _Setting, *, power: float) -> NodeEmbeddings:
    scale = setting.scale
    fitted = node_embeddings(graph, factors.users * scale, factors.responses, factors.bias * scale)
    prior = GaussianPass(
        mean=torch.zeros(fitted.dim),
        factor=plain(torch.eye(fitted.dim) * scale / setting.precision**0.5),
        sharpness=1 / scale,  # users were fitted by the margins before they are scaled
        power=power,
    )
    responses = {"own": plain(factors.responses), "bias": plain(factors.bias)}
    memory = Memory({"own": plain(factors.users)}, responses, facts=attrs.asdict(setting))
    return attrs.evolve(with_pass(fitted, prior), memory=memory)


@final
@attrs.frozen(eq=False)
class Differences:
    """Comparisons as sparse matrices, so that neither margins nor their gradients are gathered row by row.

    Attributes:
        comparisons: the comparisons [N].
        users: 1 at the user of each comparison [N, U].
        responses: +1 at its chosen, -1 at its rejected response [N, R].
    """

    comparisons: ComparisonTensors
    users: SparseMatrix
    responses: SparseMatrix

    @classmethod
    def of(cls, rows: ComparisonTensors, num_users: int, num_responses: int) -> Differences:
        number, one = torch.arange(len(rows)), torch.ones(len(rows))
        ends = torch.stack([rows.chosen, rows.rejected], dim=1).reshape(-1)
        signs = torch.tensor([1.0, -1.0]).repeat(len(rows))
        return cls(
            rows,
            SparseMatrix.of(number, rows.user, one, (len(rows), num_users)),
            SparseMatrix.of(number.repeat_interleave(2), ends, signs, (len(rows), num_responses)),
        )

    def margins(self, users: Tensor, responses: Tensor, bias: Tensor) -> Tensor:
        """Return e_u . (e_chosen - e_rejected) + b_chosen - b_rejected [N]."""
        differences = self.responses @ torch.cat([responses, bias[:, None]], dim=1)
        margins: Tensor = ((self.users @ users) * differences[:, :-1]).sum(dim=1) + differences[:, -1]
        return margins


@final
class _Factors:
    """Factors while they are trained with one precision, by full-batch steps of Adam."""

    def __init__(
        self,
        differences: Differences,
        held: ComparisonTensors,
        start: tuple[Tensor, Tensor],
        precision: float,
        options: MfOptions,
    ) -> None:
        self._differences, self._held = differences, held
        self._precision, self._options = precision, options
        users, responses = start
        self._tables = [t.clone().requires_grad_() for t in (users, responses, torch.zeros(len(responses)))]
        self._optimizer = eager(torch.optim.Adam)(self._tables, lr=options.learning_rate)

    def epoch(self) -> float:
        users, responses, bias = self._tables
        comparisons = self._differences.comparisons
        squares = self._precision * (users.square().sum() + responses.square().sum())
        squares = squares + self._options.bias_precision * bias.square().sum()
        loss = comparisons.loss(self._differences.margins(users, responses, bias))
        self._optimizer.zero_grad()
        penalised = loss + squares / (2 * comparisons.weight.sum())
        penalised.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
        self._optimizer.step()
        return float(loss.detach())

    @torch.no_grad()
    def judge(self) -> Judgement:
        return Judgement.of(self._held, self._held.margins(*self._tables))

    def tensors(self) -> Mapping[str, Tensor]:
        return dict(zip(("users", "responses", "bias"), self._tables, strict=True))
