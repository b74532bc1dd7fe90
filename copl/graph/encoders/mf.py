"""Encoder ``mf``: matrix factorisation of comparisons with response effects."""

from __future__ import annotations

from typing import final

import attrs
import numpy as np
import torch
from torch import Tensor

from copl.graph.newcomers import plain, with_pass
from copl.graph.starts import signed_incidence, truncated_svd
from copl.graph.training import (
    BestState,
    ComparisonTensors,
    Judgement,
    learnable,
    node_embeddings,
    trivial_embeddings,
)
from copl.interfaces import GraphEncoder, Progress
from copl.options import option
from copl.passes import GaussianPass
from copl.plugins import Component
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph

STAGE = "graph"

_positive = attrs.validators.gt(0)
_at_least_one = attrs.validators.ge(1)


@final
@attrs.frozen
class MfOptions:
    embedding_dim: int = option(16, help="embedding dimension D", validator=_at_least_one)
    precision: tuple[float, ...] = option(
        (0.7, 1.0, 1.4, 2.0, 4.0),
        help="prior precisions of the embeddings to choose from by validation loss; larger ones keep them smaller",
        validator=attrs.validators.deep_iterable(_positive, attrs.validators.min_len(1)),
    )
    bias_precision: float = option(0.5, help="prior precision of the response effects", validator=_positive)
    learning_rate: float = option(0.05, help="learning rate of Adam", validator=_positive)
    num_steps: int = option(150, help="full-batch steps at most, for each precision", validator=_at_least_one)
    validate_every: int = option(3, help="steps from one validation to the next", validator=_at_least_one)
    patience: int = option(8, help="validations without a lower loss before stopping", validator=_at_least_one)


@final
class Mf(GraphEncoder):
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
        train, validation = learnable(graph, seed)
        if not len(train):
            return trivial_embeddings(graph, options.embedding_dim)
        start = _start(train, graph.num_users, graph.num_responses, options.embedding_dim, seed)
        held = ComparisonTensors.of(validation if len(validation) else train)
        best: BestState | None = None
        chosen = options.precision[0]
        with progress.task("graph encoder mf", total=options.num_steps * len(options.precision)) as task:
            for precision in options.precision:
                found = self._fit_one(ComparisonTensors.of(train), held, start, precision, progress)
                if best is None or found.loss < best.loss:
                    best, chosen = found, precision
                task.advance(options.num_steps, validation_loss=best.loss)
        assert best is not None  # there is at least one precision
        users, responses, bias = (best.tensors[name] for name in ("users", "responses", "bias"))
        fitted = node_embeddings(graph, users * best.scale, responses, bias * best.scale)
        prior = GaussianPass(
            mean=torch.zeros(fitted.dim),
            factor=plain(torch.eye(fitted.dim) * best.scale / chosen**0.5),
            sharpness=1 / best.scale,  # users were fitted by the margins before they are scaled
            power=1 / float(train.weight.mean()),
        )
        return with_pass(fitted, prior)

    def _fit_one(
        self,
        train: ComparisonTensors,
        held: ComparisonTensors,
        start: tuple[Tensor, Tensor, Tensor],
        precision: float,
        progress: Progress,
    ) -> BestState:
        options = self._options
        users, responses, bias = parameters = [tensor.clone().requires_grad_() for tensor in start]
        optimizer = torch.optim.Adam(parameters, lr=options.learning_rate)
        best = BestState(options.patience)
        num = train.weight.sum()
        for step in range(options.num_steps):
            if step % options.validate_every == 0:
                with torch.no_grad():
                    judgement = Judgement.of(held, held.margins(users, responses, bias))
                curve = f"precision {precision:g}"  # one curve a candidate, in a panel of their own
                values = {f"{curve}, validation loss": judgement.loss, f"{curve}, accuracy": judgement.accuracy}
                progress.log(f"{STAGE}: factors", step=step, **values)
                if not best.offer(judgement, {"users": users, "responses": responses, "bias": bias}):
                    break
            squares = precision * (users.square().sum() + responses.square().sum())
            squares = squares + options.bias_precision * bias.square().sum()
            loss = train.loss(train.margins(users, responses, bias)) + squares / (2 * num)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it untyped
            optimizer.step()
        return best


def _start(
    train: Comparisons, num_users: int, num_responses: int, dim: int, seed: int
) -> tuple[Tensor, Tensor, Tensor]:
    rng = np.random.default_rng(seed)
    left, values, right = truncated_svd(signed_incidence(train, num_users, num_responses), dim, rng)
    scale = np.sqrt(values)
    tables = [vectors * scale * np.sqrt(len(vectors)) * 0.3 for vectors in (left, right)]
    return (*(torch.from_numpy(t).float() for t in tables), torch.zeros(num_responses))  # type: ignore[return-value]


COMPONENTS = [
    Component(
        name="mf",
        options=MfOptions,
        build=Mf,
        summary="matrix factorisation of comparisons with response effects; its regularisation chosen by validation",
        reference="Rendle et al., BPR: Bayesian Personalized Ranking from Implicit Feedback, arXiv 1205.2618",
    )
]
