"""Opening a transformer from a directory: quietly, without the network, and never half.

torch and transformers are imported where they are used, so that looking for files does not load them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError

from copl.errors import BackboneError
from copl.system.files import sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_INDEX = "model.safetensors.index.json"
# What transformers raises on files that are missing, damaged or of a kind it does not know.
_UNREADABLE = (OSError, ValueError, KeyError, TypeError, RuntimeError, ImportError, SafetensorError)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' progress bars and advice off the terminal; what matters is raised as an error here."""
    from transformers.utils import logging as transformers_logging

    verbosity, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def missing_files(directory: Path) -> list[str]:
    """Return the names of the files a model directory lacks: configuration, safetensors weights, tokenizer."""
    lacking = [] if (directory / "config.json").is_file() else ["config.json"]
    shards = ["model.safetensors"]
    if (directory / _INDEX).is_file():
        try:
            shards = sorted(set(json.loads((directory / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()))
        except (ValueError, KeyError, TypeError, AttributeError):
            shards = [f"a readable {_INDEX}"]
    lacking += [name for name in shards if not (directory / name).is_file()]
    if not any(
        (directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json")
    ):
        lacking.append("tokenizer.json")
    return lacking


def fingerprint_directory(directory: Path) -> str:
    """Return a hash of all configuration, weight and tokenizer files of a model directory."""
    digest = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        if path.is_file() and path.suffix in {".json", ".safetensors", ".txt", ".model", ".jinja"}:
            digest.update(f"{path.name}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def open_checkpoint(directory: Path, dtype: str) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a transformer without its head, and its tokenizer.

    Args:
        directory: holds ``config.json``, weights as safetensors and a tokenizer.
        dtype: name of the floating-point type the weights get, such as ``float32``.

    Raises:
        BackboneError: something is missing, damaged, or does not fit together.
    """
    lacking = missing_files(directory)
    if lacking:
        raise BackboneError(f"{directory} is no complete model: it lacks {', '.join(lacking)}")
    import torch
    from transformers import AutoModel, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
    try:
        with quiet():
            model, info = AutoModel.from_pretrained(directory, dtype=getattr(torch, dtype), **options)
            tokenizer = AutoTokenizer.from_pretrained(directory, local_files_only=True)
    except _UNREADABLE as error:
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(f"cannot load the model in {directory}: {reason}") from error
    # Poolers sit on top of the last hidden state, which is all that is used here.
    absent = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if absent:
        raise BackboneError(
            f"{directory} lacks {len(absent)} of the weights of {type(model).__name__}, such as {absent[0]}; "
            "they would be random"
        )
    return model, tokenizer
