"""Rows to be scored: ``user_id``, ``prompt`` and ``response`` in, the same rows with a ``reward`` out.

Rows come from a file or as arguments of `copl.Model`; both are read in the one spelling of ids and texts, as the rows
that were learnt from.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, final

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet
from attrs import frozen

from copl.data.canonical import Foreign, ValueFaultError
from copl.data.chat import decode_prompt
from copl.data.dataset import load_dataset
from copl.data.making.collected import SAID_AGAIN
from copl.data.making.mixed import collect_rows, is_mixed
from copl.data.making.notes import left_out as notes_of_left_out
from copl.data.pairs import intern_responses, intern_users
from copl.data.reading import values
from copl.data.reading.columns import EncodedColumn, encode, first_places
from copl.data.reading.faults import Faults
from copl.data.reading.files import unknown_kind
from copl.data.reading.rows import RowReader, parse_rows
from copl.data.reading.table import Table, table_of_objects
from copl.data.sources.tables import read_table
from copl.data.targets import check_target
from copl.errors import DataError, quoted, suggest
from copl.records import NOBODY, Comparisons, ComparisonSet, FloatArray, ResponseTable, ScoreRequests, UserTable
from copl.records.said import in_force
from copl.system.files import write_atomically

if TYPE_CHECKING:
    from copl.records import BoolArray

Prompt: TypeAlias = str | Sequence[Mapping[str, str]]
"""A prompt: text, or chat messages with ``role`` and ``content``."""

Pair: TypeAlias = tuple[Prompt, str, str]
"""A question to a user: a prompt and two responses to it."""

Tell: TypeAlias = Callable[[str], None]
"""Is told what a person should know of a file that was read."""

_ENDINGS = (".jsonl", ".csv", ".parquet")

_PART = 100_000
"""Rows that are written at a time."""

_ADDED = pa.schema([("reward", pa.float64()), ("user_known", pa.bool_())])
"""Columns that scores add to the rows."""


def do_not_tell(note: str) -> None:
    """Tell nobody."""


@final
@frozen(eq=False)
class ScoreRows:
    """Rows of a file to be scored.

    Attributes:
        requests: what is asked, a request a row.
        table: the rows as they came, with all columns.
    """

    requests: ScoreRequests
    table: Table


def read_score_rows(path: Path, tell: Tell, columns: Mapping[str, str] | None = None) -> ScoreRows:
    """Read rows of ``user_id``, ``prompt`` (text or chat messages) and ``response``; other columns come out again.

    Args:
        path: the file.
        tell: is told what a person should know of it.
        columns: names of its columns, by these names, where they differ; None where nobody can say so.

    Raises:
        DataError: the file cannot be read, or one fault for each row that is wrong.
    """
    table = read_table(path)
    requests, respelt = _requests_of(table, columns)
    replaced = [f"Column {quoted(name)} of the rows is replaced." for name in _ADDED.names if name in table.columns]
    for note in (*respelt, *replaced):
        tell(note)
    return ScoreRows(requests, table)


def _requests_of(table: Table, columns: Mapping[str, str] | None = None) -> tuple[ScoreRequests, Sequence[str]]:
    """The requests of a table's rows, and what was spelt otherwise there."""
    reader = RowReader(table, columns, required=("user_id", "prompt", "response"))
    user, prompt, response = (reader.text(name) for name in ("user_id", "prompt", "response"))
    reader.faults.raise_any()
    ids, user_row = intern_users(user)
    responses, response_row, _ = intern_responses(prompt, response, response)
    return ScoreRequests(UserTable.ungrouped(ids), responses, user_row, response_row), reader.respelt()


def known_by(user: str | int) -> str:
    """Return the id that rows of a user have; `NOBODY` is nobody's.

    Raises:
        DataError: no row can have such an id.
    """
    return NOBODY if user == NOBODY else _id_of("user", user)


def user_named(flag: str) -> str:
    """Return the id of a user that is named on the command line by ``--user``.

    Raises:
        DataError: no row can have such an id.
    """
    return _id_of("--user", flag)


