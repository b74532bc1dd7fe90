"""Modules that have moved, under their former names, for packages that were written against them."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import spec_from_loader
from typing import TYPE_CHECKING, final

if TYPE_CHECKING:
    from importlib.abc import Loader, MetaPathFinder
    from importlib.machinery import ModuleSpec
    from types import ModuleType
else:
    Loader = MetaPathFinder = object  # for types only: their module is most of what `import copl` would import

MOVED = {
    **{f"copl.{name}": f"copl.records.{name}" for name in
       ("answers", "evidence", "explanation", "judgements", "memory", "passes", "tables")},
    "copl.expert_gate": "copl.interfaces.gate",
}  # fmt: skip
"""What packages may have imported, and where it is now."""


@final
class _FormerName(Loader):
    def create_module(self, spec: ModuleSpec) -> None:
        """Leave it to Python to make an empty module."""

    def exec_module(self, module: ModuleType) -> None:
        """Put the module itself in the place of the empty one that was made for its former name."""
        name = module.__name__
        warnings.warn(f"{name} is {MOVED[name]} now: import it from there", DeprecationWarning, stacklevel=2)
        sys.modules[name] = import_module(MOVED[name])


@final
class FormerNames(MetaPathFinder):
    """Finds a module by the name that it had, with a `DeprecationWarning`."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return where a module is that has moved; None for all others."""
        return spec_from_loader(fullname, _FormerName()) if fullname in MOVED else None
