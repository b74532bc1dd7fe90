"""`copl`: collaborative preference learning.

Learns what each user prefers from a few comparisons per user, and scores any response for any user.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from copl.system.moved import FormerNames

if TYPE_CHECKING:
    from copl.model import Model
    from copl.plugins import Component

__version__ = "0.2.0"
__all__ = ["Component", "Model", "__version__"]

_LAZY = {"Model": "copl.model", "Component": "copl.plugins"}
if not any(isinstance(finder, FormerNames) for finder in sys.meta_path):
    sys.meta_path.insert(0, FormerNames())


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `import copl` stays light."""
    if name not in _LAZY:
        raise AttributeError(f"module 'copl' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