def _id_of(name: str, user: Any) -> str:
    try:
        return values.user_id(user)
    except ValueFaultError as fault:
        raise DataError(f"{name}: {fault}") from None


def score_request(user: Any, prompt: Prompt, responses: Sequence[str]) -> ScoreRequests:
    """Return the request for the rewards of several responses to one prompt, for one user.

    Raises:
        DataError: one fault for each argument that is wrong.
    """
    if isinstance(responses, str | bytes):
        raise DataError("responses: one text where a list of texts belongs; put it into a list")
    faults = Faults("score")
    user_id = _argument("user", values.user_id, user, faults)
    asked = _argument("prompt", values.prompt, _listed(prompt), faults)
    texts = [
        _argument(f"response {place}", values.response, response, faults)
        for place, response in enumerate(responses, start=1)
    ]
    faults.raise_any()
    rows = np.arange(len(texts))
    table = ResponseTable([asked] * len(texts), texts)
    return ScoreRequests(UserTable.ungrouped([user_id]), table, np.zeros_like(rows), rows)


def row_requests(rows: Iterable[Mapping[str, Any]]) -> ScoreRequests:
    """Return the requests of rows given as objects: ``user_id``, ``prompt`` and ``response``, other keys unread.

    Raises:
        DataError: one fault for each row that is wrong.
    """
    expected = "rows: expected a list of objects with user_id, prompt and response"
    if isinstance(rows, Mapping | str) or not isinstance(rows, Iterable):
        raise DataError(expected)
    given = list(rows)
    if not all(isinstance(row, Mapping) for row in given):
        raise DataError(expected)
    if not given:
        nothing: list[int] = []
        return ScoreRequests(UserTable.ungrouped([]), ResponseTable([], []), nothing, nothing)
    given = [{**row, "prompt": _listed(row["prompt"])} if "prompt" in row else row for row in given]
    return _requests_of(table_of_objects("rows", given, list(range(1, len(given) + 1)), "row"))[0]


def table_requests(
    users: Sequence[str | int], prompts: Sequence[Prompt], responses: Sequence[Sequence[str]]
) -> ScoreRequests:
    """Return the requests of each user for each response to each prompt, one user after the other.

    Raises:
        DataError: one fault for each argument that is wrong.
    """
    faults = Faults("score_table")
    if isinstance(users, str) or isinstance(prompts, str) or len(prompts) != len(responses):
        raise DataError("score_table: expected a list of users, a list of prompts and a list of responses for each")
    ids = [_argument(f"user {place}", values.user_id, user, faults) for place, user in enumerate(users, start=1)]
    asked: list[str] = []
    texts: list[str] = []
    for place, (prompt, answers) in enumerate(zip(prompts, responses, strict=True), start=1):
        if isinstance(answers, str | bytes):
            faults.add(f"prompt {place}: one text where a list of responses belongs; put it into a list")
            continue
        asked += [_argument(f"prompt {place}", values.prompt, _listed(prompt), faults)] * len(answers)
        texts += [_argument(f"prompt {place}: response", values.response, answer, faults) for answer in answers]
    faults.raise_any()
    distinct = list(dict.fromkeys(ids))
    rows = {user: row for row, user in enumerate(distinct)}
    user = np.repeat(np.array([rows[user] for user in ids], dtype=np.int64), len(texts))
    return ScoreRequests(
        UserTable.ungrouped(distinct), ResponseTable(asked, texts), user, np.tile(np.arange(len(texts)), len(ids))
    )


