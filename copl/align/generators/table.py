"""Generator ``table``: candidates from a file, whoever wrote them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, final

import attrs

from copl.align.prompts import read_candidates
from copl.data.reading.faults import Faults
from copl.data.reading.files import require_file
from copl.errors import quoted, suggest
from copl.options import option
from copl.plugins import Component
from copl.system.files import sha256

if TYPE_CHECKING:
    from copl.interfaces import Progress


@final
@attrs.frozen
class TableOptions:
    """Options of the generator for candidates that are there."""

    path: Path = option(
        help="JSONL, CSV or Parquet rows of prompt and candidates (a list), or of prompt and response, such as a file"
        " of `copl align`"
    )


@final
class TableGenerator:
    """Gives the candidates that a file has for a prompt, in the order of the file, as many as it has."""

    def __init__(self, options: TableOptions) -> None:
        self._options = options

    @property
    def follows_prompts(self) -> bool:
        return False

    def fingerprint(self) -> str:
        """Return a hash of the file.

        Raises:
            DataError: there is none.
        """
        require_file(self._options.path)
        return f"table:{sha256(self._options.path)}"

    def candidates(self, prompts: Sequence[str], *, num: int, seed: int, progress: Progress) -> list[tuple[str, ...]]:
        """Look the candidates up.

        Raises:
            DataError: the file cannot be read, or has none for a prompt, one fault each.
        """
        self.check(prompts)
        return [self._table[prompt][:num] for prompt in prompts]

    def check(self, prompts: Sequence[str]) -> None:
        """Look whether there are candidates to all prompts.

        Raises:
            DataError: the file cannot be read, or has none for a prompt, one fault each.
        """
        faults = Faults(str(self._options.path))
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._table:
                faults.add(f"no candidates to the prompt {quoted(prompt)}{suggest(prompt, self._table)}")
        faults.raise_any()

    @cached_property
    def _table(self) -> Mapping[str, tuple[str, ...]]:
        return read_candidates(self._options.path)


COMPONENTS = [
    Component(
        name="table",
        options=TableOptions,
        build=TableGenerator,
        summary="candidates from a file, whoever wrote them",
    )
]
