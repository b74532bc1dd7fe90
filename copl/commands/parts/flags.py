"""Flags that belong together: declared once as a record, which any command takes whole."""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import attrs

Command = TypeVar("Command", bound=Callable[..., None])


def takes_records(command: Command) -> Command:
    """Give a command the flags of its records: each parameter whose type is an attrs class becomes that class's fields.

    A record declares its fields as a command declares its parameters, by ``Annotated[type, typer.Option(...)]``; it may
    hold other records. Flags stand in the help where the record stands among the parameters.
    """
    hints = typing.get_type_hints(command, include_extras=True)
    records = {name: hint for name, hint in hints.items() if attrs.has(hint)}

    @functools.wraps(command)
    def run(**given: Any) -> None:
        command(**{name: _record_of(record, given) for name, record in records.items()}, **given)

    own = inspect.signature(command).parameters.values()
    parameters = [flag for parameter in own for flag in _flags_of(parameter.name, hints, parameter.default)]
    run.__signature__ = inspect.Signature(parameters, return_annotation=None)  # type: ignore[attr-defined]
    run.__annotations__ = {flag.name: flag.annotation for flag in parameters}
    del run.__wrapped__  # what it wraps has other parameters
    return typing.cast("Command", run)


def _flags_of(name: str, hints: Mapping[str, Any], default: Any) -> Iterator[inspect.Parameter]:
    """Yield a parameter, or those of the record that it is."""
    if attrs.has(hints[name]):
        inner = typing.get_type_hints(hints[name], include_extras=True)
        for field in attrs.fields(hints[name]):
            missing = field.default is attrs.NOTHING
            yield from _flags_of(field.name, inner, inspect.Parameter.empty if missing else field.default)
    else:
        yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=hints[name])


def _record_of(record: type[Any], given: dict[str, Any]) -> Any:
    """Return the record of what was given, which is taken out."""
    hints = typing.get_type_hints(record)
    return record(
        **{
            field.name: _record_of(hints[field.name], given) if attrs.has(hints[field.name]) else given.pop(field.name)
            for field in attrs.fields(record)
        }
    )
