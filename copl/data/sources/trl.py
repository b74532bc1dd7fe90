"""Source ``trl``: any preference data set in the formats of TRL that says who judged.

A row has a column with the user, and the responses in one of TRL's four forms: with the prompt in a column of its own
(explicit) or at the beginning of both responses (implicit), as plain text or as chat messages. From the implicit form
the prompt is taken out: the messages both sides share, or the transcript before the last answer, or the beginning both
texts share.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

import attrs
import numpy as np

from copl.data.chat import encode_messages, message_fault
from copl.data.reading.files import Faults, Table
from copl.data.reading.hub import Published, PublishedOptions, read_published
from copl.data.reading.rows import OPTIONAL, parse_rows
from copl.data.reading.texts import clean, common_messages, common_text, split_transcript
from copl.data.sources.tables import RowOptions, data_of_rows
from copl.errors import DataError
from copl.options import option
from copl.plugins import Component
from copl.records import PreferenceData

if TYPE_CHECKING:
    from copl.interfaces import DatasetSource
    from copl.records import BoolArray, ResponseTable


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
        rows = self._rows("train")
        test = self._rows(options.test_split) if options.test_split is not None else []
        known = {_key(row["prompt"]) for row in rows}
        fresh = [row for row in test if _key(row["prompt"]) not in known]
        objects = [*rows, *fresh]
        if not objects:
            raise DataError(f"{options.path or options.repository}: there are no rows")
        names = dict.fromkeys(name for row in objects for name in row if name != "place")
        table = Table(
            str(options.path or options.repository),
            {name: [row.get(name) for row in objects] for name in names},
            list(range(1, len(objects) + 1)),
            "row",
        )
        cold_prompts = {_key(row["prompt"]) for row in fresh}
        notes = []
        if test:
            notes.append(f"{len(fresh):,} rows of the published test part are never trained on (split cold).")
        if len(test) > len(fresh):
            stale = len(test) - len(fresh)
            notes.append(f"{stale:,} rows of the test part are on prompts of the training part and were left out.")
        return data_of_rows(
            parse_rows(table, {name: given for name, given in options.columns.items() if given in names}),
            options,
            source="trl",
            name=options.path.resolve().stem if options.path else options.repository.rpartition("/")[2],
            seed=seed,
            cold=lambda responses: _cold(responses, cold_prompts),
            notes=notes,
        )

    def _rows(self, split: str) -> list[dict[str, Any]]:
        """Return the rows of a split in the row schema, with the prompt taken out."""
        options = self._options
        published = Published(options.repository or str(options.path), options.config)
        names = {name: options.columns.get(name, name) for name in ("prompt", "chosen", "rejected", *OPTIONAL)}
        rows = read_published(
            published,
            options,
            columns=(options.user, names["chosen"], names["rejected"]),
            optional=(names["prompt"], *(names[name] for name in OPTIONAL)),
            split=split,
            ids=(options.user,),
        )
        found: list[dict[str, Any]] = []
        faults = Faults(str(options.path or options.repository))
        for number, row in enumerate(rows or (), start=1):
            sides = row[names["chosen"]], row[names["rejected"]]
            prompt, chosen, rejected = _explicit(row.get(names["prompt"]), *sides)
            if prompt is None:
                message = (
                    "no prompt column, and chosen and rejected do not begin alike; name it with columns=prompt=..."
                )
                faults.add(message, row=number, label=f"row {number}")
                continue
            kept = {name: row[names[name]] for name in OPTIONAL if names[name] in row}
            found.append(
                {"user_id": row[options.user], "prompt": prompt, "chosen": chosen, "rejected": rejected} | kept
            )
        faults.raise_any()
        return found


def _cold(responses: ResponseTable, prompts: set[str]) -> BoolArray | None:
    if not prompts:
        return None
    return np.array([prompt in prompts for prompt in responses.prompts], dtype=np.bool_)


def _key(prompt: Any) -> str:
    """Return a prompt as it stands in the table of responses."""
    if isinstance(prompt, str):
        return prompt
    return encode_messages(prompt) if message_fault(prompt) is None else repr(prompt)


def _is_messages(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str) and all(isinstance(m, Mapping) for m in value)


def _explicit(prompt: Any, chosen: Any, rejected: Any) -> tuple[Any, Any, Any]:
    """Return prompt and responses apart; the prompt is None where it cannot be found."""
    if _is_messages(chosen) and _is_messages(rejected):
        shared = common_messages(chosen, rejected)
        if shared:  # whole conversations, beside which some data sets also have a prompt column
            return _prompt(list(chosen[:shared])), list(chosen[shared:]), list(rejected[shared:])
        return prompt, list(chosen), list(rejected)
    if prompt is not None or not (isinstance(chosen, str) and isinstance(rejected, str)):
        return prompt, chosen, rejected
    sides = split_transcript(clean(chosen)), split_transcript(clean(rejected))
    if sides[0] is not None and sides[1] is not None and sides[0][0] == sides[1][0]:
        return sides[0][0], sides[0][1], sides[1][1]
    length = common_text(chosen, rejected)
    if not chosen[:length].strip():
        return None, chosen, rejected
    return chosen[:length].strip(), chosen[length:], rejected[length:]


def _prompt(messages: list[Mapping[str, Any]]) -> Any:
    """Return a single message of a user as text, so that it equals the same prompt given as text."""
    if len(messages) == 1 and messages[0].get("role") == "user":
        return messages[0].get("content")
    return messages


def _build(options: TrlOptions) -> DatasetSource:
    return TrlSource(options)


COMPONENTS = [
    Component(
        "trl",
        TrlOptions,
        _build,
        "any preference data set in TRL's formats with a column that says who judged",
        reference="von Werra et al., TRL: Transformer Reinforcement Learning, github.com/huggingface/trl",
    )
]
