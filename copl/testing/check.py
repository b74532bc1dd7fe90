"""What a check is: a function with a one-line docstring that returns when all is well and raises otherwise."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Generic, Literal, TypeVar, final

import attrs
import numpy as np
import torch

from copl.system.foreign import describe

S = TypeVar("S")
T = TypeVar("T")
Check = Callable[[S], None]
Outcome = Literal["passed", "failed", "warning", "skipped"]


class CheckFailure(Exception):  # noqa: N818  # a finding about somebody's component, not an error of this program
    """The component breaks a promise; the message says which and how to keep it."""


@final
class CheckWarning(CheckFailure):
    """The component keeps its promises but something about it deserves a look."""


@final
class CheckSkipped(CheckFailure):
    """The check could not be made here."""


@final
@attrs.frozen
class CheckResult:
    """What one check found.

    Attributes:
        name: what was checked, in words.
        outcome: ``passed``, ``failed``, ``warning`` (worth a look) or ``skipped`` (could not be checked here).
        detail: why, where it did not simply pass.
    """

    name: str
    outcome: Outcome
    detail: str = ""

    @property
    def passed(self) -> bool:
        """False when a promise is broken; warnings and skipped checks do not count as broken."""
        return self.outcome != "failed"

    def __str__(self) -> str:
        return self.name


def require(condition: bool, message: str) -> None:
    """Raise `CheckFailure` with `message` unless `condition` holds."""
    if not condition:
        raise CheckFailure(message)


@final
class Once(Generic[T]):
    """Something expensive that several checks look at; when it cannot be made, only the first of them fails."""

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self._why_not = ""

    def get(self) -> T:
        """Return it, making it on the first call.

        Raises:
            CheckSkipped: an earlier call failed.
        """
        if self._why_not:
            raise CheckSkipped(self._why_not)
        if not self._made:
            try:
                self._made.append(self._make())
            except BaseException as error:
                self._why_not = str(error) if isinstance(error, CheckSkipped) else "cannot be checked, see above"
                raise
        return self._made[0]


Listener = Callable[[str, "CheckResult | None"], None]
"""Told of each check twice: when it begins, and with its result."""

_listener: ContextVar[Listener] = ContextVar("_listener", default=lambda name, result: None)


@contextmanager
def telling(listener: Listener) -> Iterator[None]:
    """Tell of the checks of the block as they are made."""
    token = _listener.set(listener)
    try:
        yield
    finally:
        _listener.reset(token)


def run_checks(checks: Sequence[Check[S]], subject: S) -> list[CheckResult]:
    """Run all checks on one subject; an exception of any kind is a finding, never the end of the run."""
    results: list[CheckResult] = []
    for check in checks:
        name = (check.__doc__ or check.__name__).strip().splitlines()[0].rstrip(".")
        _listener.get()(name, None)
        results.append(_run(name, check, subject))
        _listener.get()(name, results[-1])
    return results


def _run(name: str, check: Check[S], subject: S) -> CheckResult:
    try:
        check(subject)
    except CheckWarning as finding:
        return CheckResult(name, "warning", str(finding))
    except CheckSkipped as finding:
        return CheckResult(name, "skipped", str(finding))
    except CheckFailure as finding:
        return CheckResult(name, "failed", str(finding))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001  # whatever a foreign component raises is the finding
        return CheckResult(name, "failed", f"raised {describe(error)}{_where(error)}")
    return CheckResult(name, "passed")


def _where(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f" ({trace.tb_frame.f_code.co_filename}:{trace.tb_lineno})" if trace is not None else ""


_UNLIKELY_SEED = 848_151_623


def _random_states() -> list[bytes]:
    numpy_state: object = np.random.get_state()  # noqa: NPY002  # the global state is what is watched
    return [torch.get_rng_state().numpy().tobytes(), repr(numpy_state).encode(), repr(random.getstate()).encode()]


@contextmanager
def global_randomness_untouched() -> Iterator[None]:
    """Fail when the code inside draws from, or seeds, the global generators of torch, NumPy or Python."""
    python, numpy_state = random.getstate(), np.random.get_state()  # noqa: NPY002  # put back below
    with torch.random.fork_rng(devices=[]):
        random.seed(_UNLIKELY_SEED)
        np.random.seed(_UNLIKELY_SEED)  # noqa: NPY002  # so that seeding shows, even with what was seeded before
        torch.manual_seed(_UNLIKELY_SEED)
        before = _random_states()
        try:
            yield
            after = _random_states()
        finally:
            random.setstate(python)
            np.random.set_state(numpy_state)  # noqa: NPY002
    touched = [n for n, old, new in zip(("torch", "numpy", "random"), before, after, strict=True) if old != new]
    require(
        not touched,
        f"the global random state of {', '.join(touched)} was changed; draw from a generator of your own made from "
        "the seed, or wrap what cannot take one in torch.random.fork_rng()",
    )


def fingerprint_of(value: Any) -> Any:
    """Return something equal exactly when the arrays and tensors inside an attrs record are."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray):
        return (value.dtype.str, value.shape, value.tobytes())
    if attrs.has(type(value)):
        return tuple(fingerprint_of(getattr(value, field.name)) for field in attrs.fields(type(value)))
    if isinstance(value, dict):
        return {key: fingerprint_of(inner) for key, inner in value.items()}
    if isinstance(value, tuple | list):
        return tuple(fingerprint_of(inner) for inner in value)
    return value
