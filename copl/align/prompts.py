"""Files of prompts, and of candidates to prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from copl.data.canonical import ValueFaultError, canonical_text
from copl.data.chat import encode_prompt, messages_of
from copl.data.reading import values
from copl.data.reading.faults import Faults
from copl.data.reading.files import open_text, unpacked_name
from copl.data.reading.rows import RowReader
from copl.data.sources.tables import read_table

if TYPE_CHECKING:
    from copl.data.reading.table import Table
    from copl.data.requests import Tell

CANDIDATES = "candidates"
RESPONSE = "response"


def read_prompts(path: Path, tell: Tell) -> tuple[str, ...]:
    """Read prompts in the form of `copl.data.chat`: rows with ``prompt`` (text or chat messages), or lines of text.

    Args:
        path: a JSONL, CSV or Parquet file, or plain text (``.txt``) with a prompt a line; blank lines are none.
        tell: is told what a person should know of the file.

    Raises:
        DataError: the file cannot be read, there is no prompt, or one fault for each row that is wrong.
    """
    if unpacked_name(path).suffix.lower() == ".txt":
        return _lines(path)
    reader = RowReader(read_table(path), required=("prompt",))
    prompts = reader.text("prompt")
    reader.faults.raise_any()
    for note in reader.respelt():
        tell(note)
    return tuple(prompts.to_list())


def _lines(path: Path) -> tuple[str, ...]:
    faults, prompts = Faults(str(path)), []
    with open_text(path) as file:
        for number, raw in enumerate(file, start=1):
            try:
                text = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                if canonical_text(text):
                    prompts.append(str(values.prompt(text)))
            except UnicodeDecodeError:
                faults.add("not text in UTF-8", row=number, label=f"line {number}")
            except ValueFaultError as fault:
                faults.add(str(fault), row=number, label=f"line {number}")
    if not prompts and not len(faults):
        faults.add("there are no prompts")
    faults.raise_any()
    return tuple(prompts)


def read_candidates(path: Path) -> Mapping[str, tuple[str, ...]]:
    """Read candidates by prompt: rows of ``prompt`` and a list ``candidates``, or of ``prompt`` and ``response``.

    The candidates to a prompt are those of all its rows, in the order of the file, each once. So what `copl align`
    writes can be read again.

    Raises:
        DataError: the file cannot be read, or one fault for each row that is wrong.
    """
    table = read_table(path)
    listed = CANDIDATES in table.columns
    reader = RowReader(table, required=("prompt",) if listed else ("prompt", RESPONSE))
    prompts = reader.text("prompt").to_list()
    rows = _listed(table) if listed else [(text,) for text in reader.text(RESPONSE).to_list()]
    reader.faults.raise_any()
    candidates: dict[str, dict[str, None]] = {}
    for prompt, texts in zip(prompts, rows, strict=True):
        candidates.setdefault(prompt, {}).update(dict.fromkeys(texts))
    return {prompt: tuple(texts) for prompt, texts in candidates.items()}


def _listed(table: Table) -> list[tuple[str, ...]]:
    """Return the list of candidates of each row; what is wrong is added to the table's faults."""
    return [_row(table, place, value) for place, value in enumerate(table.values(CANDIDATES))]


def _row(table: Table, place: int, value: object) -> tuple[str, ...]:
    def fault(message: str) -> None:
        table.faults.add(f"{CANDIDATES}: {message}", row=int(table.rows[place]), label=table.label(place))

    texts = value
    if isinstance(value, str):  # a file that knows no lists has them as JSON
        try:
            texts = json.loads(value)
        except (ValueError, RecursionError):
            texts = None
    if not isinstance(texts, list) or not texts:
        fault("expected a list of texts, at least one")
        return ()
    read: list[str] = []
    for number, text in enumerate(texts, start=1):
        try:
            read.append(str(values.response(text)))
        except ValueFaultError as wrong:
            fault(f"{number}: {wrong}")
    return tuple(read)


def told_first(prompt: str, system: str) -> str:
    """Return a prompt before which the writer is told something, in the form of `copl.data.chat`.

    >>> told_first("Tea?", "Be brief.")
    '[{"role":"system","content":"Be brief."},{"role":"user","content":"Tea?"}]'
    >>> told_first("Tea?", "")
    'Tea?'
    """
    return encode_prompt([{"role": "system", "content": system}, *messages_of(prompt)]) if system else prompt
