"""All that users say as one list of words, comparisons and judgements in the order in which they were said.

Of what is said again of the same the last counts, whatever kind it is of: that needs all of it side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from copl.records.dataset import ComparisonSet, with_implied
from copl.records.judgements import COMPARISON, Judgements, last_said
from copl.records.tables import Comparisons, ResponseTable, UserTable

if TYPE_CHECKING:
    from torch import Tensor


def words_of(said: ComparisonSet) -> Judgements:
    """Return all that is said in the columns of judgements: comparisons, the chosen response first, then the rest."""
    return Judgements.concat([as_words(said.given), said.judgements])


def as_words(rows: Comparisons) -> Judgements:
    """Return comparisons in the columns of judgements, the chosen response first."""
    kind, value = np.full(len(rows), COMPARISON), np.zeros(len(rows))
    return Judgements(kind, rows.user, rows.chosen, rows.rejected, value, rows.weight, rows.time)


def of_words(
    users: UserTable, responses: ResponseTable, words: Judgements, features: Tensor | None = None
) -> ComparisonSet:
    """Return what users say in force, with what judgements imply: of what is said again of the same the last counts.

    Args:
        users: the users referred to.
        responses: the responses referred to.
        words: comparisons and judgements as `words_of`, in the order in which they were said.
        features: frozen features of the responses' texts [R, F], where somebody has read them.
    """
    words = words.take(last_said(words.subjects, words.time))
    compared = words.kind == COMPARISON
    own = words.take(compared)
    given = Comparisons(own.user, own.response, own.other, own.weight, time=own.time)
    return with_implied(users, responses, given, words.take(~compared), features)


def joined(parts: Sequence[ComparisonSet]) -> ComparisonSet:
    """Return what one user says in several sets, at least one, as one set, in their order."""
    import torch

    prompts: list[str] = []
    texts: list[str] = []
    words = []
    nobody_else = np.zeros(1, dtype=np.int64)
    for said in parts:
        rows = np.arange(len(texts), len(texts) + len(said.responses))
        words.append(words_of(said).renumbered(nobody_else, rows))
        prompts += said.responses.prompts
        texts += said.responses.texts
    first: dict[tuple[str, str], int] = {}
    pairs = enumerate(zip(prompts, texts, strict=True))
    same = np.array([first.setdefault(pair, row) for row, pair in pairs], dtype=np.int64)
    features = [said.features for said in parts if said.features is not None]
    whole = torch.cat(features) if len(features) == len(parts) else None
    everything = Judgements.concat(words).renumbered(nobody_else, same)
    return of_words(parts[0].users, ResponseTable(prompts, texts), everything, whole)


def in_force(said: ComparisonSet) -> ComparisonSet:
    """Return what is said without what the same user says again of the same, see `of_words`."""
    return of_words(said.users, said.responses, words_of(said), said.features)
