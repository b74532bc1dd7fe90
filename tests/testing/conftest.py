"""How the tests of the conformance kit run it over a toy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import attrs
import pytest

from copl.plugins import Component, Registered
from copl.testing import CheckResult, check_component


@attrs.frozen
class NoOptions:
    pass


@final
class Kit:
    """Runs the kit over toys and tells what it found."""

    @staticmethod
    def check(kind: str, build: Callable[..., Any], **about: Any) -> dict[str, CheckResult]:
        """Return the results by name for a component that differs from a plain one in `about`."""
        component = Component("toy", NoOptions, build, "A toy.", "by hand")
        results = check_component(Registered(attrs.evolve(component, **about), "toy-package", "1"), kind)
        return {result.name: result for result in results}

    @staticmethod
    def not_passed(results: dict[str, CheckResult]) -> set[str]:
        return {name for name, result in results.items() if result.outcome != "passed"}

    @staticmethod
    def caught(results: dict[str, CheckResult]) -> str:
        return " | ".join(result.detail for result in results.values() if result.outcome != "passed")


@pytest.fixture(scope="session")
def kit() -> Kit:
    return Kit()
