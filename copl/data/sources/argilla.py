"""Source ``argilla``: records exported from Argilla, with rankings, ratings and labels by annotator.

A record of Argilla 2 has its fields and, for a question Q, ``Q.responses`` beside ``Q.responses.users`` and
``Q.responses.status``, or all of them nested; of Argilla 1, a list of answers under Q, or of users with their answers
under ``responses``; data sets on the Hub may keep such lists as columns. A ranking names fields from the best to the
worst; a rating is of one field; a label names the better field, or says that neither is. What was not submitted is left
out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, final

import attrs

from copl.data.canonical import ValueFaultError
from copl.data.making.collected import Collected, CollectedOptions, Said
from copl.data.making.exported import ExportSource
from copl.data.reading import values
from copl.data.reading.exports import Export, missing
from copl.errors import DataError, quoted
from copl.options import option
from copl.plugins import Component

_SUBMITTED = "submitted"
_NO_ZONE = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d[\d:.]*")
_TIES = ("tie", "equal", "same", "both good", "both_good")
_BAD = ("both bad", "both_bad", "bothbad", "none", "neither")


@final
@attrs.frozen(kw_only=True)
class ArgillaOptions(CollectedOptions):
    """Options of Argilla exports."""

    question: str = option(help="name of the question that was answered: a ranking, a rating or a label")
    prompt: str = option("prompt", help="field with the prompt: text, or a chat")
    responses: tuple[str, ...] = option(
        (), help="fields with the responses: those a ranking or a label is of, or the one that a rating is of"
    )


@final
class ArgillaSource(ExportSource[ArgillaOptions]):
    """Reads records and their answers."""

    name = "argilla"
    construction = "Submitted answers to a question, by annotator."

    def _check(self, export: Export) -> None:
        options = self._options
        if export.entries and not any(options.question in _questions(record) for record in export.entries):
            known = ", ".join(sorted({name for record in export.entries[:100] for name in _questions(record)}))
            raise DataError(f"{options.path}: no question {quoted(options.question)}; there are {known or 'none'}")

    def _read(self, export: Export, number: int, record: Mapping[str, Any], collected: Collected) -> None:
        options = self._options
        fields = record["fields"] if isinstance(record.get("fields"), Mapping) else record
        try:
            prompt = values.prompt(fields.get(options.prompt))
        except ValueFaultError as fault:
            given = fields.get(options.prompt)
            export.fault(number, f"{options.prompt}: {'missing' if given is None else fault}; name it with prompt=")
            return
        answers = list(_answers(record, options.question))
        if not answers:
            collected.drop("records without an answer")
        for answer in answers:
            if isinstance(answer, _Malformed):
                export.fault(number, answer.message)
            elif answer.status not in (None, _SUBMITTED):
                collected.drop(f"answers that are {answer.status}, not submitted")
            elif answer.value is None:
                collected.drop("empty answers")
            elif (name := export.user(answer.user)) is None:
                export.fault(number, f"{options.question}: an answer without its user")
            else:
                time = collected.time(*map(_with_zone, (answer.time, record.get("updated_at"))))
                wrong = self._judge(Said(name, prompt, time), answer.value, fields, collected)
                if wrong:
                    export.fault(number, f"{options.question}: {wrong}")

    def _judge(self, said: Said, value: object, fields: Mapping[str, object], collected: Collected) -> str | None:
        """Add one answer; return what is wrong with it."""
        names = self._options.responses
        value = _by_row(value)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return self._rank(said, value, fields, collected)
        if isinstance(value, int | float) and not isinstance(value, bool):
            field = names[0] if len(names) == 1 else "response"
            text = _text(fields, field)
            if text is None:
                return f"a rating of field {quoted(field)}, which is not there; name it with responses="
            try:
                collected.rate(said, text, values.number(value))
            except ValueFaultError as fault:
                return str(fault)
            return None
        texts = {name: _text(fields, name) for name in names}
        if not isinstance(value, str) or len(names) < 2:
            return f"{quoted(value)} is neither a ranking nor a rating; name the fields it is about with responses="
        if lacking := [name for name, text in texts.items() if text is None]:
            return f"a label of field {quoted(lacking[0])}, which is not there; there are {', '.join(fields)}"
        sides = [str(text) for text in texts.values()]
        if value in texts:
            others = [str(text) for name, text in texts.items() if name != value]
            collected.choose(said, str(texts[value]), others)
            return None
        if value.strip().lower() in (*_TIES, *_BAD) and len(sides) == 2:
            collected.tie(said, *sides, both_bad=value.strip().lower() in _BAD)
            return None
        ties = ", tie, both_bad" if len(sides) == 2 else ""
        return f"expected one of {', '.join(names)}{ties}, got {quoted(value)}"

    def _rank(
        self, said: Said, value: Sequence[object], fields: Mapping[str, object], collected: Collected
    ) -> str | None:
        named, ranks = [], []
        for place, entry in enumerate(value, start=1):
            name = entry.get("value") if isinstance(entry, Mapping) else entry
            rank = entry.get("rank", place) if isinstance(entry, Mapping) else place
            if not isinstance(name, str) or values.fault_of(values.number, rank):
                return f"a ranking names fields, got {quoted(entry)}"
            named.append(name)
            ranks.append(values.number(rank))
        texts = [_text(fields, name) or _text(fields, name.replace("-", "_")) for name in named]
        if len(set(named)) < len(named):
            return "a ranking names a field twice"
        if None in texts:
            return f"a ranking of field {quoted(named[texts.index(None)])}, which is not there"
        if len(texts) < 2:
            collected.drop("rankings of a single response")
            return None
        collected.rank(said, [str(text) for text in texts], ranks)
        return None


@attrs.frozen
class _Malformed:
    message: str


def _told(status: object) -> object:
    """Return a status, which some versions write with the name of its class before it."""
    return status.rpartition(".")[2].lower() or None if isinstance(status, str) else status


@attrs.frozen
class _Answer:
    """Who answered what, whether it was submitted, and when."""

    user: Any
    value: Any
    status: Any = attrs.field(default=None, converter=_told)
    time: Any = None


def _with_zone(time: object) -> object:
    """Return a time with its zone; the server keeps UTC and does not say so."""
    return f"{time}Z" if isinstance(time, str) and _NO_ZONE.fullmatch(time.strip()) else time


def _by_row(value: object) -> object:
    """Return a list of objects, which a data set on the Hub may hold as an object of lists, and all else as it is."""
    if not isinstance(value, Mapping) or not value or not all(isinstance(column, list) for column in value.values()):
        return value
    if len({len(column) for column in value.values()}) != 1:
        return value
    return [dict(zip(value, row, strict=True)) for row in zip(*value.values(), strict=True)]


def _questions(record: Mapping[str, object]) -> list[str]:
    flat = [key.removesuffix(".responses") for key in record if key.endswith(".responses")]
    nested = record.get("responses")
    columns = {key: _by_row(value) for key, value in record.items() if key != "responses"}
    old = [key for key, value in columns.items() if isinstance(value, list) and value and all(map(_is_of_user, value))]
    listed = [name for name, *_ in _listed(nested)]
    return [*flat, *(nested if isinstance(nested, Mapping) else ()), *listed, *old]


def _is_of_user(entry: object) -> bool:
    return isinstance(entry, Mapping) and "user_id" in entry


def _listed(responses: object) -> Iterator[tuple[object, _Answer]]:
    """Yield question and answer of those that are listed under ``responses``."""
    for entry in filter(_is_of_user, responses if isinstance(responses, list) else ()):
        answered, context = entry.get("values"), (entry.get("status"), _time_of(entry))
        if "question_name" in entry:
            yield entry["question_name"], _Answer(entry["user_id"], entry.get("value"), *context)
        for name, answer in answered.items() if isinstance(answered, Mapping) else ():
            value = answer.get("value") if isinstance(answer, Mapping) else answer
            yield name, _Answer(entry["user_id"], value, *context)


def _time_of(answer: Mapping[str, object]) -> object:
    return answer.get("updated_at") or answer.get("inserted_at")


def _answers(record: Mapping[str, object], question: str) -> Iterator[_Answer | _Malformed]:
    """Yield the answers to a question, in whatever version."""
    flat = record.get(f"{question}.responses")
    nested = record.get("responses")
    if f"{question}.responses" in record:
        users, status = record.get(f"{question}.responses.users"), record.get(f"{question}.responses.status")
        if flat is None:
            return
        if not isinstance(flat, list) or not isinstance(users, list) or len(users) != len(flat):
            yield _Malformed(missing(f"{question}.responses.users", users, "a user for each answer"))
            return
        states = status if isinstance(status, list) and len(status) == len(flat) else [None] * len(flat)
        yield from map(_Answer, users, flat, states)
        return
    yield from (answer for name, answer in _listed(nested) if name == question)
    listed = _by_row(nested.get(question) if isinstance(nested, Mapping) else record.get(question))
    for answer in listed if isinstance(listed, list) else ():
        if isinstance(answer, Mapping):
            yield _Answer(answer.get("user_id"), answer.get("value"), answer.get("status"), _time_of(answer))
        else:
            yield _Malformed(f"{question}: expected answers with user_id and value, got {quoted(answer)}")


def _text(fields: Mapping[str, object], name: str) -> str | None:
    try:
        return values.response(fields.get(name))
    except ValueFaultError:
        return None


COMPONENTS = [
    Component(
        "argilla",
        ArgillaOptions,
        ArgillaSource,
        "records of Argilla with rankings, ratings or labels by annotator",
        reference="github.com/argilla-io/argilla",
    )
]
