"""TOML files: recipes and studies."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from copl.errors import OptionsError, of_json, of_system


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        OptionsError: the file is missing or is not TOML.
    """
    if not path.is_file():  # a pipe would keep a reader waiting, a device might never end
        what = "a directory" if path.is_dir() else "a pipe or a device"
        raise OptionsError(f"{path}: is {what}; name a file" if path.exists() else f"{path}: no such file")
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise OptionsError(f"{path}: not a readable TOML file: {error}") from error
    except (ValueError, RecursionError) as error:
        raise OptionsError(f"{path}: not a readable TOML file: {of_json(error)}") from error
    except OSError as error:
        raise OptionsError(of_system(error)) from error
