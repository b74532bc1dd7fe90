"""Tensors on disk: one way to write them, whole or not at all, and one way to read them, checked.

What is read is what was meant to be there: the names, numbers of the right kind, sizes that agree with one another, and
nothing that is not finite. So a file that was damaged, cut short or made by somebody else is told in one line instead
of ending in scores that mean nothing.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, final

import numpy as np
from attrs import frozen
from safetensors import SafetensorError, safe_open

from copl.errors import CoplError, RunError
from copl.system.documents import parse_document, to_json
from copl.system.files import write_atomically

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

T = TypeVar("T")

Size: TypeAlias = int | str
"""How long a tensor is in one direction: a number, or a name that stands for one number in the whole file."""


@final
@frozen
class Expected:
    """What a tensor has to be.

    Attributes:
        kind: floating-point numbers, whole numbers, truth values, or any of these.
        shape: its size in each direction, such as ``("U", "D")``; None where any shape will do.
        types: the types of numbers that will do; None for all of the kind.
    """

    kind: Literal["float", "int", "bool", "any"]
    shape: tuple[Size, ...] | None
    types: frozenset[str] | None = None


def floats(*shape: Size) -> Expected:
    """Finite floating-point numbers of a shape, in single or double precision: half of it is never written."""
    return Expected("float", shape, _PRECISE)


def integers(*shape: Size) -> Expected:
    """Whole numbers of a shape."""
    return Expected("int", shape)


_HEADER = "copl"
_PRECISE = frozenset({"float64", "float32"})

ANY_FLOATS = Expected("float", None)
"""Finite floating-point numbers of any shape."""

ANYTHING = Expected("any", None)
"""Numbers or truth values of any shape."""

_KINDS: Mapping[str, tuple[str, frozenset[str]]] = {
    "float": ("floating-point numbers", frozenset({"float64", "float32", "float16", "bfloat16"})),
    "int": ("whole numbers", frozenset({"int64", "int32", "int16", "int8", "uint8"})),
    "bool": ("truth values", frozenset({"bool"})),
}
_ANY_TYPE = frozenset[str]().union(*(types for _, types in _KINDS.values()))


def like(tensor: Tensor) -> Expected:
    """What has the type and the shape of `tensor`."""
    kinds: tuple[Literal["float", "int", "bool"], ...] = ("float", "int", "bool")
    kind = next(kind for kind in kinds if _type_of(tensor) in _KINDS[kind][1])
    return Expected(kind, tuple(tensor.shape), frozenset({_type_of(tensor)}))


def _type_of(tensor: Any) -> str:
    return str(tensor.dtype).removeprefix("torch.")


@final
@frozen(eq=False)
class TensorFile:
    """What was read from a file.

    Attributes:
        path: the file.
        tensors: the tensors by name; NumPy arrays where `load_arrays` read them.
        header: what `save_tensors` was given beside them, as JSON; empty where nothing was.
    """

    path: Path
    tensors: Mapping[str, Any]
    header: str

    def __getitem__(self, name: str) -> Tensor:
        tensor: Tensor = self.tensors[name]
        return tensor

    def array(self, name: str) -> Any:
        """Return a tensor as a NumPy array."""
        tensor = self.tensors[name]
        return tensor if isinstance(tensor, np.ndarray) else tensor.numpy()

    def below(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors whose names begin with `prefix`, without it."""
        return {name.removeprefix(prefix): t for name, t in self.tensors.items() if name.startswith(prefix)}

    def read_header(
        self,
        kind: type[T],
        *,
        advice: str,
        version: Mapping[str, Any] | None = None,
        error: type[CoplError] = RunError,
    ) -> T:
        """Return what is kept beside the tensors, checked as `copl.system.documents.read_document` does."""
        return parse_document(
            self.header or "null", kind, where=f"{self.path}: header", advice=advice, version=version, error=error
        )


def save_tensors(path: Path, tensors: Mapping[str, Any], *, header: Any = None) -> None:
    """Write tensors or NumPy arrays as safetensors, whole or not at all; equal ones give equal files.

    Args:
        path: the file.
        tensors: by name.
        header: a record, or plain JSON values, to keep beside them.

    Raises:
        OSError: it cannot be written; the error names `path`.
    """
    from safetensors.torch import save_file

    plain = dict(_apart(tensors))
    # one entry only: safetensors writes several in any order
    metadata = {"format": "pt"} if header is None else {_HEADER: to_json(header)}

    def write(temporary: Path) -> None:
        try:
            save_file(plain, temporary, metadata=metadata)
        except SafetensorError as error:  # its text is all that is left of the system's error
            number = re.search(r"os error (\d+)", str(error))
            code = int(number[1]) if number else errno.EIO
            raise OSError(code, os.strerror(code)) from error

    write_atomically(path, write)


