"""Responses that nobody has annotated stand for the most similar ones that somebody has, by their texts."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, final

import attrs
import numpy as np
import torch
from attrs import frozen

from copl.records import AdaptedUsers, Comparisons, ComparisonSet, NodeEmbeddings, ResponseTable

if TYPE_CHECKING:
    from torch import Tensor

    from copl.records import BoolArray, FloatArray, IntArray

SIMILAR_TEXTS = ", by similar texts"
"""What follows the strategy's name in `how` where untrained responses were taken for similar ones."""


@final
@frozen(eq=False)
class Lookalikes:
    """Annotated responses with their text embeddings.

    Attributes:
        responses: the annotated responses [R].
        features: their text embeddings [R, F].
        read: returns the text embeddings of other responses [n, F], from the same frozen model.
    """

    responses: ResponseTable
    features: Tensor
    read: Callable[[ResponseTable], Tensor]

    def translate(self, support: ComparisonSet, trained: NodeEmbeddings) -> tuple[ComparisonSet, BoolArray]:
        """Replace responses that are not trained by the annotated ones with the most similar texts.

        The similarity is the cosine of the text embeddings less their mean. A comparison counts by the
        geometric mean of the similarities of its two responses (1 for a trained one), so that a poor likeness says
        less; where one is not positive, the comparison stays as it is.

        Returns:
            the comparisons in the same order, and which of them were changed [N].
        """
        rows = support.comparisons
        used = np.unique(np.concatenate([rows.chosen, rows.rejected]))
        known = trained.response_rows
        unknown = used[[support.responses.keys[row] not in known for row in used.tolist()]] if len(used) else used
        annotated = np.flatnonzero([key in known for key in self.responses.keys])
        if not len(unknown) or not len(annotated):
            return support, np.zeros(len(rows), dtype=np.bool_)
        place, similarity = self._nearest(support.responses, unknown, annotated)
        stand_in = np.arange(len(support.responses))
        stand_in[unknown] = len(support.responses) + place
        likeness = np.ones(len(support.responses))
        likeness[unknown] = similarity
        changed = (stand_in[rows.chosen] != rows.chosen) | (stand_in[rows.rejected] != rows.rejected)
        changed &= (likeness[rows.chosen] > 0) & (likeness[rows.rejected] > 0)
        factor = np.sqrt(likeness[rows.chosen] * likeness[rows.rejected])
        translated = Comparisons(
            rows.user,
            np.where(changed, stand_in[rows.chosen], rows.chosen),
            np.where(changed, stand_in[rows.rejected], rows.rejected),
            np.where(changed, rows.weight * factor, rows.weight),
            rows.controversial,
        )
        table = ResponseTable(
            support.responses.prompts + self.responses.prompts, support.responses.texts + self.responses.texts
        )
        return ComparisonSet(support.users, table, translated), changed

    def _nearest(self, responses: ResponseTable, unknown: IntArray, annotated: IntArray) -> tuple[IntArray, FloatArray]:
        """Return the annotated response most similar to each unknown one, and how similar it is [n]."""
        asked = responses.take(unknown)
        known = self.features[torch.from_numpy(annotated)].double()
        mean = known.mean(dim=0)
        directions = torch.nn.functional.normalize(known - mean, dim=1)
        best = (torch.nn.functional.normalize(self.read(asked).double() - mean, dim=1) @ directions.T).max(dim=1)
        place: IntArray = annotated[best.indices.numpy()]
        similarity: FloatArray = best.values.clamp(0, 1).numpy()
        return place, similarity


def by_similar_texts(adapted: AdaptedUsers, translated: BoolArray) -> AdaptedUsers:
    """Say in `how` which users [N] were found through similar texts."""
    how = [name + SIMILAR_TEXTS if flag else name for name, flag in zip(adapted.how, translated.tolist(), strict=True)]
    return attrs.evolve(adapted, how=tuple(how))
