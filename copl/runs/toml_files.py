"""TOML files: recipes and studies."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from copl.data.reading.files import require_file
from copl.errors import OptionsError, of_json, of_system


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        OptionsError: the file is missing or is not TOML.
        DataError: it is a directory, a pipe or a device.
    """
    if not path.exists():
        raise OptionsError(f"{path}: no such file")
    require_file(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise OptionsError(f"{path}: not a readable TOML file: {error}") from error
    except (ValueError, RecursionError) as error:
        raise OptionsError(f"{path}: not a readable TOML file: {of_json(error)}") from error
    except OSError as error:
        raise OptionsError(of_system(error)) from error
