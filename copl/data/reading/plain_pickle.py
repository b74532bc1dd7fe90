"""Reads pickles that hold nothing but lists, tuples, dicts, text, bytes and numbers.

A pickle is a program; loading one runs whatever it names. Here a name is never looked up: opening a file that asks for
any is an error that says which. Two exceptions stand for plain values that NumPy leaves behind when it is pickled: its
scalars are taken as the text or number they hold, and its arrays are skipped. Both are rebuilt by this module without
NumPy's own code.
"""

from __future__ import annotations

import pickle
import struct
from pathlib import Path
from typing import Any, final

from copl.data.reading.files import open_bytes
from copl.errors import DataError, quoted


@final
class _RefusedError(Exception):
    """A pickle asks for something that is no plain value."""


class _Inert:
    """Takes the place of a NumPy object: accepts whatever it is built with and keeps nothing."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


@final
class _Dtype(_Inert):
    """Takes the place of a NumPy type: keeps the letter of its kind and its size, such as ``U4``."""

    code = ""

    def __init__(self, code: Any = "", *_: Any) -> None:
        self.code = code if isinstance(code, str) else ""


_SHOWN = 100

_FORMATS = {"i1": "b", "i2": "h", "i4": "i", "i8": "q", "u1": "B", "u2": "H", "u4": "I", "u8": "Q"}
_FORMATS |= {"f4": "f", "f8": "d", "b1": "?"}


@final
class _Scalar(_Inert):
    """Takes the place of the function that makes NumPy scalars.

    It is a class, for a pickle may set the attributes of a function, but not of one that has `__setstate__`.
    """

    def __new__(cls, dtype: Any = None, content: Any = b"", *_: Any) -> Any:
        """Return the text or number that a NumPy scalar of the given type and bytes holds."""
        code = dtype.code if isinstance(dtype, _Dtype) else ""
        try:
            if code.startswith("U"):
                return content.decode("utf-32-le").rstrip("\x00")
            return struct.unpack("<" + _FORMATS[code], content)[0]
        except (KeyError, AttributeError, UnicodeError, struct.error, TypeError) as error:
            raise _RefusedError(f"a NumPy scalar of type {quoted(code)}") from error


_STAND_INS: dict[tuple[str, str], Any] = {("numpy", "dtype"): _Dtype, ("numpy", "ndarray"): _Inert}
for _module in ("numpy.core", "numpy._core"):
    _STAND_INS[f"{_module}.multiarray", "scalar"] = _Scalar
    _STAND_INS[f"{_module}.multiarray", "_reconstruct"] = _Inert
    _STAND_INS[f"{_module}.numeric", "_frombuffer"] = _Inert


# The unpickler in Python, not the one in C: a few made-up bytes make the latter take tens of gigabytes for its memo.
_Unpickler: Any = pickle._Unpickler  # in CPython since 3.0, though not documented


@final
class _PlainUnpickler(_Unpickler):  # type: ignore[misc]  # its type is not known
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _STAND_INS:
            return _STAND_INS[module, name]
        raise _RefusedError(repr(f"{module}.{name}"[:_SHOWN]))

    def persistent_load(self, pid: object) -> object:
        raise _RefusedError("an object kept outside the file")


def read_plain_pickle(path: Path) -> object:
    """Return what a pickle holds, if that is plain values alone.

    Raises:
        DataError: the file asks for anything else, naming it; or it is damaged, or no pickle.
    """
    with open_bytes(path) as file:
        try:
            return _PlainUnpickler(file).load()
        except _RefusedError as error:
            raise DataError(
                f"{path}: refused: the pickle asks for {error}; only lists, tuples, dicts, text and numbers are read"
            ) from None
        except Exception as error:
            # A damaged or hostile stream makes the unpickler raise nearly anything.
            reason = (str(error).splitlines() or [""])[0]
            raise DataError(f"{path}: not a whole pickle of plain values ({type(error).__name__}: {reason})") from error
