"""Checks of backbones."""

from __future__ import annotations

from typing import Any, final

import attrs

from copl.errors import BackboneError
from copl.testing.check import Check, CheckResult, CheckSkipped, global_randomness_untouched, require, run_checks
from copl.testing.common import Described


@final
@attrs.frozen(eq=False)
class _Subject:
    described: Described

    def build(self) -> Any:
        return self.described.component.build(self.described.options())


def fingerprint_is_stable(subject: _Subject) -> None:
    """fingerprint is the same text each time"""
    try:
        first, second = subject.build().fingerprint(), subject.build().fingerprint()
    except BackboneError as error:
        raise CheckSkipped(str(error)) from error
    require(isinstance(first, str) and bool(first), f"the fingerprint is {first!r}; it must be a text")
    require(first == second, f"the fingerprint changes from {first!r} to {second!r}")


def loads(subject: _Subject) -> None:
    """load gives a model and touches no global random state"""
    try:
        with global_randomness_untouched():
            loaded = subject.build().load()
    except BackboneError as error:
        raise CheckSkipped(str(error)) from error
    require(loaded is not None, "load gave nothing")


_CHECKS: list[Check[_Subject]] = [fingerprint_is_stable, loads]


def check_backbone(described: Described) -> list[CheckResult]:
    """Check a backbone; loading is skipped where its weights are not on this machine."""
    return run_checks(_CHECKS, _Subject(described))
