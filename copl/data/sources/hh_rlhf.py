"""Source ``hh-rlhf``: helpful and harmless dialogues as two groups of users.

The data set does not say who judged what. The two parts follow opposite instructions, though, so each is taken for a
group, and its comparisons are dealt at random to users of that group.
"""

from __future__ import annotations

from typing import final

import attrs

from copl.data.making.judged import Judged, JudgedOptions
from copl.data.making.origin import Origin
from copl.data.making.splits import generator
from copl.data.reading.hub import Published, read_published
from copl.data.reading.texts import split_transcript, storable
from copl.errors import DataError
from copl.options import option
from copl.plugins import Component
from copl.records import PreferenceData

GROUPS = ("helpful", "harmless")

ORIGIN = Origin(
    "hh-rlhf",
    "MIT",
    "Bai et al., Training a Helpful and Harmless Assistant with RLHF, 2022 (arXiv 2204.05862)",
    "The parts helpful-base and harmless-base are two groups; the comparisons of each are dealt at random to users of "
    "that group. A transcript is cut before its last answer: what stands before is the prompt.",
)


@final
@attrs.frozen(kw_only=True)
class HhRlhfOptions(JudgedOptions):
    """Options of HH-RLHF."""

    comparisons_per_user: int = option(
        1000, help="comparisons dealt to a user; the data set itself names no users", validator=attrs.validators.ge(2)
    )


@final
class HhRlhfSource:
    """Reads both parts."""

    def __init__(self, options: HhRlhfOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read both parts, deal the comparisons to users and split them.

        Raises:
            DataError: the data set cannot be read or has another schema.
        """
        judged = Judged()
        groups: dict[str, str] = {}
        counts: dict[str, int] = {}
        for group in GROUPS:
            judgements = self._read(group, judged)
            counts[group] = len(judgements)
            num_users = max(round(len(judgements) / self._options.comparisons_per_user), 1)
            dealt = generator(seed, group).permutation(len(judgements)) % num_users
            for user, (prompt, chosen, rejected, test) in zip(dealt.tolist(), judgements, strict=True):
                name = f"{group}-{user:04d}"
                groups[name] = group
                judged.add(name, prompt, chosen, rejected, published_test=test)
        return judged.data(
            "hh-rlhf",
            self._options,
            ORIGIN,
            seed=seed,
            groups=groups,
            counts=counts,
            notes=["Users are made up: the data set does not say who judged what, only by which instruction."],
        )

    def _read(self, group: str, judged: Judged) -> list[tuple[str, str, str, bool]]:
        published = Published("Anthropic/hh-rlhf", directory=f"{group}-base")
        judgements = []
        for split in ("train", "test"):
            rows = read_published(published, self._options, columns=("chosen", "rejected"), split=split)
            for row in rows or ():
                sides = [split_transcript(storable(row[name])) for name in ("chosen", "rejected")]
                if sides[0] is None or sides[1] is None:
                    place = rows.place if rows else ""
                    raise DataError(f"{place}: expected transcripts of 'Human:' and 'Assistant:'; is this HH-RLHF?")
                if sides[0][0] != sides[1][0]:
                    judged.drop("whose two transcripts differ before the last answer")
                    continue
                judgements.append((sides[0][0], sides[0][1], sides[1][1], split == "test"))
        return judgements


COMPONENTS = [
    Component(
        "hh-rlhf",
        HhRlhfOptions,
        HhRlhfSource,
        "helpful and harmless dialogues, as two groups of users",
        reference=ORIGIN.citation,
    )
]
