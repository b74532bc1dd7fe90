"""TRL, which comes with the extra ``copl[align]``."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from copl.errors import CoplError


def trl() -> Any:
    """Return the package `trl`, with `datasets` beside it.

    Raises:
        CoplError: it is not installed.
    """
    try:
        import_module("datasets")
        return import_module("trl")
    except ImportError as error:
        missing = error.name or "trl"
        raise CoplError(
            f"training a policy needs {missing}, which is not installed: pip install 'copl[align]'"
        ) from error
