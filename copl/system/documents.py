"""Our own JSON files: attrs records, read through one typed reader that says file, key and what was expected.

What a file holds is a frozen attrs class; its fields may be ``str``, ``int``, ``float``, ``bool``, ``Path``, ``Any``,
``X | None``, ``tuple[X, ...]``, ``Mapping[str, X]`` and other such classes. Nothing is converted in silence: a number
is no text, text no list, and what JSON cannot say (NaN, infinity, whole numbers beyond 64 bits) is a fault. Keys that a
class does not have are left alone, so that a later version may add some.
"""

from __future__ import annotations

import json
import math
import re
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

import attrs
import cattrs
from cattrs.cols import homogenous_tuple_structure_factory, mapping_structure_factory
from cattrs.gen import make_dict_structure_fn
from cattrs.strategies import configure_union_passthrough

from copl.errors import CoplError, RunError, of_json, quoted
from copl.system.files import write_text

T = TypeVar("T")

_SHOWN = 5
"""Faults of one file that are told; the others come to light when these are mended."""

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


class _MismatchError(ValueError):
    """A value of another type than its field."""

    def __init__(self, expected: str, value: object) -> None:
        super().__init__(f"expected {expected}, got {'nothing' if value is None else quoted(value)}")


def write_document(path: Path, value: object, *, indent: int | None = 1) -> None:
    """Write a record, or plain JSON values, as a JSON file, whole or not at all.

    Args:
        path: the file.
        value: the record.
        indent: by how much what is inside is moved in; None writes one line, many times as fast where lists are long.

    Raises:
        ValueError: it holds a number that is not finite.
    """
    write_text(path, to_json(value, indent=indent) + "\n")


def to_json(value: object, *, indent: int | None = None) -> str:
    """Return a record, or plain JSON values, as JSON."""
    return json.dumps(_converter.unstructure(value), indent=indent, allow_nan=False)


def read_document(
    path: Path,
    kind: type[T],
    *,
    advice: str,
    version: Mapping[str, object] | None = None,
    error: type[CoplError] = RunError,
) -> T:
    """Read a JSON file that `write_document` wrote.

    Args:
        path: the file.
        kind: the record it holds, or a type such as ``tuple[Record, ...]``.
        advice: what to do when it cannot be read.
        version: keys that tell what the file is, with the value that is read here, or a tuple of values; looked at
            before the rest.
        error: what to raise.

    Raises:
        CoplError: of the type `error`: the file is missing, damaged, foreign or of another version, a line a fault.
    """
    if not path.is_file():
        raise error(f"{path}: {'not a file' if path.exists() else 'missing'}; {advice}")
    try:
        content = path.read_bytes()
    except OSError as reason:
        raise error(f"{path}: cannot be read: {reason.strerror}; {advice}") from reason
    return parse_document(content, kind, where=str(path), advice=advice, version=version, error=error)


def parse_document(
    content: bytes | str,
    kind: type[T],
    *,
    where: str,
    advice: str,
    version: Mapping[str, object] | None = None,
    error: type[CoplError] = RunError,
) -> T:
    """Read JSON that lies elsewhere than in a file of its own, as `read_document`; `where` names it."""
    try:
        value = _parsed(content)
    except (ValueError, RecursionError) as reason:
        raise error(f"{where}: damaged: {of_json(reason)}; {advice}") from reason
    for key, wanted in (version or {}).items():
        held = value.get(key) if isinstance(value, dict) else None
        readable = wanted if isinstance(wanted, tuple) else (wanted,)
        if not any(held == one and type(held) is type(one) for one in readable):
            shown = "nothing" if held is None else quoted(held)
            writer = value.get("copl") if isinstance(value, dict) else None
            shown += f", written by copl {quoted(writer)}" if isinstance(writer, str) else ""
            raise error(
                f"{where}: {key} is {shown}, this version of copl reads {' or '.join(map(repr, readable))}; {advice}"
            )
    record: T = structure(value, kind, where=where, advice=advice, error=error)
    return record


def structure(
    value: object,
    kind: Any,
    *,
    where: str,
    advice: str,
    error: type[CoplError] = RunError,
    converter: cattrs.Converter | None = None,
) -> Any:
    """Make a record out of plain JSON values, as `read_document`; `converter` knows further types."""
    try:
        return (converter or _converter).structure(value, kind)
    except Exception as reason:  # noqa: BLE001  # whatever a class says of its values; cattrs gathers it in groups
        faults = cattrs.transform_error(reason, path="", format_exception=_in_words)
    raise error([f"{where}: {_placed(fault)}; {advice}" for fault in faults[:_SHOWN]])