def content_checksum(said: str, values: Mapping[str, NDArray[Any] | Tensor]) -> str:
    """Return a checksum of arrays or tensors and of what else is said of them, for the header of their file."""
    digest = hashlib.sha256(said.encode("utf-8", "surrogatepass"))
    for name in sorted(values):
        value = values[name]
        digest.update(name.encode())
        digest.update(value.tobytes() if isinstance(value, np.ndarray) else _bytes(value))
    return digest.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    import torch

    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _apart(tensors: Mapping[str, Any]) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor on the processor, in one piece, in memory of its own."""
    import torch

    seen: set[int] = set()
    for name in sorted(tensors):
        value = tensors[name]
        tensor = torch.from_numpy(np.ascontiguousarray(value)) if isinstance(value, np.ndarray) else value
        tensor = tensor.detach().cpu().contiguous()
        memory = tensor.untyped_storage().data_ptr()
        yield name, tensor.clone() if memory in seen else tensor
        seen.add(memory)


def load_tensors(
    path: Path,
    expected: Mapping[str, Expected],
    *,
    advice: str,
    others: Mapping[str, Expected] | None = None,
    error: type[CoplError] = RunError,
) -> TensorFile:
    """Read tensors that `save_tensors` wrote.

    Args:
        path: the file.
        expected: what has to be there.
        advice: what to do when it cannot be read.
        others: what may be there besides, by name, or by how names begin, up to a dot or a slash, or with anything
            ("" for all); nothing else may.
        error: what to raise.

    Raises:
        CoplError: of the type `error`: the file is missing or damaged, or a line for each tensor that is missing, of
            another kind or size, or not finite.
    """
    return _load(path, expected, "pt", advice=advice, others=others or {}, error=error)


def load_arrays(path: Path, *, advice: str, others: Mapping[str, Expected]) -> TensorFile:
    """Read what `save_tensors` wrote as NumPy arrays, without torch.

    Args:
        path: the file.
        advice: what to do when it cannot be read.
        others: what may be there, as for `load_tensors`; nothing else may.

    Raises:
        RunError: as `load_tensors` does.
    """
    return _load(path, {}, "np", advice=advice, others=others, error=RunError)


def _load(
    path: Path,
    expected: Mapping[str, Expected],
    framework: Literal["pt", "np"],
    *,
    advice: str,
    others: Mapping[str, Expected],
    error: type[CoplError],
) -> TensorFile:
    if not path.is_file():
        raise error(f"{path}: {'not a file' if path.exists() else 'missing'}; {advice}")
    try:
        with safe_open(path, framework=framework) as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            read = TensorFile(path, tensors, (file.metadata() or {}).get(_HEADER, ""))
    except (SafetensorError, OSError, ValueError) as reason:
        raise error(f"{path}: damaged, or not a file of tensors; {advice}") from reason
    sizes: dict[str, int] = {}
    faults = [f"{name} is missing" for name in expected if name not in read.tensors]
    for name, tensor in read.tensors.items():
        wanted = expected.get(name) or next((kind for begin, kind in others.items() if _is_below(name, begin)), None)
        faults += [f"{name} does not belong there"] if wanted is None else _faults(name, tensor, wanted, sizes)
    if faults:
        raise error([f"{path}: {fault}; {advice}" for fault in faults])
    return read


def _is_below(name: str, begin: str) -> bool:
    return name == begin or (name.startswith(begin) and begin[-1:] in ("", ".", "/"))


def _faults(name: str, tensor: Any, wanted: Expected, sizes: dict[str, int]) -> Iterator[str]:
    words, types = _KINDS.get(wanted.kind, ("numbers or truth values", _ANY_TYPE))
    if _type_of(tensor) not in (wanted.types or types):
        of_type = "" if wanted.types is None else f" ({' or '.join(sorted(wanted.types))})"
        yield f"{name}: expected {words}{of_type}, got {_type_of(tensor)}"
        return
    if wanted.shape is not None:
        known = [sizes.get(size, size) if isinstance(size, str) else size for size in wanted.shape]
        sizes |= {size: length for size, length in zip(known, tensor.shape, strict=False) if isinstance(size, str)}
        if [sizes.get(size, size) if isinstance(size, str) else size for size in known] != list(tensor.shape):
            yield f"{name}: expected shape [{', '.join(map(str, known))}], got {list(tensor.shape)}"
            return
    finite = np.isfinite(tensor) if isinstance(tensor, np.ndarray) else tensor.isfinite()
    if not bool(finite.all()):
        yield f"{name}: holds what is no finite number"
