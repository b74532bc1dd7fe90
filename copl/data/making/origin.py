"""Where a data set comes from and how it was made, kept with it as its provenance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import final

import attrs

from copl.data.making.notes import Note, noted
from copl.data.making.splits import SPLIT_VERSION
from copl.options import options_to_dict

LICENCE_HELP = "licence of the data, kept with the data set"
ATTRIBUTION_HELP = "whom to name as the origin of the data, kept with the data set"
"""Help of the options of sources whose data may be anybody's."""


@final
@attrs.frozen
class Origin:
    """What a source tells about its data.

    Attributes:
        source: name of the source.
        licence: licence of the data; where parts differ, which part has which.
        citation: whom to cite or name.
        construction: how comparisons come out of the published data, in a few sentences.
    """

    source: str
    licence: str
    citation: str
    construction: str

    def provenance(
        self,
        options: object,
        *,
        seed: int,
        split: str,
        counts: Mapping[str, int],
        notes: Sequence[Note],
        **more: object,
    ) -> dict[str, object]:
        """Return the provenance of a data set.

        Args:
            options: the options it was made with.
            seed: the seed it was made with.
            split: what the splits guarantee: ``pair``, ``response`` or ``given``, see `copl.data.making.splits`.
            counts: what was counted on the way.
            notes: findings in words, and what was left out.
            more: further entries, plain JSON values.
        """
        return {
            "source": self.source,
            "options": options_to_dict(options),
            "seed": seed,
            "licence": self.licence,
            "attribution": self.citation,
            "construction": self.construction,
            "counts": dict(counts),
            **noted({}, notes),
            "split": split,
            "split_version": SPLIT_VERSION,
            **more,
        }


def finding(severity: str, what: str, where: str, count: int, advice: str) -> dict[str, object]:
    """Return a finding for the provenance entry ``findings``, which `copl.data.checking.checks` reports with its own.

    Args:
        severity: ``error``, ``warning`` or ``info``.
        what: what was found.
        where: where, with an example.
        count: how often.
        advice: what was done, or is to be done, about it.
    """
    return {"severity": severity, "what": what, "where": where, "count": count, "advice": advice}
