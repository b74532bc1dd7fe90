"""Stock PEFT adapter files on disk, and the marker that tells a mixture from a plain LoRA.

A mixture's directory holds what PEFT itself would write (``adapter_config.json``, ``adapter_model.safetensors``) and
``mixture.json``: the layout, the options, the format version and a checksum of the other two. The marker is written
last and removed first, so a directory that carries it is whole. Stock PEFT would run all experts at once, unmasked; it
stops instead at an initialisation it does not know, whose name says what to do.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs

from copl.errors import OptionsError, RunError
from copl.experts.layout import RankLayout
from copl.experts.options import MixtureOptions
from copl.options import options_to_dict, parse_options
from copl.system.documents import read_document, write_document
from copl.system.files import checksum
from copl.system.tensors import ANY_FLOATS, load_tensors, save_tensors

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MARKER_FILE = "mixture.json"
FORMAT = "copl mixture of LoRA experts"
FORMAT_VERSION = 1
_AGAIN = "train again or restore it"
_CONFIG: Any = Mapping[str, Any]
REFUSAL = "a copl mixture of experts: open the run with copl.Model, or write one user's adapter with `copl export`"


@final
@attrs.frozen
class _Marker:
    format: str
    version: int
    layout: RankLayout
    options: Mapping[str, Any]
    sha256: Mapping[str, str]


@final
@attrs.frozen(eq=False)
class SavedMixture:
    """A mixture as read from disk, checked against its checksums.

    Attributes:
        layout: which rank columns belong to which expert.
        options: the options it was made with.
        config: PEFT's own configuration of the adapter, plain JSON values.
        tensors: the adapter's weights by PEFT's names.
        directory: where it was read.
    """

    layout: RankLayout
    options: MixtureOptions
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]
    directory: Path

    @property
    def num_gates(self) -> int:
        """Number G of gates whose weights it takes: 1, or as many as there are adapted modules."""
        num_modules = sum(".lora_A." in name for name in self.tensors)
        return num_modules if self.options.gates == "per-layer" else 1


def write_adapter(directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write the two stock PEFT files, each atomically.

    Args:
        directory: made where it does not exist.
        config: PEFT's configuration; sets are written as sorted lists, so equal adapters give equal files.
        tensors: the weights by PEFT's names.
    """
    directory.mkdir(parents=True, exist_ok=True)
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    save_tensors(directory / WEIGHTS_FILE, tensors)
    write_document(directory / CONFIG_FILE, dict(sorted(plain.items())))


def write_mixture(
    directory: Path,
    config: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    *,
    layout: RankLayout,
    options: MixtureOptions,
) -> None:
    """Write the stock PEFT files and then the marker that makes them a mixture."""
    (directory / MARKER_FILE).unlink(missing_ok=True)
    write_adapter(directory, {**config, "init_lora_weights": REFUSAL}, tensors)
    checksums = {name: checksum(directory / name) for name in (CONFIG_FILE, WEIGHTS_FILE)}
    write_document(
        directory / MARKER_FILE, _Marker(FORMAT, FORMAT_VERSION, layout, options_to_dict(options), checksums)
    )


def _read_marker(directory: Path) -> _Marker:
    path = directory / MARKER_FILE
    if not path.is_file():
        if (directory / CONFIG_FILE).is_file():
            raise RunError(f"{directory} holds a plain adapter, not a mixture of experts: it has no {MARKER_FILE}")
        raise RunError(f"{directory} holds no adapter: {MARKER_FILE} is missing; train again")
    return read_document(path, _Marker, advice=_AGAIN, version={"format": FORMAT, "version": FORMAT_VERSION})


def _check_files(directory: Path, checksums: Mapping[str, Any]) -> None:
    faults = []
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        path = directory / name
        if not path.is_file():
            faults.append(f"{path} is missing; train again or restore it")
        elif checksum(path) != checksums.get(name):
            faults.append(f"{path} is damaged or foreign: its checksum is not the one in {MARKER_FILE}; train again")
    if faults:
        raise RunError(faults)


def read_mixture(directory: Path) -> SavedMixture:
    """Read what `write_mixture` wrote.

    Raises:
        RunError: a file is missing, damaged, foreign or of another format version.
    """
    marker = _read_marker(directory)
    try:
        options = parse_options(MixtureOptions, marker.options, where=f"{directory / MARKER_FILE}: options")
    except OptionsError as error:
        raise RunError(error.faults) from error
    _check_files(directory, marker.sha256)
    config = {**read_document(directory / CONFIG_FILE, _CONFIG, advice=_AGAIN), "init_lora_weights": True}
    tensors = load_tensors(directory / WEIGHTS_FILE, {}, others={"": ANY_FLOATS}, advice=_AGAIN)
    return SavedMixture(marker.layout, options, config, tensors.tensors, directory)
