"""What the trainable encoders share: comparisons as tensors, the training loop that stops early, hold-out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol, final

import attrs
import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from copl.bradley_terry import bradley_terry_loss, correct
from copl.errors import TrainingError
from copl.interfaces import Progress, Task
from copl.records import Comparisons, NodeEmbeddings, PreferenceGraph

if TYPE_CHECKING:
    from collections.abc import Mapping

_HOLDOUT = 0.1
_ENOUGH = 200
_SCALES = [2 ** (thirds / 3) for thirds in range(-15, 13)]


@final
@attrs.frozen(eq=False)
class ComparisonTensors:
    """Comparisons as tensors: rows of users and responses [N] and weights of mean 1 [N]."""

    user: Tensor
    chosen: Tensor
    rejected: Tensor
    weight: Tensor

    @classmethod
    def of(cls, rows: Comparisons) -> ComparisonTensors:
        weight = torch.from_numpy(rows.weight).float()
        return cls(
            torch.from_numpy(rows.user),
            torch.from_numpy(rows.chosen),
            torch.from_numpy(rows.rejected),
            weight / weight.mean() if len(rows) else weight,
        )

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: Tensor) -> ComparisonTensors:
        return ComparisonTensors(self.user[rows], self.chosen[rows], self.rejected[rows], self.weight[rows])

    def margins(self, users: Tensor, responses: Tensor, bias: Tensor) -> Tensor:
        """Return e_u . (e_chosen - e_rejected) + b_chosen - b_rejected [N]."""
        # F.embedding, since the gradient of plain indexing is summed in no fixed order by several threads
        difference = F.embedding(self.chosen, responses) - F.embedding(self.rejected, responses)
        biases = F.embedding(torch.stack([self.chosen, self.rejected]), bias[:, None])[..., 0]
        margins: Tensor = (F.embedding(self.user, users) * difference).sum(dim=1) + biases[0] - biases[1]
        return margins

    def squared_norms(self, users: Tensor, responses: Tensor) -> Tensor:
        """Return the sum over comparisons of |e_u|^2 + |e_chosen|^2 + |e_rejected|^2."""
        of_users = users.square().sum(dim=1, keepdim=True)
        of_responses = responses.square().sum(dim=1, keepdim=True)
        return (
            F.embedding(self.user, of_users).sum()
            + F.embedding(torch.stack([self.chosen, self.rejected]), of_responses).sum()
        )

    def loss(self, margins: Tensor) -> Tensor:
        """Return the Bradley-Terry loss of margins [N]."""
        return bradley_terry_loss(margins, self.weight)


def learnable(graph: PreferenceGraph, seed: int) -> tuple[Comparisons, Comparisons]:
    """Return the comparisons to learn from and those to stop by.

    Comparisons of weight 0 or of a response with itself are left out. Where the graph has no validation comparisons, a
    tenth is held out by `seed`, as long as every user keeps one.
    """
    train, validation = (
        c.take((c.weight > 0) & (c.chosen != c.rejected)) for c in (graph.comparisons, graph.validation)
    )
    if len(validation) or not len(train):
        return train, validation
    return _hold_out(train, seed)


def held_out(graph: PreferenceGraph, seed: int) -> tuple[Comparisons, Comparisons]:
    """Return what `learnable` does, with enough to judge by: a tenth is held out too where validation is scarce.

    Where users have too few to spare, some are held out all they said: what everybody says of a response is judged
    then, which beats judging by what was learnt from.
    """
    train, validation = learnable(graph, seed)
    if len(validation) >= min(_ENOUGH, _HOLDOUT * len(train)):
        return train, validation
    train, held = _hold_out(train, seed, last_ones=True)
    return train, Comparisons.concat([validation, held])


def _hold_out(train: Comparisons, seed: int, *, last_ones: bool = False) -> tuple[Comparisons, Comparisons]:
    """Hold out a tenth, as long as every user keeps one; `last_ones`: and then some of these."""
    rng = np.random.default_rng(seed)
    shuffled = rng.permutation(len(train))
    first = shuffled[np.unique(train.user[shuffled], return_index=True)[1]]  # one of each user stays
    spare = np.setdiff1d(shuffled, first, assume_unique=True)
    wanted = int(_HOLDOUT * len(train))
    held = rng.choice(spare, min(len(spare), wanted), replace=False)
    if last_ones:
        held = np.concatenate([held, rng.choice(first, wanted - len(held), replace=False)])
    mask = np.zeros(len(train), dtype=np.bool_)
    mask[held] = True
    return train.take(~mask), train.take(mask)


@final
@attrs.frozen
class Judgement:
    """What comparisons that were not learned from say about a state of training.

    Attributes:
        loss: the Bradley-Terry loss of the margins at the best scale.
        scale: that scale. Judged at its own scale, a model that is merely too sure of itself looks worse than one that
            knows less, and training would stop before it has begun.
        accuracy: share of margins that are positive; those of zero count a half, as in tables of results.
    """

    loss: float
    scale: float
    accuracy: float

    @classmethod
    def of(cls, comparisons: ComparisonTensors, margins: Tensor) -> Judgement:
        losses = [float(comparisons.loss(scale * margins)) for scale in _SCALES]
        require_finite([torch.tensor(losses)], "the loss")
        best = int(np.argmin(losses))
        return cls(losses[best], _SCALES[best], float(correct(margins.detach().numpy()).mean()))

    @classmethod
    def of_embeddings(cls, comparisons: ComparisonTensors, embeddings: NodeEmbeddings) -> Judgement:
        """Return what they say of embeddings of the nodes that they refer to."""
        return cls.of(
            comparisons, comparisons.margins(embeddings.users, embeddings.responses, embeddings.response_bias)
        )


@final
class BestState:
    """Keeps the tensors of the step with the lowest validation loss, and knows when to stop."""

    def __init__(self, patience: int | None) -> None:
        self.loss = float("inf")
        self.scale = 1.0
        self.tensors: Mapping[str, Tensor] = {}
        self._patience = patience
        self._since = 0

    def offer(self, judgement: Judgement, tensors: Mapping[str, Tensor]) -> bool:
        """Take the tensors if they are the best so far; return whether to go on."""
        if judgement.loss < self.loss:
            self.loss, self.scale, self._since = judgement.loss, judgement.scale, 0
            self.tensors = {name: tensor.detach().clone() for name, tensor in tensors.items()}
        else:
            self._since += 1
        return self._patience is None or self._since < self._patience


@final
@attrs.frozen
class Curve:
    """Where a training curve is shown and logged.

    Attributes:
        stage: stage of the log.
        task: the bar, which moves on by one an epoch.
        progress: the log.
        label: put before the names, where one stage has several curves; the training loss is left out then.
    """

    stage: str
    task: Task
    progress: Progress
    label: str = ""

    def log(self, epoch: int, loss: float, judgement: Judgement) -> None:
        values = {
            f"{self.label}validation_loss": judgement.loss,
            f"{self.label}validation_accuracy": judgement.accuracy,
            **({} if self.label else {"loss": loss}),
        }
        self.progress.log(self.stage, epoch=epoch, **values)


class Trainable(Protocol):
    """What `train` trains."""

    def epoch(self) -> float:
        """Pass over the comparisons once and return the mean loss."""
        ...

    def judge(self) -> Judgement:
        """Return what comparisons that were not learned from say."""
        ...

    def tensors(self) -> Mapping[str, Tensor]:
        """Return all that is trained."""
        ...


def train(
    model: Trainable,
    *,
    num_epochs: int,
    validate_every: int,
    patience: int | None,
    curve: Curve,
    start_counts: bool = False,
) -> BestState:
    """Train until the validation loss falls no more and return the best state; `start_counts`: that may be the first.

    Raises:
        TrainingError: the loss is no finite number.
    """
    best = BestState(patience)
    if start_counts:
        best.offer(model.judge(), model.tensors())
    for epoch in range(1, num_epochs + 1):
        loss = model.epoch()
        require_finite([torch.tensor(loss)], "the loss")
        curve.task.advance(loss=loss)
        if epoch % validate_every and epoch < num_epochs:
            continue
        judgement = model.judge()
        curve.log(epoch, loss, judgement)
        if not best.offer(judgement, model.tensors()):
            break
    return best


def node_embeddings(graph: PreferenceGraph, users: Tensor, responses: Tensor, bias: Tensor) -> NodeEmbeddings:
    """Return the record of a fitted encoder.

    Raises:
        TrainingError: a value is not finite; nothing that is not a number leaves an encoder.
    """
    users, responses, bias = (tensor.detach().float().contiguous() for tensor in (users, responses, bias))
    require_finite((users, responses, bias), "the embeddings")
    return NodeEmbeddings(graph.user_ids, graph.response_keys, users, responses, bias, graph.comparisons)


def require_finite(tensors: Sequence[Tensor], what: str) -> None:
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise TrainingError(f"graph encoder: {what} became infinite or not a number; lower the learning rate")


def trivial_embeddings(graph: PreferenceGraph, dim: int) -> NodeEmbeddings:
    """Return zeros: all that can be known of a graph in which no comparison says anything."""
    return node_embeddings(
        graph,
        torch.zeros(graph.num_users, dim),
        torch.zeros(graph.num_responses, dim),
        torch.zeros(graph.num_responses),
    )
