"""From text, TOML and ``--set key=value`` to options: frozen attrs classes, all faults reported at once.

An options class is an attrs class whose fields have a type, a default, optionally a validator, and
``metadata={"help": "..."}`` (written with `option`). Types understood: ``int``, ``float``, ``bool``, ``str``,
``pathlib.Path``, ``Literal[...]``, ``X | None``, ``tuple[X, ...]``, ``dict[str, str]`` and, in files
alone, tables of anything: ``dict[str, Any]``.
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, final

import attrs

from copl.errors import OptionsError, quoted, suggest

T = TypeVar("T")
_BEFORE = "before"


def option(default: Any = attrs.NOTHING, *, help: str, validator: Any = None, before: Any = attrs.NOTHING) -> Any:
    """Declare one option: an attrs field with its help text, which is written only here.

    Args:
        default: value where none is given; without it the option is required.
        help: what it does.
        validator: limits of the value.
        before: value that what was written before there was the option goes by (`values_before`), where that is not
            the default. The default is not None then, which would be left out where it is written today.
    """
    metadata = {"help": help} if before is attrs.NOTHING else {"help": help, _BEFORE: before}
    return attrs.field(default=default, validator=validator, metadata=metadata)


@final
@attrs.frozen
class NoOptions:
    """The component has no options."""


@final
@attrs.frozen
class OptionInfo:
    """One option as shown to a person."""

    name: str
    type: str
    default: str
    help: str
    required: bool


def _hints(options: type) -> dict[str, Any]:
    return typing.get_type_hints(options)


def _type_name(kind: Any) -> str:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return " | ".join(str(a) for a in args)
    if origin in (types.UnionType, typing.Union):
        return " | ".join(_type_name(a) for a in args)
    if origin is tuple:
        return f"list of {_type_name(args[0])}"
    if origin is dict:
        return "table" if args[1] is Any else "table of text"
    if kind is type(None):
        return "none"
    return {str: "text", Path: "path"}.get(kind, getattr(kind, "__name__", str(kind)))


def describe_options(options: type) -> list[OptionInfo]:
    """Return the options of a class in order, as shown by ``copl plugins show`` and in the docs."""
    hints = _hints(options)
    infos = []
    for field in attrs.fields(options):
        required = field.default is attrs.NOTHING
        default = field.default
        if isinstance(default, attrs.Factory):  # type: ignore[arg-type]  # attrs types Factory as a function
            default = default.factory()
        shown = "" if required else _shown(default)
        infos.append(
            OptionInfo(field.name, _type_name(hints[field.name]), shown, field.metadata.get("help", ""), required)
        )
    return infos


def _shown(default: Any) -> str:
    if default is None:
        return "none"
    return str(default).lower() if isinstance(default, bool) else str(_plain(default))


def _plain(value: Any) -> Any:
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, tuple | list):
        return [_plain(v) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    return value


def options_to_dict(options: Any) -> dict[str, Any]:
    """Return an options object as plain TOML and JSON values; `parse_options` makes the same object of them.

    TOML has no null: an option that is None is left out where that is its default, else it is the text ``none``.
    """
    values: dict[str, Any] = {}
    for field in attrs.fields(type(options)):
        value = getattr(options, field.name)
        if value is not None:
            values[field.name] = _plain(value)
        elif field.default is not None:
            values[field.name] = "none"
    return values


def values_before(options: type) -> dict[str, Any]:
    """Return the options whose absence in what a run has written means another value than today's default."""
    return {field.name: field.metadata[_BEFORE] for field in attrs.fields(options) if _BEFORE in field.metadata}


class _MismatchError(Exception):
    """The value is not of the option's type."""


_TRUE, _FALSE = {"true", "yes", "on", "1"}, {"false", "no", "off", "0"}


def _convert_union(value: Any, args: tuple[Any, ...]) -> Any:
    if type(None) in args and (value is None or (isinstance(value, str) and value.lower() in {"none", "null"})):
        return None
    for arg in args:
        if arg is not type(None):
            try:
                return _convert(value, arg)
            except _MismatchError:
                continue
    raise _MismatchError


