"""What was made of texts, kept by text: each is read once, whoever asks for it and whatever else is asked for."""

from __future__ import annotations

import hashlib
import os
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from attrs import frozen
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from copl.plugins import OWN_PACKAGE
from copl.runs.code import modules_digest
from copl.system.files import files_below, is_scratch, sha256, write_atomically
from copl.system.tensors import Expected, load_tensors, save_tensors

if TYPE_CHECKING:
    from copl.records import IntArray

READING = ("copl.reward.backbones", "copl.reward.reading", "copl.data.canonical", "copl.experts.mixture")
"""The code that decides what a text is read as."""

_IN_MEMORY_BYTES = 512 << 20
_BYTES_BESIDE = 400  # of a text's key and tensor, beside its rows
_ON_DISK_BYTES = 8 << 30
_SUFFIX = ".safetensors"
_SINGLE = {
    "keys": Expected("int", ("N", "K"), frozenset({"uint8"})),
    "values": Expected("float", ("N", "H"), frozenset({"float32"})),
}


def kept_by(backbone: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what readings depend on, beside weights and length: the backbone's options and the code that reads.

    Of this package that is not all code, so that readings outlive an upgrade of the rest.

    Args:
        backbone: what results of the backbone depend on, from `Choice.key`.
    """
    if backbone["package"] == OWN_PACKAGE:
        backbone = {name: backbone[name] for name in ("name", "options")}
    return {**backbone, "reading": modules_digest(*READING)}


@final
@frozen(eq=False)
class UnevenRows:
    """Rows of numbers of some texts, an uneven number each, such as the hidden states of their tokens.

    Attributes:
        blocks: where the rows lie [n, H] each; in memory, or mapped from a file.
        block: which block holds each text's rows [N].
        start: the first of them there [N].
        length: how many there are [N].
    """

    blocks: Sequence[Tensor]
    block: IntArray
    start: IntArray
    length: IntArray

    def __len__(self) -> int:
        return len(self.block)

    def text(self, place: int | np.integer[Any]) -> Tensor:
        """Return the rows [L, H] of the text at `place`."""
        start = int(self.start[place])
        rows: Tensor = self.blocks[self.block[place]][start : start + int(self.length[place])]
        return rows

    def flat(self, places: Sequence[int] | IntArray) -> Tensor:
        """Return the rows [S, H] of the texts at `places`, one text after the other."""
        return torch.cat([self.text(place) for place in places])

    def padded(self, places: Sequence[int] | IntArray, attention_mask: Tensor) -> Tensor:
        """Return the rows [B, L, H] of the texts at `places`, padded as `attention_mask` [B, L] says."""
        rows = self.flat(places)
        padded = rows.new_zeros((*attention_mask.shape, rows.shape[1]))
        padded[attention_mask.bool()] = rows
        return padded

    def padded_to(self, places: Sequence[int] | IntArray, width: int) -> Tensor:
        """Return the rows [B, L, H] of the texts at `places`, padded on the right to `width` L."""
        lengths = torch.from_numpy(self.length[np.asarray(places)])
        return self.padded(places, torch.arange(width) < lengths[:, None])


@final
class KeptRows:
    """Rows of numbers by the key of the text that they were made of.

    What is put in goes to a file in `directory`, from where it is mapped, so that other runs find it and memory holds
    no more than is in use; files are named by their content and written whole. Without a directory, or where that
    cannot be written, rows stay in memory, until `forget` finds more than 512 MiB there: then those go that were asked
    for longest ago.
    """

    def __init__(self, directory: Path | None = None) -> None:
        self._directory = directory
        self._blocks: list[Tensor] = []
        self._files: dict[str, int] = {}  # the block of each
        self._recent: OrderedDict[str, Tensor] = OrderedDict()  # in memory, what was asked for last at the end
        self._recent_bytes = 0
        self._where: dict[str, tuple[int, int, int]] = {}

    def add_file(self, path: Path) -> None:
        """Take in a file that `save` wrote.

        Raises:
            RunError: it is missing or damaged.
        """
        read = load_tensors(path, _SINGLE, advice=f"delete {path.parent} and train again")
        keys = _unpacked(read["keys"])
        self._add(keys, np.ones(len(keys), dtype=np.int64), read["values"])

    def refresh(self) -> None:
        """Take in what other runs have put into the directory; a file that is damaged is taken away."""
        if self._directory is None or not self._directory.is_dir():
            return
        for path in sorted(self._directory.glob(f"[0-9a-f]*{_SUFFIX}")):
            if path.name in self._files:
                continue
            try:
                if not sha256(path).startswith(path.stem):
                    path.unlink()
                    continue
                os.utime(path)  # used last now
                self._files[path.name] = self._add(*_read(path))
            except (OSError, SafetensorError, KeyError, ValueError):
                continue  # taken away meanwhile, or of another kind: its texts are read again

    def keys(self) -> list[str]:
        """Return the texts of which there is something."""
        return [*self._where, *self._recent]

    def lacks(self, key: str) -> bool:
        """Whether there is nothing of the text `key`."""
        return key not in self._where and key not in self._recent

    def put(self, keys: Sequence[str], lengths: Iterable[int], rows: Tensor) -> None:
        """Keep rows.

        Args:
            keys: the texts.
            lengths: how many rows each text has.
            rows: the rows [S, H] of the first text, then those of the second, and so on.
        """
        lengths = np.fromiter(lengths, dtype=np.int64, count=len(keys))
        if self._directory is not None:
            try:
                path = _write(self._directory, keys, lengths, rows)
                self._files[path.name] = self._add(*_read(path))
                return
            except OSError:  # a full disk, or a directory of somebody else's: go on in memory
                self._directory = None
        for key, own in zip(keys, torch.split(rows, lengths.tolist()), strict=True):
            self._remember(key, own.clone())

    def get(self, keys: Sequence[str]) -> UnevenRows:
        """Return the rows of the texts `keys`, all of which are there."""
        own: list[Tensor] = []
        where: list[tuple[int, int, int]] = []
        for key in keys:
            if key in self._where:
                where.append(self._where[key])
                continue
            self._recent.move_to_end(key)
            where.append((len(self._blocks) + len(own), 0, len(self._recent[key])))
            own.append(self._recent[key])
        columns = np.array(where, dtype=np.int64).reshape(-1, 3).T
        return UnevenRows((*self._blocks, *own), *np.ascontiguousarray(columns))

    def get_single(self, keys: Sequence[str]) -> Tensor:
        """Return the rows [N, H] of the texts `keys`, each of which has exactly one."""
        kept = self.get(keys)
        values = torch.empty(len(kept), kept.blocks[-1].shape[1] if kept.blocks else 0)
        in_files = kept.block < len(self._blocks)
        for block in np.unique(kept.block[in_files]).tolist():
            places = np.flatnonzero(kept.block == block)
            values[torch.from_numpy(places)] = self._blocks[block][torch.from_numpy(kept.start[places])]
        if not in_files.all():
            recent = [kept.blocks[block] for block in kept.block[~in_files].tolist()]
            values[torch.from_numpy(~in_files)] = torch.cat(recent)
        return values

    def save(self, keys: Sequence[str], path: Path) -> None:
        """Write the rows of the texts `keys`, one each, as a file that `add_file` takes."""
        save_tensors(path, {"keys": _packed(keys), "values": self.get_single(keys)})

    def forget(self) -> None:
        """Forget rows in memory beyond 512 MiB, those asked for longest ago first; what `get` has given out is left."""
        while self._recent_bytes > _IN_MEMORY_BYTES and len(self._recent) > 1:
            _, rows = self._recent.popitem(last=False)
            self._recent_bytes -= rows.nbytes + _BYTES_BESIDE

    @property
    def files(self) -> Set[str]:
        """Names of the files in use."""
        return self._files.keys()

    def _remember(self, key: str, rows: Tensor) -> None:
        former = self._recent.pop(key, None)
        if former is not None:
            self._recent_bytes -= former.nbytes + _BYTES_BESIDE
        self._recent[key] = rows
        self._recent_bytes += rows.nbytes + _BYTES_BESIDE

    def _add(self, keys: Sequence[str], lengths: IntArray, rows: Tensor) -> int:
        self._blocks.append(rows)
        block = len(self._blocks) - 1
        starts = np.cumsum(lengths) - lengths
        places = zip(starts.tolist(), lengths.tolist(), strict=True)
        self._where |= {key: (block, start, count) for key, (start, count) in zip(keys, places, strict=True)}
        return block


def clear_away(root: Path, in_use: Set[str]) -> None:
    """Take away files under `root` until 8 GiB are left, those used longest ago first, but none that are in use."""
    files = [(path, about) for path, about in files_below(root) if path.suffix == _SUFFIX and not is_scratch(path)]
    size = sum(status.st_size for _, status in files)
    for path, status in sorted(files, key=lambda file: file[1].st_mtime):
        if size <= _ON_DISK_BYTES:
            break
        if path.name not in in_use:
            size -= status.st_size
            path.unlink(missing_ok=True)


def _packed(keys: Sequence[str]) -> Tensor:
    """Keys as bytes [N, K]: a file's header is no place for a million of them."""
    return torch.from_numpy(np.frombuffer(bytes.fromhex("".join(keys)), dtype=np.uint8).reshape(len(keys), -1).copy())


def _unpacked(keys: Tensor) -> list[str]:
    return [row.tobytes().hex() for row in keys.numpy()]


def _write(directory: Path, keys: Sequence[str], lengths: IntArray, rows: Tensor) -> Path:
    content = save({"keys": _packed(keys), "lengths": torch.from_numpy(lengths), "values": rows.contiguous()})
    path = directory / f"{hashlib.sha256(content).hexdigest()[:32]}{_SUFFIX}"
    write_atomically(path, lambda temporary: temporary.write_bytes(content))
    return path


def _read(path: Path) -> tuple[list[str], IntArray, Tensor]:
    with safe_open(path, framework="pt") as file:
        return _unpacked(file.get_tensor("keys")), file.get_tensor("lengths").numpy(), file.get_tensor("values")


def digest_of(keys: Iterable[str]) -> str:
    """Return a name for a set of texts."""
    return hashlib.sha256("".join(sorted(keys)).encode()).hexdigest()
