"""What a reward model makes of texts: each is read once for each setting of the experts that it is asked for with."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from copl.interfaces import Progress
from copl.records import ResponseTable
from copl.reward.backbones.loaded import pool
from copl.reward.model import PersonalRewardModel
from copl.reward.reading.kept import KeptRows
from copl.reward.reading.memory import told_when_memory_is_short
from copl.reward.reading.passes import by_texts
from copl.reward.reading.steady import steady_pass
from copl.system.progress import SilentProgress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from copl.records import IntArray

READINGS_FILE = "readings.safetensors"
"""Where a trained model's directory holds what was read ahead of scoring."""

_USERS_AT_ONCE = 65_536
_DIGITS = 6


@final
@frozen(eq=False)
class ExpertSettings:
    """The distinct weights that a gate gives its experts.

    Attributes:
        weights: the settings [K, M]; None where there are no routed experts, which is one setting.
        of: the setting of each user [U].
    """

    weights: Tensor | None
    of: IntArray

    @classmethod
    def of_users(cls, model: PersonalRewardModel, vectors: Tensor) -> ExpertSettings:
        """Return the settings of users with the embeddings `vectors` [U, D], in the encoder's scale."""
        parts = [model.gate_weights(part) for part in torch.split(vectors, _USERS_AT_ONCE)]
        present = [part for part in parts if part is not None]
        if not present:
            return cls(None, np.zeros(len(vectors), dtype=np.int64))
        # A gate computes the same weights in another batch with other last digits.
        rounded = np.round(torch.cat(present).float().numpy(), _DIGITS) + 0.0
        distinct, of = np.unique(rounded, axis=0, return_inverse=True)
        return cls(torch.from_numpy(distinct), of.reshape(-1).astype(np.int64))

    def __len__(self) -> int:
        return 1 if self.weights is None else len(self.weights)

    def names(self) -> list[str]:
        """Return a name for each setting, equal for equal weights [K]."""
        if self.weights is None:
            return [_NO_EXPERTS]
        return [hashlib.blake2b(row.tobytes(), digest_size=16).hexdigest() for row in self.weights.numpy()]


_NO_EXPERTS = "0" * 32


@final
class Readings:
    """Texts as a reward model reads them: scaled, pooled hidden states, or what is kept of them.

    They hold as long as the adapters stay as they are. Texts that are new pass the frozen layers once, whatever the
    number of settings; the adapted layers are repeated for each.

    Args:
        model: the reward model; read in evaluation mode, and left in the mode it is in.
        zero: whether the adapters are zero, so that the frozen features say all.
        keep: what is kept [B, C] of scaled features [B, H]; all of them unless given.
    """

    def __init__(
        self,
        model: PersonalRewardModel,
        *,
        zero: bool = False,
        keep: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self._model = model
        self.zero = zero
        self._keep = keep
        self._kept = KeptRows()

    @torch.no_grad()
    def of(
        self,
        responses: ResponseTable,
        rows: IntArray,
        settings: ExpertSettings,
        user: IntArray,
        progress: Progress | None = None,
    ) -> tuple[Tensor, IntArray]:
        """Read texts for users, each distinct reading once.

        Args:
            responses: the table that `rows` refers to.
            rows: the text of each request [N].
            settings: how the experts are set for each user.
            user: the user of each request [N].
            progress: where to show progress.

        Returns:
            what is kept of each reading [S, C], on the processor, float32; and which reading is that of a request [N].

        Raises:
            BackboneError: a text is new, and the backbone cannot read it.
            TrainingError: memory is exhausted.
        """
        if self.zero:
            texts, reading = np.unique(rows, return_inverse=True)
            pooled = self._model.reader.features(responses, texts).to(self._model.device)
            return self._part(self._model.scaled(pooled)), reading.reshape(-1)
        code, reading = np.unique(rows * len(settings) + settings.of[user], return_inverse=True)
        rows, place = np.divmod(code, len(settings))
        keys, names = responses.keys, settings.names()
        asked = [keys[row] + names[one] for row, one in zip(rows.tolist(), place.tolist(), strict=True)]
        if any(map(self._kept.lacks, asked)):
            new = np.flatnonzero([self._kept.lacks(name) for name in asked])
            self._read(responses, rows[new], settings, place[new], progress or SilentProgress())
        kept = self._kept.get_single(asked)
        self._kept.forget()
        return kept, reading.reshape(-1)

    def encoded(self, keep: Callable[[Tensor], Tensor]) -> Readings:
        """Return the same readings with something else kept of them, made of the features that are kept here."""
        encoded = Readings(self._model, zero=self.zero, keep=keep)
        keys = self._kept.keys()
        if keys:
            features = self._kept.get_single(keys).to(self._model.device)
            with torch.no_grad():
                encoded._kept.put(keys, np.ones(len(keys), dtype=np.int64), encoded._part(features))
        return encoded

    def save(self, path: Path) -> None:
        """Write what is known, as `load` reads it."""
        self._kept.save(self._kept.keys(), path)

    def load(self, path: Path) -> None:
        """Take in what `save` wrote; the model is the same.

        Raises:
            RunError: it is missing or damaged.
        """
        self._kept.add_file(path)

    def _read(
        self,
        responses: ResponseTable,
        rows: IntArray,
        settings: ExpertSettings,
        place: IntArray,
        progress: Progress,
    ) -> None:
        names = settings.names()
        training = self._model.training
        self._model.eval()
        try:
            with told_when_memory_is_short("scoring"), progress.task("reading with experts", len(rows)) as task:
                for texts, own in by_texts(rows, self._model.reader.texts_at_once):
                    for part, features in self._passes(responses, texts, rows[own], settings, place[own]):
                        keys = [responses.keys[rows[n]] + names[place[n]] for n in own[part].tolist()]
                        self._kept.put(keys, np.ones(len(keys), dtype=np.int64), self._part(features))
                        task.advance(len(part))
        finally:
            self._model.train(training)

    def _passes(
        self, responses: ResponseTable, texts: IntArray, rows: IntArray, settings: ExpertSettings, place: IntArray
    ) -> Iterator[tuple[IntArray, Tensor]]:
        """Read some texts [T] under the settings they are asked for with; yields which readings, and their features."""
        model, reader = self._model, self._model.reader
        encoded, states = reader.tokens(responses, texts), reader.states(responses, texts)
        text = np.searchsorted(texts, rows)
        encoded = encoded.take(text)

        def call(inputs: dict[str, Any], own: IntArray) -> Any:
            weights = None if settings.weights is None else settings.weights[torch.from_numpy(place[own])]
            kept = None if states is None else states.padded_to(text[own], inputs["attention_mask"].shape[1])
            return model.outputs(
                inputs,
                None if weights is None else weights.to(model.device),
                None if kept is None else kept.to(model.device),
            )

        prompts = states is None and reader.shares_prompts
        for batch in steady_pass(model.backbone, encoded, call, prompts=prompts, kinds=place):
            yield batch.places, model.scaled(pool(batch.hidden, batch.attention_mask, model.backbone.pooling))

    def _part(self, features: Tensor) -> Tensor:
        return (features if self._keep is None else self._keep(features)).float().cpu()
