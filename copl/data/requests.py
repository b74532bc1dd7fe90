"""Rows to be scored: ``user_id``, ``prompt`` and ``response`` in, the same with a ``reward`` out."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet

from copl.data.chat import decode_prompt
from copl.data.dataset import load_dataset
from copl.data.pairs import intern_responses, intern_users
from copl.data.reading.columns import NOTHING, encode_together, first_places
from copl.data.reading.files import SHOWN
from copl.data.reading.rows import RowReader
from copl.data.sources.tables import read_comparisons, read_table
from copl.errors import DataError, suggest
from copl.records import ComparisonSet, FloatArray, ScoreRequests, UserTable
from copl.system.files import write_atomically

if TYPE_CHECKING:
    from copl.records import BoolArray

_ENDINGS = (".jsonl", ".csv", ".parquet")

_PART = 100_000
"""Rows that are written at a time."""

_SCORED = pa.schema(
    [
        ("user_id", pa.large_string()),
        ("prompt", pa.large_string()),
        ("response", pa.large_string()),
        ("reward", pa.float64()),
        ("user_known", pa.bool_()),
    ]
)


def read_score_rows(path: Path) -> ScoreRequests:
    """Read rows of ``user_id``, ``prompt`` (text or chat messages) and ``response``.

    Raises:
        DataError: the file cannot be read, or one fault for each row that is wrong.
    """
    reader = RowReader(read_table(path), required=("user_id", "prompt", "response"))
    user, prompt, response = (reader.text(name) for name in ("user_id", "prompt", "response"))
    reader.faults.raise_any()
    ids, user_row = intern_users(user)
    responses, response_row, _ = intern_responses(prompt, response, response)
    return ScoreRequests(UserTable.ungrouped(ids), responses, user_row, response_row)


def read_support(path: Path) -> ComparisonSet:
    """Read the comparisons of newcomers: a file of rows, or the split ``support`` of a data set's directory.

    Raises:
        DataError: there is nothing to read, or one fault for each row that is wrong.
    """
    if not path.is_dir():
        return read_comparisons(path)
    support = load_dataset(path).split("support")
    if not len(support):
        raise DataError(f"{path}: the data set has no comparisons of unseen users (split 'support' is empty)")
    return support


def read_candidates(path: Path) -> list[tuple[str | list[dict[str, str]], str, str]]:
    """Read what a user may be asked: rows of ``prompt`` (text or chat messages), ``first`` and ``second`` response.

    Raises:
        DataError: the file cannot be read, or one fault for each row that is wrong.
    """
    reader = RowReader(read_table(path), required=("prompt", "first", "second"))
    prompt = reader.text("prompt")
    first, second = encode_together([reader.text("first"), reader.text("second")])
    same = np.flatnonzero((first.codes == second.codes) & (first.codes != NOTHING))
    reader.report("second", same, "the same text as first; a question needs two different responses")
    reader.faults.raise_any()
    texts = zip(*([column.values[code] for code in column.codes] for column in (prompt, first, second)), strict=True)
    return [(decode_prompt(asked), one, other) for asked, one, other in texts]


def check_score_target(path: Path) -> None:
    """Refuse a file ending that scores cannot be written in, before anything is computed.

    Raises:
        DataError: the ending is none of those known.
    """
    if path.suffix.lower() not in _ENDINGS:
        raise DataError(f"{path}: unknown kind of file {path.suffix!r}; known are {', '.join(_ENDINGS)}")


def require_known(requests: ScoreRequests, known: Collection[str], path: Path) -> None:
    """Refuse requests of users nothing is known about.

    Raises:
        DataError: one fault for each unknown user, naming the first row that asks for it.
    """
    faults = []
    first = first_places(requests.user, len(requests.users))
    for row, user in enumerate(requests.users.ids):
        if user not in known:
            faults.append(
                f"{path}: row {first[row] + 1}: unknown user {user!r}{suggest(user, known)}: neither trained nor "
                "adapted; adapt it with `copl adapt` and name the file with --users, or add --average-unknown"
            )
    if faults:
        more = len(faults) - SHOWN
        raise DataError(faults[:SHOWN] + ([f"{path}: and {more:,} more unknown users"] if more > 0 else []))


def write_scores(path: Path, requests: ScoreRequests, rewards: FloatArray, known: Collection[str]) -> None:
    """Write the rows with their rewards, in the order of the requests.

    Args:
        path: the file; its ending tells its format.
        requests: what was scored.
        rewards: reward of each request [N].
        known: ids of the users the model knows; the others were scored as the average user.
    """
    check_score_target(path)
    is_known = np.array([user in known for user in requests.users.ids], dtype=bool)
    kind = path.suffix.lower()

    def write(temporary: Path) -> None:
        parts = _scored(requests, rewards, is_known)
        if kind == ".jsonl":
            with temporary.open("w", encoding="utf-8") as file:
                for part in parts:
                    for row in part.to_pylist():
                        row["prompt"] = decode_prompt(row["prompt"])
                        file.write(json.dumps(row, ensure_ascii=False) + "\n")
            return
        opened = pyarrow.csv.CSVWriter if kind == ".csv" else pyarrow.parquet.ParquetWriter
        with opened(temporary, _SCORED) as writer:
            for part in parts:
                writer.write_table(part)

    write_atomically(path, write)


def _scored(requests: ScoreRequests, rewards: FloatArray, is_known: BoolArray) -> Iterator[Any]:
    """Yield the rows with their rewards as Arrow tables; texts of all rows at once may be more than memory holds."""
    ids, prompts, texts = (
        pa.array(values, pa.large_string())
        for values in (requests.users.ids, requests.responses.prompts, requests.responses.texts)
    )
    for begin in range(0, len(requests), _PART):
        rows = slice(begin, begin + _PART)
        user, response = requests.user[rows], requests.response[rows]
        columns = [ids.take(user), prompts.take(response), texts.take(response), rewards[rows], is_known[user]]
        arrays = [pa.array(column, field.type) for column, field in zip(columns, _SCORED, strict=True)]
        yield pa.Table.from_arrays(arrays, schema=_SCORED)
