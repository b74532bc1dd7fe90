"""Rows of every kind in one table: what each row says follows from which of its cells are filled.

- ``chosen`` and ``rejected``: a comparison;
- ``response_a``, ``response_b`` and ``winner`` (``a``, ``b``, ``tie`` or ``both_bad``; ``model_a``, ``tie (bothbad)``
  and the like as arenas publish them): a comparison, a tie, or both bad;
- ``response`` and ``thumb`` (or TRL's ``completion`` and ``label``): a thumb; 0 is down, or none in a column with -1;
- ``response`` and ``rating``: a rating;
- ``responses`` and ``ranking``: a list of responses, and the rank of each, 1 being the best; equal ranks are ties.

``user_id`` and ``prompt`` are always needed, and ``split``, ``group``, ``weight`` and ``timestamp`` may be there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from copl.data.canonical import ValueFaultError, canonical_id, canonical_text
from copl.data.making.collected import Collected, Said
from copl.data.reading import values
from copl.data.reading.columns import encode
from copl.data.reading.rows import column_faults, missing_column, unread_column
from copl.data.reading.thumbs import sign_of_zero, thumb_sign, zeros_read_as_down
from copl.errors import quoted, suggest

if TYPE_CHECKING:
    from copl.data.reading.table import Table

JUDGED = ("response_a", "response_b", "winner", "response", "completion", "thumb", "label", "rating", "responses",
          "ranking")  # fmt: skip
"""Columns of rows that are no comparisons."""

_SAYING = ("winner", "thumb", "label", "rating", "ranking")
_OPTIONAL = ("split", "group", "weight", "timestamp")
_TEXTS = ("user_id", "prompt", "chosen", "rejected", "response_a", "response_b", "response", "completion")
_SAID_BY = "a row has chosen and rejected, or one of winner, thumb, rating and ranking"
_EVERYWHERE = ("user_id", "prompt", *_OPTIONAL)
_WINNERS = {
    **dict.fromkeys(("a", "model_a", "response_a", "left", "first"), "a"),
    **dict.fromkeys(("b", "model_b", "response_b", "right", "second"), "b"),
    **dict.fromkeys(("tie", "both_good", "draw", "equal"), "tie"),
    **dict.fromkeys(("both_bad", "bothbad", "tie (bothbad)", "both bad"), "bad"),
}


def is_mixed(table: Table, columns: Mapping[str, str] | None = None) -> bool:
    """Return whether a table has rows that are no comparisons; `columns` as for `collect_rows`."""
    named = columns or {}

    def name(column: str) -> str:
        return named.get(column, column)

    ends = [table.columns.get(name(column)) for column in ("chosen", "rejected")]
    if any(end is None for end in ends):
        return any(name(column) in table.columns for column in JUDGED)
    return any(name(column) in table.columns for column in _SAYING) and any(
        values.is_nothing(value) for end in ends for value in encode(end).to_list()
    )


def collect_rows(table: Table, columns: Mapping[str, str] | None = None) -> tuple[Collected, tuple[str, ...]]:
    """Return what the rows of a table say, and a remark on each column that was not read.

    Args:
        table: the table.
        columns: names of columns in the table, by the schema's name, where they differ; None where nobody can say so.

    Raises:
        DataError: one fault for each row that could not be read, or is wrong; or there is none.
    """
    faults = table.faults
    if not len(table):
        if not len(faults):
            faults.add("there are no rows")
        faults.raise_any()
    names = _names(table, columns)
    columns_read = {name: table.values(own) for name, own in names.items() if table.columns.get(own) is not None}
    collected, written = Collected(), dict[str, str]()
    thumbs = {name: columns_read.get(name, ()) for name in ("thumb", "label")}
    zeros = {name: sign_of_zero(column) for name, column in thumbs.items()}
    unused = dict.fromkeys(table.columns, 0)
    for place in range(len(table)):
        row = {name: column[place] for name, column in columns_read.items() if _says(name, column[place])}
        try:
            said = _said(row, written, collected.groups)
            used = _add(row, said, collected, zeros)
        except ValueFaultError as fault:
            unread = [column for column in table.columns if column not in names.values()]
            name = str(fault).removesuffix(": missing")
            instead = suggest(name, unread) if name in names else ""
            faults.add(f"{fault}{instead}", row=int(table.rows[place]), label=table.label(place))
            continue
        for column in {names[name] for name in row} - {names[name] for name in (*_EVERYWHERE, *used)}:
            unused[column] += 1
    if not len(collected) and not len(faults):
        faults.add(collected.nothing)
    faults.raise_any()
    respelt = [note for name, column in columns_read.items() if (note := _respelt(name, names[name], column))]
    down = [note for name, column in thumbs.items() if (note := zeros_read_as_down(names[name], column))]
    return collected, (*_unread(table, names, unused), *respelt, *down)


def _names(table: Table, columns: Mapping[str, str] | None) -> dict[str, str]:
    """Return the name of each column of the schema in a table.

    Raises:
        DataError: a column that is needed, or was named, is not there; or none says anything.
    """
    known, named = (*_EVERYWHERE, "chosen", "rejected", *JUDGED), columns or {}
    names = {name: named.get(name, name) for name in known}
    problems = column_faults(named, known)
    for name in (name for name in known if name in ("user_id", "prompt", *named)):
        if names[name] not in table.columns:
            problems.append(missing_column(names[name], name, table.columns, can_be_named=columns is not None))
    if not problems and not any(names[name] in table.columns for name in ("chosen", *_SAYING)):
        unread = [column for column in table.columns if column not in names.values()]
        near = [f"; {quoted(column)}{meant}" for column in unread if (meant := suggest(column, _SAYING))]
        problems.append(f"no column says anything of the responses; {_SAID_BY}{''.join(near)}")
    for fault in problems:
        table.faults.add(fault)
    if problems:
        table.faults.raise_any()
    return names


def _says(name: str, value: Any) -> bool:
    """Return whether a cell says something; a weight that is no number is not the same as none."""
    return not values.is_nothing(value) or (name == "weight" and isinstance(value, float))


def _respelt(name: str, column: str, given: Sequence[Any]) -> str:
    """Return a remark on values that are kept in another spelling, or nothing."""
    if name not in _TEXTS:
        return ""
    spelling = canonical_id if name == "user_id" else canonical_text
    changed = [value for value in given if isinstance(value, str) and spelling(value) not in ("", value)]
    if not changed:
        return ""
    return (
        f"{len(changed):,} values of column {quoted(column)} were put into the one spelling of texts, such as "
        f"{quoted(changed[0])} into {quoted(spelling(changed[0]))}."
    )


def _unread(table: Table, names: Mapping[str, str], unused: Mapping[str, int]) -> tuple[str, ...]:
    """Return a remark on each column that was not read, or not in every row."""
    notes = [unread_column(name, names) for name in table.columns if name not in names.values()]
    notes += [
        f"{count:,} values of column {quoted(name)} were not read: their rows say something else."
        for name, count in unused.items()
        if count
    ]
    return tuple(notes)


def _said(row: Mapping[str, Any], written: dict[str, str], groups: dict[str, str]) -> Said:
    user, prompt = (_cell(row, name, values.TEXTS[name]) for name in ("user_id", "prompt"))
    kind = "text" if isinstance(row["user_id"], str) else "a number"
    if (before := written.setdefault("user_id", kind)) != kind:
        raise ValueFaultError(f"user_id: {kind} here, {before} before; write ids in one way throughout")
    weight = _cell(row, "weight", values.weight) if "weight" in row else 1.0
    split = _cell(row, "split", values.split) if "split" in row else None
    group = _cell(row, "group", values.group) if "group" in row else None
    if group is not None and groups.setdefault(user, group) != group:
        raise ValueFaultError(f"group: user {quoted(user)} is in group {quoted(group)} here and in "
                              f"{quoted(groups[user])} before")  # fmt: skip
    time = _cell(row, "timestamp", values.timestamp) if "timestamp" in row else None
    if time is None:
        return Said(user, prompt, weight=weight, split=split)
    if (before := written.setdefault("timestamp", time[1])) != time[1]:
        raise ValueFaultError(f"timestamp: {time[1]} here, {before} before; write times in one way throughout")
    return Said(user, prompt, time[0], weight, split)


def _cell(row: Mapping[str, Any], name: str, convert: values.Convert) -> Any:
    if name not in row:
        raise ValueFaultError(f"{name}: missing")
    try:
        return values.in_text(convert)(row[name])
    except ValueFaultError as fault:
        raise ValueFaultError(f"{name}: {fault}") from None


def _add(row: Mapping[str, Any], said: Said, collected: Collected, zeros: Mapping[str, int]) -> tuple[str, ...]:
    """Add what a row says, and return the columns that say it; `zeros` is what 0 says in each column of thumbs."""
    if "chosen" in row and "rejected" in row:
        ends = [_cell(row, name, values.response) for name in ("chosen", "rejected")]
        collected.compare(said, *_different(ends, "chosen and rejected"))
        return "chosen", "rejected"
    says = [name for name in _SAYING if name in row]
    if "label" in says and "thumb" in says:
        says.remove("label")
    if len(says) != 1:
        what = "says several things at once: " + ", ".join(says) if says else "says nothing"
        raise ValueFaultError(f"{what}; {_SAID_BY}")
    kind = says[0]
    if kind == "winner":
        ends = [_cell(row, name, values.response) for name in ("response_a", "response_b")]
        one, other = _different(ends, "response_a and response_b")
        winner = _WINNERS.get(str(row["winner"]).strip().lower())
        if winner is None:
            raise ValueFaultError(f"winner: expected a, b, tie or both_bad, got {quoted(row['winner'])}")
        if winner in ("a", "b"):
            collected.compare(said, *((one, other) if winner == "a" else (other, one)))
        else:
            collected.tie(said, one, other, both_bad=winner == "bad")
        return "response_a", "response_b", kind
    if kind == "ranking":
        _rank(row, said, collected)
        return "responses", kind
    name = "response" if "response" in row or "completion" not in row else "completion"
    response = _cell(row, name, values.response)
    if kind == "rating":
        collected.rate(said, response, _cell(row, kind, values.number))
    elif sign := _cell(row, kind, thumb_sign) or zeros[kind]:
        collected.thumb(said, response, up=sign > 0)
    else:
        collected.drop("without a thumb")
    return name, kind


def _different(ends: list[str], names: str) -> list[str]:
    if ends[0] == ends[1]:
        raise ValueFaultError(f"{names} are the same text; two different responses are needed")
    return ends


def _rank(row: Mapping[str, Any], said: Said, collected: Collected) -> None:
    lists = []
    for name in ("responses", "ranking"):
        value = row.get(name)
        if isinstance(value, str):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                value = None
        if not isinstance(value, list) or len(value) < 2:
            raise ValueFaultError(f"{name}: expected a list of two or more, got {quoted(row.get(name))}")
        lists.append(value)
    responses = [_cell({"responses": text}, "responses", values.response) for text in lists[0]]
    ranks = [_cell({"ranking": rank}, "ranking", values.number) for rank in lists[1]]
    if len(responses) != len(ranks):
        raise ValueFaultError(f"ranking: {len(ranks)} ranks of {len(responses)} responses")
    if len(set(responses)) < len(responses):
        raise ValueFaultError("responses: the same text twice")
    collected.rank(said, responses, ranks)
