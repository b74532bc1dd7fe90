"""Stock PEFT adapter files on disk, and the marker that tells a mixture from a plain LoRA.

A mixture's directory holds what PEFT itself would write (``adapter_config.json``, ``adapter_model.safetensors``) and
``mixture.json``: the layout, the options, the format version and a checksum of the other two. The marker is written
last and removed first, so a directory that carries it is whole. Stock PEFT would run all experts at once, unmasked; it
stops instead at an initialisation it does not know, whose name says what to do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import attrs
from safetensors.torch import load_file, save_file

from copl.errors import OptionsError, RunError
from copl.experts.layout import RankLayout
from copl.experts.options import MixtureOptions
from copl.options import options_to_dict, parse_options
from copl.system.files import sha256, write_atomically, write_text

if TYPE_CHECKING:
    from torch import Tensor

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"
MARKER_FILE = "mixture.json"
FORMAT = "copl mixture of LoRA experts"
FORMAT_VERSION = 1
REFUSAL = "a copl mixture of experts: open the run with copl.Model, or write one user's adapter with `copl export`"


@final
@attrs.frozen(eq=False)
class SavedMixture:
    """A mixture as read from disk, checked against its checksums.

    Attributes:
        layout: which rank columns belong to which expert.
        options: the options it was made with.
        config: PEFT's own configuration of the adapter, plain JSON values.
        tensors: the adapter's weights by PEFT's names.
    """

    layout: RankLayout
    options: MixtureOptions
    config: Mapping[str, Any]
    tensors: Mapping[str, Tensor]


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2, sort_keys=True) + "\n"
    write_text(path, text)


def write_adapter(directory: Path, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> None:
    """Write the two stock PEFT files, each atomically.

    Args:
        directory: made where it does not exist.
        config: PEFT's configuration; sets are written as sorted lists, so equal adapters give equal files.
        tensors: the weights by PEFT's names.
    """
    directory.mkdir(parents=True, exist_ok=True)
    plain = {key: sorted(value) if isinstance(value, set) else value for key, value in config.items()}
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_atomically(
        directory / WEIGHTS_FILE, lambda temporary: save_file(contiguous, temporary, metadata={"format": "pt"})
    )
    _write_json(directory / CONFIG_FILE, plain)


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
    marker = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "layout": attrs.asdict(layout),
        "options": options_to_dict(options),
        "sha256": {name: sha256(directory / name) for name in (CONFIG_FILE, WEIGHTS_FILE)},
    }
    _write_json(directory / MARKER_FILE, marker)


def _read_marker(directory: Path) -> dict[str, Any]:
    path = directory / MARKER_FILE
    if not path.is_file():
        if (directory / CONFIG_FILE).is_file():
            raise RunError(f"{directory} holds a plain adapter, not a mixture of experts: it has no {MARKER_FILE}")
        raise RunError(f"{directory} holds no adapter: {MARKER_FILE} is missing; train again")
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunError(f"{path} is damaged ({error}); train again or restore it") from error
    if not isinstance(marker, dict) or marker.get("format") != FORMAT:
        raise RunError(f"{path} was not written by copl: it does not say {FORMAT!r}")
    if marker.get("version") != FORMAT_VERSION:
        raise RunError(
            f"{path} has format version {marker.get('version')!r}, this copl reads {FORMAT_VERSION}; "
            "use the copl that wrote it, or train again"
        )
    return marker


def _check_files(directory: Path, checksums: Mapping[str, Any]) -> None:
    faults = []
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        path = directory / name
        if not path.is_file():
            faults.append(f"{path} is missing; train again or restore it")
        elif sha256(path) != checksums.get(name):
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
        layout = RankLayout(**marker["layout"])
        options = parse_options(MixtureOptions, marker["options"], where=MARKER_FILE)
        checksums = dict(marker["sha256"])
    except (KeyError, TypeError, ValueError, OptionsError) as error:
        raise RunError(f"{directory / MARKER_FILE} is damaged ({error}); train again or restore it") from error
    _check_files(directory, checksums)
    config = json.loads((directory / CONFIG_FILE).read_text(encoding="utf-8"))
    config["init_lora_weights"] = True
    return SavedMixture(layout, options, config, load_file(directory / WEIGHTS_FILE))
