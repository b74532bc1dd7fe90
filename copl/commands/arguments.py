"""Options that several commands share; each help text is written here once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer


def _from_0(seed: int | None) -> int | None:
    from copl.errors import OptionsError

    if seed is not None and seed < 0:
        raise OptionsError(f"--seed {seed}: a seed is a whole number from 0")
    return seed


JSON_OPTION: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON for a script.")]
SEED_OPTION: TypeAlias = Annotated[
    int | None,
    typer.Option(
        "--seed", callback=_from_0, help="The same seed gives the same result. [default: that of the recipe, else 0]"
    ),
]
RUN_ARGUMENT: TypeAlias = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory made by `copl train`.")]
CONFIG_OPTION: TypeAlias = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="Recipe in TOML; flags win over it.")
]
SET_OPTION: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="STAGE.KEY=VALUE", help="An option of a stage; may be repeated."),
]
COMPONENT_SET_OPTION: TypeAlias = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="An option of the component; may be repeated."),
]
METHOD_OPTION: TypeAlias = Annotated[str | None, typer.Option("--method", help="Whole method: copl, btl, graph, …")]
ENCODER_OPTION: TypeAlias = Annotated[str | None, typer.Option("--encoder", help="Graph encoder.")]
GATE_OPTION: TypeAlias = Annotated[str | None, typer.Option("--gate", help="Gate of the experts.")]
ADAPTER_OPTION: TypeAlias = Annotated[
    str | None, typer.Option("--adapter", help="Adaptation strategy for unseen users.")
]
BACKBONE_OPTION: TypeAlias = Annotated[
    str | None,
    typer.Option("--backbone", help="Backbone by name, or any Hugging Face id or local path of a transformer."),
]
NO_CACHE_OPTION: TypeAlias = Annotated[
    bool, typer.Option("--no-cache", help="Neither use nor fill the cache that runs share.")
]


def component_values(assignments: Sequence[str] | None) -> dict[str, str]:
    """Return the option values of one component, given as ``key=value`` texts.

    Raises:
        OptionsError: one fault for each text of another form.
    """
    from copl.errors import OptionsError

    parts = [text.partition("=") for text in assignments or []]
    faults = [f"--set {key}: expected key=value, such as path=votes/" for key, equals, _ in parts if not equals]
    if faults:
        raise OptionsError(faults)
    return {key.strip(): value.strip() for key, _, value in parts}
