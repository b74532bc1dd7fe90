"""Where a trained policy is kept: whole, unchanged, and that of the run, the settings and the user it lies under.

A policy is a finished stage (`copl.runs.stages`), so that damage to its files is found before it speaks.
"""

from __future__ import annotations

from pathlib import Path

from copl.align.policies.options import CARD
from copl.errors import RunError
from copl.runs.recipe import canonical_hash
from copl.runs.stages import STAGE_FILE, close_stage, verify_stage


def close_policy(directory: Path, place: Path) -> None:
    """Mark a directory as a finished policy that is to be kept at `place`."""
    name = _name(place)
    close_stage(directory, canonical_hash(name), {"policy": name})


def is_kept(place: Path) -> bool:
    """Return whether a policy is kept at `place`, after checking every file of it; one that is as it was is read once.

    Policies of before copl kept checksums of them are taken as they are.

    Raises:
        RunError: it is damaged, it is that of another run, of other settings or of another user, or something else is
            there.
    """
    if (place / STAGE_FILE).exists():
        if verify_stage(place).inputs.get("policy") != _name(place):
            raise RunError(
                f"{place}: the policy of another run, of other settings or of another user; delete it and run the same "
                "command again"
            )
        return True
    if not (place / CARD).is_file() and place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise RunError(f"{place}: no whole policy (it has no {CARD}); delete it and run the same command again")
    return (place / CARD).is_file()


def _name(place: Path) -> str:
    """Return what is above and of a place below the run: which fitted run, which settings, whose."""
    return "/".join(place.parts[-3:])
