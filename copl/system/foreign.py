"""Code of others, run so that it takes nothing with it: whatever it does to end the program becomes an error."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from copl.errors import CoplError, one_line

PATIENCE = 120.0
"""Seconds that code of others may take before it is given up."""


class ForeignCodeError(Exception):
    """Code of others failed; the text says how, on one line."""


@contextmanager
def contained(seconds: float | None = None) -> Iterator[None]:
    """Run the block, which is code of others.

    Errors of any kind, an attempt to end the program and, in the main thread, a hang become a `ForeignCodeError`; an
    interrupt by a person does not. What the code prints goes to standard error, where it is in no script's way.

    Args:
        seconds: how long it may take; `PATIENCE` unless given.

    Raises:
        ForeignCodeError: it failed.
    """
    try:
        with _alarm(PATIENCE if seconds is None else seconds), _no_exit(), contextlib.redirect_stdout(sys.stderr):
            yield
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise ForeignCodeError(describe(error)) from error


def describe(error: BaseException) -> str:
    """Return kind and text of an error on one line, even where the text itself is an error; of ours the text alone."""
    try:
        text = " ".join(str(error).split())
    except KeyboardInterrupt:
        raise
    except BaseException:  # noqa: BLE001  # a class of somebody else's may raise anything
        text = ""
    if text and isinstance(error, CoplError | ForeignCodeError):
        return text
    return one_line(f"{type(error).__name__}: {text}" if text else type(error).__name__)


@contextmanager
def _no_exit() -> Iterator[None]:
    def refuse(status: int) -> NoReturn:
        raise SystemExit(f"os._exit({status!r})")

    own = os._exit
    os._exit = refuse
    try:
        yield
    finally:
        os._exit = own


@contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def ring(*_: object) -> NoReturn:
        raise TimeoutError(f"no end within {seconds:g} seconds")

    before = signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