def question_pairs(user_id: str, candidates: Sequence[Any]) -> ComparisonSet:
    """Return questions to a user as comparisons, the first response of each as the chosen one.

    Raises:
        DataError: there is none, or one fault for each that is no prompt with two different responses.
    """
    if not len(candidates):
        raise DataError("no candidates to choose a question from; give prompts with two responses each")
    faults = Faults("candidates")
    prompts: list[str] = []
    texts: list[str] = []
    for place, candidate in enumerate(candidates, start=1):
        if not isinstance(candidate, Sequence) or isinstance(candidate, str) or len(candidate) != 3:
            faults.add(f"candidate {place}: expected a prompt and two responses")
            continue
        prompt, *sides = candidate
        prompts += [_argument(f"candidate {place}: prompt", values.prompt, _listed(prompt), faults)] * 2
        texts += [_argument(f"candidate {place}: response", values.response, side, faults) for side in sides]
        if texts[-1] == texts[-2] != "":
            faults.add(f"candidate {place}: the same response twice; a question needs two different responses")
    faults.raise_any()
    rows = np.arange(len(candidates))
    pairs = Comparisons(np.zeros_like(rows), 2 * rows, 2 * rows + 1)
    return ComparisonSet(UserTable.ungrouped([user_id]), ResponseTable(prompts, texts), pairs)


def _argument(name: str, convert: values.Convert, value: Any, faults: Faults) -> str:
    """Return what an argument means; a fault is added, and the text is empty."""
    try:
        return str(convert(value))
    except ValueFaultError as fault:
        faults.add(f"{name}: {fault}")
        return ""


def _listed(prompt: Any) -> Any:
    """Return messages as a list, in whatever sequence they come."""
    return list(prompt) if isinstance(prompt, Sequence) and not isinstance(prompt, str | bytes) else prompt


def read_support(path: Path, tell: Tell, columns: Mapping[str, str] | None = None) -> ComparisonSet:
    """Read what newcomers say: a file of rows of every kind, or the split ``support`` of a data set's directory.

    Args:
        path: the file or directory.
        tell: is told what a person should know of it.
        columns: names of a file's columns, by the schema's name, where they differ; None where nobody can say so.

    Raises:
        DataError: there is nothing to read, or one fault for each row that is wrong.
    """
    if not path.is_dir():
        table = read_table(path)
        if is_mixed(table, columns):
            collected, notes = collect_rows(table, columns)
            said, left_out = collected.as_set(), collected.left_out
        else:
            rows = parse_rows(table, columns)
            said, notes = in_force(rows.data), rows.notes
            left_out = {SAID_AGAIN: len(rows.data) - len(said)}
        for note in (*notes, *notes_of_left_out(left_out, "rows")):
            tell(str(note))
        return said
    support = load_dataset(path).split("support")
    if support.says_nothing:
        raise DataError(f"{path}: the data set has no comparisons of unseen users (split 'support' is empty)")
    return support


def read_candidates(path: Path, tell: Tell) -> list[Pair]:
    """Read what a user may be asked: rows of ``prompt`` (text or chat messages), ``first`` and ``second`` response.

    Raises:
        DataError: the file cannot be read, or one fault for each row that is wrong.
    """
    reader = RowReader(read_table(path), required=("prompt", "first", "second"))
    prompt = reader.text("prompt")
    same = "the same text as first; a question needs two different responses"
    first, second = reader.different("first", "second", "second", same)
    reader.faults.raise_any()
    for note in (*reader.unread(), *reader.respelt()):
        tell(note)
    texts = zip(prompt.to_list(), first.to_list(), second.to_list(), strict=True)
    return [(decode_prompt(asked), one, other) for asked, one, other in texts]


def check_score_target(path: Path, *inputs: Path) -> None:
    """Refuse a file that scores cannot be written to, before anything is computed.

    Raises:
        DataError: the ending is none of those known, or the target is a file that is read.
    """
    check_target(path, *inputs)
    if path.suffix.lower() not in _ENDINGS:
        raise unknown_kind(path, ", ".join(_ENDINGS))


