"""Training a mixture policy on the rows of all users at once, step by step, going on where a kill has ended it.

TRL's `DPOTrainer` is not used here: of a model that carries adapters it makes the reference by copying them, without
the mask of the user, and its collator has no place for embeddings.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, final

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from copl.align.policies.mixture import MixturePolicy
from copl.align.policies.rows import PreferenceRow
from copl.align.policies.writer import TokenPair
from copl.errors import CoplError, TrainingError
from copl.interfaces import Progress
from copl.options import options_to_dict
from copl.reward.training.checkpoint import load_optimizer_state, load_trainable, optimizer_state, trainable
from copl.runs.recipe import canonical_hash
from copl.system.optimizers import eager
from copl.system.progress import SilentProgress
from copl.system.tensors import ANY_FLOATS, Expected, content_checksum, like, load_tensors, save_tensors

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOW, _OPTIMIZER, _READ, _MARGINS = "now/", "optimizer/", "reference/rows", "reference/margins"
_HELD_OUT = 0.1
_MOST_HELD_OUT = 64


@final
@frozen
class _Header:
    key: str
    losses: tuple[float, ...]
    content: str = ""  # checksum of all tensors


@final
@frozen
class PolicyFacts:
    """How training went.

    Attributes:
        num_rows: rows trained on.
        num_users: users they are of.
        steps: optimiser steps.
        first_loss: mean loss of the first tenth of the steps.
        last_loss: mean loss of the last tenth.
        held_out: rows held out.
        accuracy: share of them whose chosen response the policy has made likelier than the rejected one, against the
            language model without adapters.
    """

    num_rows: int
    num_users: int
    steps: int
    first_loss: float
    last_loss: float
    held_out: int
    accuracy: float


@final
@frozen(eq=False)
class _Read:
    """What reading both responses of some rows has come to.

    Attributes:
        gain: by how much more than the reference the policy prefers the chosen response [B].
        chosen: its log-likelihood of the chosen response [B].
        num_tokens: tokens of the chosen responses, together.
    """

    gain: Tensor
    chosen: Tensor
    num_tokens: int


@final
class MixtureTraining:
    """Trains a mixture policy by direct preference optimisation.

    Args:
        policy: the policy, as `MixturePolicy.start` made it.
        rows: rows of all users.
        vectors: the embedding [D] of each user of the rows.
        seed: the same seed gives the same policy on the same machine.
        scratch: where checkpoints go; None keeps none.

    Raises:
        CoplError: there are no rows.
    """

    def __init__(
        self,
        policy: MixturePolicy,
        rows: Sequence[PreferenceRow],
        vectors: Mapping[str, Tensor],
        *,
        seed: int,
        scratch: Path | None = None,
    ) -> None:
        if not rows:
            raise CoplError("no rows to train a policy on: nobody has said anything, and all candidates are near-ties")
        self.policy = policy
        self._seed = seed
        self._vectors = vectors
        order = sorted(range(len(rows)), key=lambda place: _digest(rows[place]))
        held_out = min(_MOST_HELD_OUT, int(_HELD_OUT * len(rows)))
        self._held_out = [rows[place] for place in order[:held_out]]
        self._rows = [rows[place] for place in order[held_out:]]
        options = policy.options
        self.num_steps = options.num_steps(len(self._rows))
        self._reference: dict[int, Tensor] = {}
        self._checkpoint = None if scratch is None else scratch / "checkpoint.safetensors"
        digests = "".join(map(_digest, self._rows))
        key = {"rows": digests, "seed": seed, "options": options_to_dict(options), "writer": policy.writer.fingerprint}
        self._key = canonical_hash(key)

    def run(self, progress: Progress | None = None) -> PolicyFacts:
        """Train, and return how it went.

        Raises:
            TrainingError: the loss is not finite.
        """
        policy, options = self.policy, self.policy.options
        parameters = [p for p in policy.parameters() if p.requires_grad]
        optimizer = eager(torch.optim.AdamW)(parameters, lr=options.learning_rate, weight_decay=0.0)
        losses = self._resume(optimizer)
        with (progress or SilentProgress()).task("training the policy", self.num_steps) as task:
            task.advance(len(losses))
            for step, batch in enumerate(self._batches()):
                if step < len(losses):
                    continue
                for group in optimizer.param_groups:
                    group["lr"] = options.learning_rate * _rate(step, self.num_steps)
                loss = self._loss(batch)
                if not bool(torch.isfinite(loss)):
                    raise TrainingError("the loss of the policy is not finite; lower learning_rate")
                optimizer.zero_grad(set_to_none=True)
                loss.backward()  # type: ignore[no-untyped-call]
                torch.nn.utils.clip_grad_norm_(parameters, 1.0)
                optimizer.step()
                losses.append(float(loss.detach()))
                task.advance(loss=losses[-1])
                if len(losses) % options.save_every == 0:
                    self._save(optimizer, losses)
        part = max(1, len(losses) // 10)
        return PolicyFacts(
            len(self._rows),
            len({row.user_id for row in self._rows}),
            len(losses),
            float(np.mean(losses[:part])),
            float(np.mean(losses[-part:])),
            len(self._held_out),
            self.accuracy(self._held_out),
        )

    def clear(self) -> None:
        """Remove the checkpoint, once the policy is kept."""
        if self._checkpoint is not None:
            self._checkpoint.unlink(missing_ok=True)
            if self._checkpoint.parent.is_dir() and not any(self._checkpoint.parent.iterdir()):
                self._checkpoint.parent.rmdir()

    @torch.no_grad()
    def accuracy(self, rows: Sequence[PreferenceRow]) -> float:
        """Return the share of rows whose chosen response has gained more than the rejected one; .5 without rows."""
        gains = [float(self._read([row]).gain[0]) for row in rows]
        return float(np.mean([gain > 0 for gain in gains])) if gains else 0.5

    def _loss(self, places: Sequence[int]) -> Tensor:
        rows = [self._rows[place] for place in places]
        users = torch.stack([self._vectors[row.user_id] for row in rows])
        _, own = self.policy.decide(users)
        read = self._read(rows, places)
        options = self.policy.options
        loss: Tensor = -torch.nn.functional.logsigmoid(options.beta * read.gain).mean() + own
        return loss - options.likelihood * read.chosen.sum() / read.num_tokens

    def _read(self, rows: Sequence[PreferenceRow], places: Sequence[int] | None = None) -> _Read:
        """Read both responses of each row under the experts of its user."""
        pairs = [*self._pairs(rows, "chosen"), *self._pairs(rows, "rejected")]
        users = torch.stack([self._vectors[row.user_id] for row in rows])
        weights = self.policy.weights(users)
        doubled = None if weights is None else weights.repeat(2, 1)
        chosen, rejected = self.policy.likelihoods(pairs, doubled).chunk(2)
        num_tokens = sum(len(pair.ids) - pair.start for pair in pairs[: len(rows)])
        return _Read(chosen - rejected - self._reference_of(pairs, places), chosen, num_tokens)

    def _reference_of(self, pairs: Sequence[TokenPair], places: Sequence[int] | None) -> Tensor:
        """The margin of the reference for each row [B]; remembered for rows that are trained on."""
        if places is not None and all(place in self._reference for place in places):
            return torch.stack([self._reference[place] for place in places])
        chosen, rejected = self.policy.reference(pairs).chunk(2)
        margins = chosen - rejected
        if places is not None:
            self._reference |= dict(zip(places, margins, strict=True))
        return margins

    def _pairs(self, rows: Sequence[PreferenceRow], side: str) -> list[TokenPair]:
        writer, limit = self.policy.writer, self.policy.options.max_length
        return [writer.pair(row.prompt, getattr(row, side), limit) for row in rows]

    def _batches(self) -> Iterator[list[int]]:
        """Places of the rows of each step; each pass in an order of its own."""
        size, step, epoch = self.policy.options.batch_size, 0, 0
        while True:
            order = np.random.default_rng([self._seed, epoch]).permutation(len(self._rows))
            for start in range(0, len(order), size):
                if step == self.num_steps:
                    return
                yield order[start : start + size].tolist()
                step += 1
            epoch += 1

    def _save(self, optimizer: torch.optim.Optimizer, losses: Sequence[float]) -> None:
        if self._checkpoint is None:
            return
        parts = {_NOW: trainable(self.policy), _OPTIMIZER: optimizer_state(self.policy, optimizer)}
        tensors = {prefix + name: tensor for prefix, part in parts.items() for name, tensor in part.items()}
        tensors[_READ] = torch.tensor(list(self._reference))
        tensors[_MARGINS] = torch.stack([*self._reference.values()]).cpu()  # as the batch of the first look rounds them
        self._checkpoint.parent.mkdir(parents=True, exist_ok=True)
        content = content_checksum(self._key, tensors)
        save_tensors(self._checkpoint, tensors, header=_Header(self._key, tuple(losses), content))

    def _resume(self, optimizer: torch.optim.Optimizer) -> list[float]:
        """Go on from the checkpoint, where there is one of the same training; return the losses so far."""
        if self._checkpoint is None or not self._checkpoint.is_file():
            return []
        expected = {_NOW + name: like(tensor) for name, tensor in trainable(self.policy).items()}
        expected |= {_READ: Expected("int", None), _MARGINS: ANY_FLOATS}
        try:
            file = load_tensors(self._checkpoint, expected, others={_OPTIMIZER: ANY_FLOATS}, advice="")
            header = file.read_header(_Header, advice="")
        except CoplError:  # damaged, or of another training: begin again
            return []
        if header.key != self._key or header.content != content_checksum(self._key, file.tensors):
            return []
        load_trainable(self.policy, file.below(_NOW))
        load_optimizer_state(self.policy, optimizer, file.below(_OPTIMIZER))
        margins = file.tensors[_MARGINS].to(self.policy.centre.device)
        self._reference = dict(zip(file.tensors[_READ].tolist(), margins, strict=True))
        return list(header.losses)


def _rate(step: int, count: int) -> float:
    """A rise over the first twentieth, then a cosine to 0."""
    rise = max(1, count // 20)
    if step < rise:
        return (step + 1) / rise
    return 0.5 * (1.0 + math.cos(math.pi * (step - rise) / max(1, count - rise)))


def _digest(row: PreferenceRow) -> str:
    parts = (row.user_id, row.prompt, row.chosen, row.rejected)
    return hashlib.blake2b("\x00".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