def _parsed(content: bytes | str) -> object:
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    value = finite_json(raw.decode("utf-8"), parse_int=_whole)
    if _SURROGATE.search(raw):
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair is no text
    return value


def finite_json(text: str, *, parse_int: Callable[[str], int] = int) -> Any:
    """Return what JSON says; a number that is not finite is a ValueError, as is what `parse_int` refuses."""
    return json.loads(text, parse_constant=_no_number, parse_float=_finite, parse_int=parse_int)


def _no_number(text: str) -> float:
    raise ValueError(f"{text} is no number")


def _finite(text: str) -> float:
    number = float(text)
    return number if math.isfinite(number) else _no_number(text)


def _whole(text: str) -> int:
    if len(text) > 20 or not -(2**63) <= int(text) < 2**63:
        raise ValueError(f"a whole number of {len(text.lstrip('-'))} digits")
    return int(text)


def _in_words(reason: BaseException, kind: type | None) -> str:
    return "missing" if isinstance(reason, KeyError) else str(reason)


def _placed(fault: str) -> str:
    """Return a fault of cattrs, ``what @ .key``, with the key first."""
    what, _, key = fault.rpartition(" @ ")
    return f"{key.removeprefix('.')}: {what}" if key else what


def _exactly(kind: type, expected: str) -> Callable[[object, object], Any]:
    def structure(value: object, _: object) -> object:
        if type(value) is not kind:
            raise _MismatchError(expected, value)
        return value

    return structure


def _number(value: Any, _: object) -> float:
    if type(value) not in (int, float):
        raise _MismatchError("a number", value)
    return float(value)


def _one_of(kind: object) -> Callable[[object, object], object]:
    choices = typing.get_args(kind)

    def structure(value: object, _: object) -> object:
        if value not in choices:
            raise _MismatchError(" or ".join(map(str, choices)), value)
        return value

    return structure


def _of(kind: type, expected: str, structure: Any) -> Callable[[object, object], object]:
    """Let values of the right JSON type through to what looks inside."""

    def checked(value: object, wanted: object) -> object:
        if not isinstance(value, kind):
            raise _MismatchError(expected, value)
        return structure(value, wanted)

    return checked


def _tuple_of(kind: Any, converter: cattrs.Converter) -> Callable[[Any, object], object]:
    one_by_one: Any = homogenous_tuple_structure_factory(kind, converter)
    plain = typing.get_args(kind)[0]
    if plain not in (str, int, bool):
        return cast("Callable[[Any, Any], Any]", one_by_one)

    def structure(value: list[object], wanted: object) -> object:
        return tuple(value) if set(map(type, value)) <= {plain} else one_by_one(value, wanted)  # which says where

    return structure


def _is_literal(kind: object) -> bool:
    return bool(typing.get_origin(kind) == Literal)


def _is_made_of(kind: object, container: type) -> bool:
    origin: object = typing.get_origin(kind)
    return isinstance(origin, type) and issubclass(origin, container)


def strict_converter() -> cattrs.Converter:
    """Return a converter of its own for a module whose files hold further types."""
    converter = cattrs.Converter()
    for kind, expected in ((str, "text"), (int, "a whole number"), (bool, "true or false")):
        converter.register_structure_hook(kind, _exactly(kind, expected))
    converter.register_structure_hook(float, _number)
    converter.register_structure_hook(Path, lambda value, _: Path(_exactly(str, "a path")(value, str)))
    converter.register_unstructure_hook(Path, str)
    converter.register_structure_hook_factory(_is_literal, _one_of)
    configure_union_passthrough(str | int | float | bool | None, converter)
    converter.register_structure_hook_factory(
        attrs.has, lambda kind: _of(dict, "a table of values", make_dict_structure_fn(kind, converter))
    )
    converter.register_structure_hook_factory(
        lambda kind: _is_made_of(kind, tuple), lambda kind: _of(list, "a list", _tuple_of(kind, converter))
    )
    converter.register_structure_hook_factory(
        lambda kind: _is_made_of(kind, Mapping),
        lambda kind: _of(dict, "a table of values", mapping_structure_factory(kind, converter, structure_to=dict)),
    )
    return converter


_converter = strict_converter()
