"""Checkpoints of TRL's trainer, of which only whole ones of the same training are gone on from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

from attrs import frozen

from copl.errors import RunError
from copl.system.documents import read_document, write_document
from copl.system.files import sha256

_MARK = "whole.json"


@final
@frozen
class _Mark:
    key: str
    files: Mapping[str, str]


@final
class Checkpoints:
    """What a trainer keeps while it trains.

    A checkpoint that the trainer has written is marked with checksums of its files. The trainer of transformers reads
    tensors and plain values of it alone (``weights_only``).

    Args:
        directory: where they lie; other trainings write elsewhere.
        key: a text for the training; checkpoints of another one are removed.
    """

    def __init__(self, directory: Path, key: str) -> None:
        self.directory = directory
        self._key = key

    def last(self) -> str | None:
        """Return the last whole checkpoint, None where there is none; what is none, or of another key, is removed."""
        whole: dict[int, Path] = {}
        for place in self.directory.glob("checkpoint-*"):
            number = place.name.removeprefix("checkpoint-")
            if number.isdigit() and self._is_whole(place):
                whole[int(number)] = place
            else:
                shutil.rmtree(place)
        return str(whole[max(whole)]) if whole else None

    def _is_whole(self, place: Path) -> bool:
        try:
            mark = read_document(place / _MARK, _Mark, advice="")
        except RunError:
            return False
        return mark.key == self._key and mark.files == _checksums(place)

    def marking(self) -> Any:
        """Return a callback that marks each checkpoint once it is whole."""
        from transformers import TrainerCallback

        key = self._key

        class Marking(TrainerCallback):  # type: ignore[misc]
            """Marks checkpoints and nothing else."""

            def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                place = Path(args.output_dir) / f"checkpoint-{state.global_step}"
                write_document(place / _MARK, _Mark(key, _checksums(place)))

        return Marking()

    def clear(self) -> None:
        """Remove all of them."""
        shutil.rmtree(self.directory, ignore_errors=True)


def _checksums(place: Path) -> dict[str, str]:
    return {path.name: sha256(path) for path in sorted(place.iterdir()) if path.is_file() and path.name != _MARK}