def require_known(rows: ScoreRows, known: Collection[str]) -> None:
    """Refuse requests of users nothing is known about.

    Raises:
        DataError: one fault for each unknown user, naming the first row that asks for it.
    """
    requests, table = rows.requests, rows.table
    first = first_places(requests.user, len(requests.users))
    unknown = sorted(int(first[row]) for row, user in enumerate(requests.users.ids) if user not in known)
    faults = Faults(table.where)

    def tell(place: int) -> tuple[int, str, str]:
        user = requests.users.ids[requests.user[place]]
        message = (
            f"unknown user {quoted(user)}{suggest(user, known)}: neither trained nor adapted; adapt it with `copl "
            "adapt` and name the file with --users, or add --average-unknown"
        )
        return int(table.rows[place]), message, table.label(place)

    faults.add_each(unknown, tell)
    faults.raise_any()


def write_scores(path: Path, rows: ScoreRows, rewards: FloatArray, known: Collection[str]) -> None:
    """Write the rows as they came, in their order, with their rewards and whether each row's user is known.

    Args:
        path: the file; its ending tells its format.
        rows: what was scored.
        rewards: reward of each row [N].
        known: ids of the users the model knows; the others were scored as the average user.
    """
    check_score_target(path)
    is_known = np.array([user in known for user in rows.requests.users.ids], dtype=bool)[rows.requests.user]
    kind = path.suffix.lower()
    columns = {name: column for name, column in rows.table.columns.items() if name not in _ADDED.names}

    def write(temporary: Path) -> None:
        if kind == ".jsonl":
            _write_lines(temporary, {name: encode(column) for name, column in columns.items()}, rewards, is_known)
            return
        kept = {name: _Kept(column, flat=kind == ".csv") for name, column in columns.items()}
        schema = pa.schema([*((name, column.type) for name, column in kept.items()), *_ADDED])
        opened = pyarrow.csv.CSVWriter if kind == ".csv" else pyarrow.parquet.ParquetWriter
        with opened(temporary, schema) as writer:
            # in parts, for the texts of all rows at once may be more than memory holds
            for begin in range(0, len(rewards), _PART):
                part = slice(begin, begin + _PART)
                arrays = [*(column.part(part) for column in kept.values()), pa.array(rewards[part]), is_known[part]]
                writer.write_table(pa.table(arrays, schema=schema))

    write_atomically(path, write)


@final
class _Kept:
    """A column of the rows, to be written as it came.

    Args:
        column: the column.
        flat: whether lists and objects must be written as text.
    """

    def __init__(self, column: Any, *, flat: bool) -> None:
        self._array = column if isinstance(column, pa.Array | pa.ChunkedArray) else None
        self._codes = encode(column).codes if self._array is None else None
        self._values = self._array if self._array is not None else _array_of(encode(column).values, flat=flat)
        self.type = self._values.type

    def part(self, rows: slice) -> Any:
        if self._codes is None:
            return self._values[rows]
        codes = self._codes[rows]
        return self._values.take(pa.array(codes, mask=codes < 0))


def _array_of(values: Sequence[Any], *, flat: bool) -> Any:
    """Return distinct values as an array; as JSON text where they are of several types, or nested and must be flat."""
    if set(map(type, values)) <= {str}:
        return pa.array(values, pa.large_string())
    try:
        array = pa.array(values)
        if not (flat and (pa.types.is_nested(array.type) or pa.types.is_binary(array.type))):
            return array
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        pass
    texts = [str(value) if isinstance(value, str | Foreign) else _as_json(value) for value in values]
    return pa.array(texts, pa.large_string())


def _as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=str)


def _write_lines(path: Path, columns: Mapping[str, EncodedColumn], rewards: FloatArray, is_known: BoolArray) -> None:
    with path.open("w", encoding="utf-8") as file:
        for place, (reward, known) in enumerate(zip(rewards.tolist(), is_known.tolist(), strict=True)):
            row = {name: c.values[c.codes[place]] for name, c in columns.items() if c.codes[place] >= 0}
            row = {name: value for name, value in row.items() if value == value}  # JSON has no NaN
            file.write(
                json.dumps(row | {"reward": reward, "user_known": known}, ensure_ascii=False, default=str) + "\n"
            )
