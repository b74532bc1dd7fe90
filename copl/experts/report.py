"""What a gate does with a set of users: usage, entropy, and a finding in words when it has collapsed."""

from __future__ import annotations

from typing import TYPE_CHECKING, final

import attrs
import numpy as np

if TYPE_CHECKING:
    from copl.records import FloatArray

_COLLAPSED_SHARE = 0.9
_SAME_WEIGHTS = 1e-3
_USED_SHARE = 0.01


@final
@attrs.frozen(eq=False)
class GateReport:
    """How a gate uses its experts.

    Attributes:
        usage: share of the users whose heaviest expert this is [M]; an expert tied for first counts as the first tied.
        load: share of all weight that goes to each expert [M].
        entropy: entropy of `usage` over log M: 0 when all users have one expert, 1 when they are spread evenly.
        finding: what is wrong where the gate has collapsed, None where it has not.
    """

    usage: FloatArray
    load: FloatArray
    entropy: float
    finding: str | None

    @property
    def sentence(self) -> str:
        """The finding, or else how many experts are used, as a sentence."""
        used = int((self.load > _USED_SHARE).sum())
        text = self.finding or f"the gate uses {used} of {len(self.load)} experts for more than 1 % of its weight"
        return f"{text[0].upper()}{text[1:]}."


def gate_report(weights: object) -> GateReport:
    """Describe gate weights [U, M] of U users.

    A gate is called collapsed when more than 90 % of the users share their heaviest expert, when all users have the
    same weights to within a thousandth, or when there is no weight at all.
    """
    table = np.asarray(weights, dtype=np.float64)
    num_users, num_experts = table.shape
    if num_users == 0 or num_experts == 0:
        return GateReport(np.zeros(num_experts), np.zeros(num_experts), 0.0, None)
    usage = np.bincount(table.argmax(axis=1), minlength=num_experts) / num_users
    total = table.sum()
    load = table.sum(axis=0) / total if total > 0 else np.zeros(num_experts)
    used = usage[usage > 0]
    entropy = float(-(used * np.log(used)).sum() / np.log(num_experts)) if num_experts > 1 else 0.0
    return GateReport(usage, load, max(entropy, 0.0), _finding(table, usage))


def _finding(table: FloatArray, usage: FloatArray) -> str | None:
    num_users, num_experts = table.shape
    if not table.any():
        return "the gate gives no weight to any expert: only the shared one is at work"
    if num_users < 2 or num_experts < 2:
        return None
    if np.ptp(table, axis=0).max() < _SAME_WEIGHTS:
        return f"the gate does not tell users apart: all {num_users} have the same weights on {num_experts} experts"
    top = int(usage.argmax())
    if usage[top] > _COLLAPSED_SHARE:
        return (
            f"the gate has collapsed: {usage[top]:.0%} of {num_users} users go to expert {top + 1} of {num_experts}; "
            "a load-balancing loss (balance) or fewer experts may help"
        )
    return None