_LARGEST = 2**63 - 1


def _convert_number(value: Any, kind: type) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _MismatchError
    if kind is int and isinstance(value, float) and not value.is_integer():
        raise _MismatchError
    try:
        number = kind(value)
    except (ValueError, OverflowError) as error:
        raise _MismatchError from error
    if kind is float and not math.isfinite(number):  # nothing that an option could mean, and no JSON
        raise _MismatchError
    if kind is int and not -_LARGEST <= number <= _LARGEST:  # no count that anything could hold
        raise _MismatchError
    return number


def _convert_bool(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _TRUE | _FALSE:
        return value.lower() in _TRUE
    raise _MismatchError


def _convert_literal(value: Any, choices: tuple[Any, ...]) -> Any:
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return choice
    for choice in choices:
        if isinstance(value, str) and value == str(choice):
            return choice
    raise _MismatchError


def _convert_tuple(value: Any, kind: Any) -> tuple[Any, ...]:
    parts = [p.strip() for p in value.split(",") if p.strip()] if isinstance(value, str) else value
    if not isinstance(parts, list | tuple):
        raise _MismatchError
    return tuple(_convert(part, kind) for part in parts)


def _convert_dict(value: Any) -> dict[str, str]:
    if isinstance(value, str):
        pairs = [part.partition("=") for part in value.split(",") if part.strip()]
        if not all(separator for _, separator, _ in pairs):
            raise _MismatchError
        return {key.strip(): text.strip() for key, _, text in pairs}
    if isinstance(value, Mapping) and all(isinstance(v, str) for v in value.values()):
        return dict(value)
    raise _MismatchError


def _convert_table(value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        raise _MismatchError
    return dict(value)


def _convert(value: Any, kind: Any) -> Any:
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        return _convert_literal(value, args)
    if origin in (types.UnionType, typing.Union):
        return _convert_union(value, args)
    if origin is tuple:
        return _convert_tuple(value, args[0])
    if origin is dict and args[1] is Any:
        return _convert_table(value)
    if origin is dict:
        return _convert_dict(value)
    if kind in (int, float):
        return _convert_number(value, kind)
    if kind is bool:
        return _convert_bool(value)
    if kind in (str, Path) and isinstance(value, str | Path):
        return kind(value)
    raise _MismatchError


def parse_options(options: type[T], values: Mapping[str, Any], *, where: str) -> T:
    """Make an options object out of text or TOML values.

    Args:
        options: the attrs class.
        values: option values by name; text is converted to the option's type.
        where: where the values come from, for the messages, such as ``encoder.gcf``.

    Raises:
        OptionsError: one fault for every unknown key (with a suggestion), wrong type and violated limit.
    """
    fields = {field.name: field for field in attrs.fields(options)}  # type: ignore[arg-type]  # any attrs class
    hints = _hints(options)
    faults = [
        f"{where}: unknown option {quoted(name)}{suggest(name, fields)}; it has {', '.join(fields) or 'no options'}"
        for name in values
        if name not in fields
    ]
    converted: dict[str, Any] = {}
    for name, field in fields.items():
        if name not in values:
            if field.default is attrs.NOTHING:
                faults.append(f"{where}: option {name!r} is required: {field.metadata.get('help', '')}")
            continue
        try:
            converted[name] = _convert(values[name], hints[name])
        except _MismatchError:
            faults.append(f"{where}.{name}: expected {_type_name(hints[name])}, got {quoted(values[name])}")
            continue
        if field.validator is not None:
            try:
                field.validator(None, field, converted[name])  # limits look at the value alone
            except (ValueError, TypeError) as error:
                faults.append(f"{where}.{name}: {_validator_message(error, name)}")
    if faults:
        raise OptionsError(faults)
    try:
        return options(**converted)
    except ValueError as error:  # a rule across options, from __attrs_post_init__
        raise OptionsError(f"{where}: {error}") from error


def _validator_message(error: Exception, name: str) -> str:
    text = str(error.args[0]) if error.args else str(error)
    return text.removeprefix(f"'{name}' ").strip()
