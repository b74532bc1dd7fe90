"""What a look at a data set yields."""

from __future__ import annotations

from typing import Literal, final

from attrs import frozen

Severity = Literal["error", "warning", "info"]


@final
@frozen
class Finding:
    """One thing found in a data set.

    Attributes:
        severity: ``error``: results would be wrong; ``warning``: they may mislead; ``info``: good to know.
        what: what was found.
        where: in which split, with an example.
        count: how often.
        advice: what to do.
    """

    severity: Severity
    what: str
    where: str
    count: int
    advice: str
