"""The conformance kit in a process of its own: a component that ends its process, or hangs, is a finding, too."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from typing import Any, final

import attrs

from copl.plugins import load
from copl.system.documents import parse_document, to_json
from copl.testing.check import CheckResult, telling
from copl.testing.kit import check_component


@final
@attrs.frozen
class _Order:
    kind: str
    name: str
    values: Mapping[str, Any]


@final
@attrs.frozen
class _Line:
    """What the process says: a check begins, or, with an outcome, has ended; without a name, all is done."""

    name: str
    outcome: str = ""
    detail: str = ""


def check_apart(kind: str, name: str, values: Mapping[str, object], *, seconds: float) -> list[CheckResult]:
    """Check a component of the installed packages in a process of its own.

    Args:
        kind: its kind.
        name: its name.
        values: option values to check with.
        seconds: how long all checks together may take.
    """
    command = [sys.executable, "-m", "copl.testing.apart", to_json(_Order(kind, name, values))]
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, timeout=seconds, check=False)
        printed, end = done.stdout, f"the process ended with code {done.returncode} in the middle of this check"
    except subprocess.TimeoutExpired as expired:
        printed, end = expired.stdout or b"", f"no end within {seconds:g} seconds (--timeout)"
    return list(_results(printed, end))


def _results(printed: bytes, end: str) -> Iterator[CheckResult]:
    begun = "the plugin can be loaded"
    for text in printed.split(b"\n")[:-1]:  # a last line that was cut short does not count
        line = parse_document(text, _Line, where="conformance kit", advice="run it again")
        if not line.name:
            return
        begun = line.name
        if line.outcome:
            yield CheckResult(line.name, line.outcome, line.detail)  # type: ignore[arg-type]  # one that we wrote
    yield CheckResult(begun, "failed", end)


def main(order: str) -> None:
    """Serve one order and say what was found, a line a time."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what components print must not come between the answers

    def tell(line: _Line) -> None:
        answers.write(to_json(line) + "\n")
        answers.flush()

    def hear(name: str, result: CheckResult | None) -> None:
        tell(_Line(name) if result is None else _Line(name, result.outcome, result.detail))

    asked = parse_document(order, _Order, where="order", advice="")
    registered = load().registry(asked.kind).get(asked.name)
    with telling(hear):
        check_component(registered, asked.kind, asked.values)
    tell(_Line(""))


if __name__ == "__main__":
    main(sys.argv[1])
