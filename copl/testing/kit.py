"""From a registered component to the checks of its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from copl.errors import OptionsError, suggest
from copl.plugins import KINDS, Registered
from copl.testing.adapter import check_adapter
from copl.testing.aligner import check_aligner
from copl.testing.backbone import check_backbone
from copl.testing.check import CheckResult, run_checks
from copl.testing.common import COMMON, Described
from copl.testing.encoder import check_encoder
from copl.testing.gate import check_gate
from copl.testing.generator import check_generator
from copl.testing.method import check_method
from copl.testing.metric import check_metric
from copl.testing.source import check_source

_BY_KIND: Mapping[str, Callable[[Described], list[CheckResult]]] = {
    "encoder": check_encoder,
    "gate": check_gate,
    "adapter": check_adapter,
    "method": check_method,
    "source": check_source,
    "backbone": check_backbone,
    "metric": check_metric,
    "generator": check_generator,
    "aligner": check_aligner,
}


def check_component(registered: Registered, kind: str, values: Mapping[str, object] | None = None) -> list[CheckResult]:
    """Check that a component keeps the promises of its kind.

    Args:
        registered: the component, as a `copl.plugins.Registry` returns it.
        kind: one of `copl.plugins.KINDS`.
        values: option values to check with, such as the required ones; defaults otherwise.

    Returns:
        What each check found. When the options are broken, the checks that would need them are left out.

    Raises:
        OptionsError: there is no such kind, or `values` do not fit the component's options.
    """
    if kind not in _BY_KIND:
        raise OptionsError(f"unknown kind {kind!r}{suggest(kind, KINDS)}; there are {', '.join(KINDS)}")
    subject = Described(registered.component, dict(values or {}))
    results = run_checks(COMMON, subject)
    if all(result.passed for result in results):
        results += _BY_KIND[kind](subject)
    return results
