"""Source ``trl``: any preference data set in the formats of TRL that says who judged.

A row has a column with the user, and the responses in one of TRL's four forms: with the prompt in a column of its own
(explicit) or at the beginning of both responses (implicit), as plain text or as chat messages. From the implicit form
the prompt is taken out: the messages both sides share, or the transcript before the last answer, or the beginning both
texts share. A column ``system`` is the first message of the prompt; other columns, such as ``tools``, are named in the
notes as not read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np

from copl.data.canonical import ValueFaultError, canonical_text, kind_of
from copl.data.chat import encode_prompt, messages_of
from copl.data.reading.faults import Faults
from copl.data.reading.hub import Published, PublishedOptions, read_published
from copl.data.reading.rows import OPTIONAL, column_faults, parse_rows
from copl.data.reading.table import table_of_objects
from copl.data.reading.texts import common_messages, common_text, split_transcript, storable
from copl.data.reading.values import fault_of, is_nothing
from copl.data.reading.values import prompt as prompt_of
from copl.data.sources.tables import RowOptions, data_of_rows
from copl.errors import DataError
from copl.options import option
from copl.plugins import Component
from copl.records import PreferenceData

if TYPE_CHECKING:
    from copl.records import BoolArray, ResponseTable


_COLUMNS = ("prompt", "chosen", "rejected", "system")

_NAMED = "name what is called otherwise with user=... and columns=chosen=...; a thumb a row is read by source thumbs"

_SYSTEM = "{} prompts begin with the row's system text, as a message of its own."
_OTHER_SYSTEM = "{} rows have a system text beside another in the prompt; that in the prompt is used."
_OTHER_PROMPT = "{} rows have a prompt beside whole conversations that begin otherwise; the conversations are used."


@final
@attrs.frozen(kw_only=True)
class TrlOptions(RowOptions, PublishedOptions):
    """Options of TRL preference data sets."""

    repository: str = option("", help="name of the data set on the Hugging Face Hub, where no path is given")
    config: str | None = option(None, help="configuration of the data set on the Hub")
    user: str = option("user_id", help="column that says who judged")
    test_split: str | None = option(
        "test",
        help="published split that is never trained on: its prompts are split cold; none takes all rows alike",
    )

    def __attrs_post_init__(self) -> None:
        super().__attrs_post_init__()
        if not self.repository and self.path is None:
            raise ValueError("name a repository on the Hub or a path")


@final
class TrlSource:
    """Reads the rows, takes prompts out where they are implicit, and splits the comparisons."""

    def __init__(self, options: TrlOptions) -> None:
        self._options = options

    def load(self, *, seed: int) -> PreferenceData:
        """Read the rows.

        Raises:
            DataError: the data set cannot be read, or one fault for each row that is wrong.
        """
        options = self._options
        faults = Faults(str(options.path or options.repository))
        train = self._rows("train", faults)
        test = self._rows(options.test_split, faults) if options.test_split is not None else _Read()
        known = {row["prompt"] for row in train.rows}
        fresh = [row for row in test.rows if row["prompt"] not in known]
        numbers = [
            *train.numbers,
            *(n for n, row in zip(test.numbers, test.rows, strict=True) if row["prompt"] not in known),
        ]
        table = table_of_objects(faults.where, [*train.rows, *fresh], numbers, "row", faults)
        # columns that are there and were not read, so that a line says so
        table.columns.update(dict.fromkeys(name for name in (train.names | test.names) if name not in table.columns))
        cold_prompts = {row["prompt"] for row in fresh}
        stale = len(test.rows) - len(fresh)
        counted = {
            f"{len(fresh):,} rows of the published test part are never trained on (split cold).": len(test.rows),
            f"{stale:,} rows of the test part are on prompts of the training part and were left out.": stale,
            **{note.format(f"{count:,}"): count for note, count in (train.counts + test.counts).items()},
        }
        return data_of_rows(
            parse_rows(table),
            options,
            source="trl",
            name=options.path.resolve().stem if options.path else options.repository.rpartition("/")[2],
            seed=seed,
            cold=lambda responses: _cold(responses, cold_prompts),
            notes=[note for note, count in counted.items() if count],
        )

    def _rows(self, split: str, faults: Faults) -> _Read:
        """Return the rows of a split in the row schema, with the prompt taken out."""
        options = self._options
        published = Published(options.repository or str(options.path), options.config, advice=_NAMED)
        names = {name: options.columns.get(name, name) for name in (*_COLUMNS, *OPTIONAL)} | {"user_id": options.user}
        if wrong := column_faults(options.columns, list(names)):
            raise DataError(wrong)
        rows = read_published(
            published,
            options,
            columns=(options.user, names["chosen"], names["rejected"]),
            optional=tuple(names.values()),
            split=split,
            ids=(options.user,),
        )
        read = _Read()
        for number, row in enumerate(rows or (), start=1):
            values = {name: row[column] for name, column in names.items() if column in row}
            try:
                prompt, chosen, rejected = _explicit(values, read.counts)
            except ValueFaultError as fault:
                faults.add(str(fault), row=number, label=f"row {number}")
                continue
            kept = {name: values[name] for name in ("user_id", *OPTIONAL) if name in values}
            read.numbers.append(number)
            read.rows.append({**kept, "prompt": prompt, "chosen": chosen, "rejected": rejected})
        read.names.update(dict.fromkeys(name for name in (rows.names if rows else ()) if name not in names.values()))
        return read


@final
@attrs.frozen(eq=False)
class _Read:
    """Rows of one split in the row schema, with their numbers, columns that were not read, and counts by note."""

    numbers: list[int] = attrs.field(factory=list)
    rows: list[dict[str, Any]] = attrs.field(factory=list)
    names: dict[str, None] = attrs.field(factory=dict)
    counts: Counter[str] = attrs.field(factory=Counter)


def _cold(responses: ResponseTable, prompts: set[str]) -> BoolArray | None:
    if not prompts:
        return None
    return np.array([prompt in prompts for prompt in responses.prompts], dtype=np.bool_)


def _is_messages(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(m, Mapping) for m in value)


def _explicit(values: Mapping[str, Any], counts: Counter[str]) -> tuple[str, Any, Any]:
    """Return prompt, in the form of `copl.data.chat`, and responses apart."""
    beside = values.get("prompt")
    prompt, chosen, rejected = _apart(beside, values["chosen"], values["rejected"])
    if prompt is None:
        raise ValueFaultError(
            "no prompt column, and chosen and rejected do not begin alike; name it with columns=prompt=..."
        )
    try:
        encoded = prompt_of(prompt)
    except ValueFaultError as fault:
        raise ValueFaultError(f"prompt: {fault}") from None
    if (
        beside is not None
        and prompt is not beside
        and fault_of(prompt_of, beside) is None
        and prompt_of(beside) != encoded
    ):
        counts[_OTHER_PROMPT] += 1
    return _with_system(encoded, values.get("system"), counts), chosen, rejected


def _apart(prompt: Any, chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """Return prompt and responses apart as they stand there; the prompt is None where it cannot be told."""
    if _is_messages(chosen) and _is_messages(rejected):
        shared = common_messages(chosen, rejected)
        if shared:  # whole conversations, beside which some data sets also have a prompt column
            return list(chosen[:shared]), list(chosen[shared:]), list(rejected[shared:])
        return prompt, list(chosen), list(rejected)
    if prompt is not None or not (isinstance(chosen, str) and isinstance(rejected, str)):
        return prompt, chosen, rejected
    sides = split_transcript(storable(chosen)), split_transcript(storable(rejected))
    if sides[0] is not None and sides[1] is not None and sides[0][0] == sides[1][0]:
        return sides[0][0], sides[0][1], sides[1][1]
    length = common_text(chosen, rejected)
    if not chosen[:length].strip():
        return None, chosen, rejected
    return chosen[:length], chosen[length:], rejected[length:]


def _with_system(prompt: str, system: Any, counts: Counter[str]) -> str:
    """Return a prompt with the row's system text as its first message."""
    if is_nothing(system):
        return prompt
    if not isinstance(system, str):
        raise ValueFaultError(f"system: expected text, got {kind_of(system)}")
    messages = messages_of(prompt)
    first = {"role": "system", "content": canonical_text(system)}
    if messages[0] == first:
        return prompt
    if messages[0]["role"] == "system":
        counts[_OTHER_SYSTEM] += 1
        return prompt
    counts[_SYSTEM] += 1
    return encode_prompt([first, *messages])


COMPONENTS = [
    Component(
        "trl",
        TrlOptions,
        TrlSource,
        "any preference data set in TRL's formats with a column that says who judged",
        reference="von Werra et al., TRL: Transformer Reinforcement Learning, github.com/huggingface/trl",
    )
]
