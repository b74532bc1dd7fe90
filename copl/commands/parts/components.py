"""Components that a command line names outside a recipe: who writes candidates, and who decides what is shown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from copl.runs.recipe import Choice


def choose_components(names: Mapping[str, str], assignments: Sequence[str], faults: list[str]) -> dict[str, Choice]:
    """Return the component named for each kind, with the options set for it; what is wrong is added to the faults.

    Args:
        names: names by kind, such as ``aligner``.
        assignments: ``--set`` texts, ``kind.key=value``.
        faults: what is wrong is added here.
    """
    from copl.errors import OptionsError, suggest
    from copl.plugins import load
    from copl.runs.recipe import choose, parse_assignments

    try:
        values = parse_assignments(assignments)
    except OptionsError as error:
        faults += error.faults
        values = {}
    faults += [
        f"--set {section}: unknown section{suggest(section, names)}; there are {' and '.join(names)}"
        for section in values
        if section not in names
    ]
    chosen = {kind: choose(kind, {"name": name} | values.get(kind, {}), load(), faults) for kind, name in names.items()}
    return {kind: choice for kind, choice in chosen.items() if choice is not None}
