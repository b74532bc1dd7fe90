"""torch_geometric and pyg-lib: imported when first needed, probed once.

Importing torch_geometric takes seconds, so no module of this package does it at its top.
"""

from __future__ import annotations

import warnings
from functools import cache
from importlib.util import find_spec
from typing import Any

import torch

from copl.errors import OptionsError


@cache
def geometric() -> Any:
    """Return the package torch_geometric with its parts ``data``, ``loader`` and ``nn`` imported."""
    with warnings.catch_warnings():  # importing the package warns of what it does itself
        warnings.simplefilter("ignore")
        import torch_geometric
        import torch_geometric.data
        import torch_geometric.loader
        import torch_geometric.nn
    return torch_geometric


@cache
def pyg_lib_available() -> bool:
    """Return whether pyg-lib, which samples neighbourhoods, is installed and loads."""
    return find_spec("pyg_lib") is not None and bool(geometric().typing.WITH_PYG_LIB)


def pyg_lib_install_command() -> str:
    """Return the official command that installs pyg-lib for the torch of this environment."""
    major, minor = torch.__version__.split(".")[:2]
    build = "cpu" if torch.version.cuda is None else "cu" + torch.version.cuda.replace(".", "")
    return f"pip install pyg-lib -f https://data.pyg.org/whl/torch-{major}.{minor}.0+{build}.html"


def require_pyg_lib(where: str) -> None:
    """Refuse an option that needs pyg-lib where it is missing.

    Args:
        where: the option and its value, for the message.

    Raises:
        OptionsError: pyg-lib is not here; the message names the command that installs it.
    """
    if not pyg_lib_available():
        raise OptionsError(
            f"{where} needs pyg-lib, which cannot be imported here; install it with `{pyg_lib_install_command()}`, or "
            "choose sampling = users (parts of the graph, user by user) or sampling = full"
        )
