"""Data sets of comparisons that people made: published rows in, users, responses and splits out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, final

import attrs
import numpy as np

from copl.data.canonical import canonical_id, canonical_text
from copl.data.chat import encode_prompt
from copl.data.making.notes import Note, left_out
from copl.data.making.origin import Origin
from copl.data.making.splits import ComparisonSplitOptions, make_splits
from copl.data.pairs import compact, intern_responses, intern_users, repeats
from copl.data.reading.hub import PublishedOptions
from copl.errors import DataError
from copl.options import option
from copl.records import Comparisons, ComparisonSet, PreferenceData, UserTable

if TYPE_CHECKING:
    from copl.records import BoolArray, IntArray, ResponseTable


@attrs.frozen(kw_only=True)
class JudgedOptions(ComparisonSplitOptions, PublishedOptions):
    """Options of a published data set of comparisons by people."""

    min_comparisons: int = option(
        2, help="leave out users with fewer comparisons: nothing is learnt of them", validator=attrs.validators.ge(1)
    )


@final
class Judged:
    """Collects comparisons row by row."""

    def __init__(self) -> None:
        self.users: list[str] = []
        self.prompts: list[str] = []
        self.chosen: list[str] = []
        self.rejected: list[str] = []
        self.published_test: list[bool] = []
        self.left_out: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self.users)

    def drop(self, reason: str, count: int = 1) -> None:
        """Count rows that are left out."""
        self.left_out[reason] = self.left_out.get(reason, 0) + count

    def add(self, user: str, prompt: str, chosen: str, rejected: str, *, published_test: bool = False) -> bool:
        """Add a comparison, its texts in their one form, unless one is empty or both are the same; return whether."""
        user, prompt, chosen, rejected = (
            canonical_id(user), encode_prompt(prompt), canonical_text(chosen), canonical_text(rejected)
        )  # fmt: skip
        if not (prompt and chosen and rejected):
            self.drop("with an empty text")
        elif chosen == rejected:
            self.drop("between equal texts")
        else:
            for column, value in zip(
                (self.users, self.prompts, self.chosen, self.rejected), (user, prompt, chosen, rejected), strict=True
            ):
                column.append(value)
            self.published_test.append(published_test)
            return True
        return False

    def data(
        self,
        name: str,
        options: JudgedOptions,
        origin: Origin,
        *,
        seed: int,
        groups: Mapping[str, str] | None = None,
        counts: Mapping[str, int],
        notes: Sequence[Note] = (),
        **more: object,
    ) -> PreferenceData:
        """Split the comparisons and put the data set together.

        Comparisons of the published test part are never trained on: those on prompts that the training part does not
        have are split ``cold``, the others are left out.

        Args:
            name: short name of the data set.
            options: how to split.
            origin: where the data comes from.
            seed: the same seed gives the same splits.
            groups: group of each user id.
            counts: what was counted on the way.
            notes: findings in words.
            more: further entries of the provenance.

        Raises:
            DataError: nothing is left.
        """
        if not len(self):
            raise DataError(f"{origin.source}: no comparison is left of what was read; is this a copy of the data set?")
        ids, user = intern_users(self.users)
        responses, chosen, rejected = intern_responses(self.prompts, self.chosen, self.rejected)
        comparisons = Comparisons(user, chosen, rejected)
        cold, stale = self._cold(responses, chosen)
        keep = ~repeats(comparisons)
        self.drop("repeated by the same user", int((~keep).sum()))
        self.drop("in the published test part, on a prompt of the training part", int((keep & stale).sum()))
        keep &= ~stale
        few = np.bincount(user[keep], minlength=len(ids)) < options.min_comparisons
        self.drop("by users with too few", int((keep & few[user]).sum()))
        keep &= ~few[user]
        table = UserTable(ids, [groups.get(one) if groups else None for one in ids])
        split = make_splits(ComparisonSet(table, responses, comparisons.take(keep)), options, seed=seed, cold=cold)
        users, kept_responses, splits = compact(table, responses, split.splits)
        provenance = origin.provenance(
            options,
            seed=seed,
            split=options.strategy,
            counts={**counts, "kept": sum(map(len, splits.values()))},
            notes=[*notes, *left_out(self.left_out, "comparisons"), *split.notes],
            **more,
        )
        return PreferenceData(name, users, kept_responses, splits, provenance)

    def _cold(self, responses: ResponseTable, chosen: IntArray) -> tuple[BoolArray | None, BoolArray]:
        """Return which responses are cold, None where no test part was published, and which comparisons are stale."""
        test = np.array(self.published_test, dtype=np.bool_)
        if not test.any() or test.all():
            return None, np.zeros(len(test), dtype=np.bool_)
        trained = {prompt for prompt, held in zip(self.prompts, self.published_test, strict=True) if not held}
        cold = np.array([prompt not in trained for prompt in responses.prompts], dtype=np.bool_)
        return cold, test & ~cold[chosen]
