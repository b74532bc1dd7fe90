"""Opening a transformer from a directory: quietly, without the network, without running code of its own, never half.

torch and transformers are imported where they are used, so that looking for files does not load them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from copl.errors import BackboneError, quoted
from copl.system.files import sha256

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

_CONFIG = "config.json"
_WEIGHTS = "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
_ADAPTER = "adapter_config.json"
_TOKENIZER = "tokenizer.json"
_TOKENIZER_CONFIG = "tokenizer_config.json"
_VOCABULARIES = (
    *(_TOKENIZER, "tokenizer.model", "spm.model", "spiece.model", "sentencepiece.bpe.model", "sentencepiece.model"),
    *("vocab.txt", "vocab.json", "tekken.json"),
)
_COUNTS = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers", "num_key_value_heads")
_FEW_LAYERS = 256  # some models run the same layers again
_WITHOUT_VOCABULARY = ("ByT5Tokenizer", "CanineTokenizer", "PerceiverTokenizer")
_OTHER_WEIGHTS = {
    "*.gguf": "for llama.cpp",
    "*.bin": "as a pickle",
    "*.pt": "as a pickle",
    "*.pth": "as a pickle",
    "*.ckpt": "as a pickle",
    "*.h5": "for TensorFlow",
    "*.msgpack": "for Flax",
    "*.onnx": "for ONNX",
}
FILES = ("*.json", "*.safetensors", "*.txt", "*.model", "*.jinja", "*.codes", "*.tiktoken")
"""What a model directory is read from: configuration, weights, tokenizer and chat templates."""


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
    lacking = [] if (directory / _CONFIG).is_file() else [_CONFIG]
    lacking += [name for name in _shards(directory) if not (directory / name).is_file()]
    if not any((directory / name).is_file() for name in _VOCABULARIES) and not _reads_bytes(directory):
        lacking.append(_TOKENIZER)
    elif (directory / "vocab.json").is_file() and not any(
        (directory / name).is_file() for name in (_TOKENIZER, "merges.txt", "bpe.codes")
    ):
        lacking.append("merges.txt")
    return lacking


def require_complete(directory: Path) -> None:
    """Check that a model directory has all its files.

    Raises:
        BackboneError: it lacks some.
    """
    lacking = missing_files(directory)
    if lacking:
        advice = _other_weights(directory)
        raise BackboneError(f"{directory} is no complete model: it lacks {', '.join(lacking)}{advice}")


def _other_weights(directory: Path) -> str:
    """What to do about an adapter, or weights in a format that is not read; empty where there are none."""
    if (directory / _ADAPTER).is_file():
        return "; it is an adapter: merge it into the model that it was made for, and name that"
    for pattern, kept in _OTHER_WEIGHTS.items():
        if first := min((path.name for path in directory.glob(pattern)), default=None):
            return (
                f"; {quoted(first)} holds weights {kept}, which copl does not read: open them by transformers and "
                "write them by model.save_pretrained and tokenizer.save_pretrained"
            )
    return ""


def _shards(directory: Path) -> list[str]:
    """The names of the files with the weights."""
    if not (directory / _INDEX).is_file():
        return [_WEIGHTS]
    try:
        return sorted({str(shard) for shard in _json(directory / _INDEX)["weight_map"].values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return [f"a readable {_INDEX}"]


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _reads_bytes(directory: Path) -> bool:
    """Whether the tokenizer is one that needs no vocabulary."""
    try:
        return str(_json(directory / _TOKENIZER_CONFIG)["tokenizer_class"]) in _WITHOUT_VOCABULARY
    except (OSError, ValueError, KeyError, TypeError):
        return False


def fingerprint_directory(directory: Path) -> str:
    """Return a hash of all configuration, weight and tokenizer files of a model directory."""
    digest = hashlib.sha256()
    kept = {pattern.removeprefix("*") for pattern in FILES}
    templates = directory / "additional_chat_templates"
    for path in sorted([*directory.iterdir(), *(templates.iterdir() if templates.is_dir() else [])]):
        if path.is_file() and path.suffix in kept:
            digest.update(f"{path.name}\0{sha256(path)}\n".encode())
    return digest.hexdigest()


def open_checkpoint(
    directory: Path, dtype: str, layers: int | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load a transformer without its head, and its tokenizer.

    Args:
        directory: holds ``config.json``, weights as safetensors and a tokenizer.
        dtype: name of the floating-point type the weights get, such as ``float32``.
        layers: how many layers to keep, from the lowest; all of them where it is None.

    Raises:
        BackboneError: something is missing, damaged, or does not fit together.
    """
    require_complete(directory)
    if (directory / _ADAPTER).is_file() and any(directory.glob("adapter_model.*")):
        raise BackboneError(
            f"{directory} holds a whole model and an adapter; merge the adapter into it, or move adapter_* elsewhere"
        )
    import torch
    from transformers import AutoModel, AutoTokenizer

    options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    # An adapter's configuration that was left behind is not looked for where there is no such folder.
    no_adapter = {"adapter_kwargs": {"subfolder": "no-adapter"}} if (directory / _ADAPTER).is_file() else {}
    lower: dict[str, Any] = {} if layers is None else {"num_hidden_layers": layers}
    with quiet(), _told(directory):
        _require_plausible(directory)
        model, info = AutoModel.from_pretrained(
            directory,
            dtype=getattr(torch, dtype),
            use_safetensors=True,
            output_loading_info=True,
            **options,
            **no_adapter,
            **lower,
        )
        tokenizer = AutoTokenizer.from_pretrained(directory, **options)
        _require_vocabulary(directory, tokenizer)
        tokenizer(["a", "b"], verbose=True)  # what is wrong with it shows here or nowhere
    # Poolers sit on top of the last hidden state, which is all that is used here.
    absent = sorted(name for name in info["missing_keys"] if not name.startswith("pooler."))
    if absent:
        raise BackboneError(
            f"{directory} lacks {len(absent)} of the weights of {type(model).__name__}, such as {absent[0]}; "
            "they would be random"
        )
    return model, tokenizer


@contextmanager
def _told(directory: Path) -> Iterator[None]:
    """Turn whatever foreign code comes upon in foreign files into one line.

    Raises:
        BackboneError: the files cannot be read.
    """
    try:
        yield
    except BackboneError:
        raise
    except Exception as error:
        raise BackboneError(_reason(directory, error)) from error
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # that of the tokenizers library, which is written in Rust
            raise
        raise BackboneError(_reason(directory, error)) from error


def _reason(directory: Path, error: BaseException) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "trust_remote_code" in text:
        return (
            f"the model in {directory} brings Python code of its own, which could do anything here, so copl never runs "
            "it; choose a model whose architecture transformers knows"
        )
    if "ignore_mismatched_sizes" in text:
        return f"the weights in {directory} have other sizes than its {_CONFIG} says; one of them is another model's"
    if "install" in text and any(directory.glob("*.model")) and not (directory / _TOKENIZER).is_file():
        return f"the tokenizer in {directory} needs one more package: pip install sentencepiece"
    return f"cannot load the model in {directory}: {text[:300]}"


def _require_plausible(directory: Path) -> None:
    """Check what nobody else does before it hurts: sizes no computer has room for, and attention from elsewhere.

    Raises:
        BackboneError: the configuration is none, has sizes that cannot be, or names attention code to download.
    """
    from safetensors import safe_open
    from transformers import AutoConfig

    raw = _json(directory / _CONFIG)
    if not isinstance(raw, dict):
        raise BackboneError(f"{directory / _CONFIG} is no configuration: it holds {type(raw).__name__}")
    kernel = str(raw.get("attn_implementation") or raw.get("_attn_implementation") or "")
    if "/" in kernel:
        raise BackboneError(
            f"{directory / _CONFIG} asks for attention code from elsewhere ({kernel}), which copl does not run; "
            "delete attn_implementation there"
        )
    count = 0
    for name in _shards(directory):
        with safe_open(directory / name, "pt") as tensors:
            count += len(tensors.keys())
    config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False).get_text_config()
    for name in _COUNTS:
        size = getattr(config, name, None)
        if isinstance(size, int) and size < 1:
            raise BackboneError(f"{directory / _CONFIG} says {name} {size}; it has to be 1 or more")
    layers = getattr(config, "num_hidden_layers", None)
    if isinstance(layers, int) and layers > max(count, _FEW_LAYERS):
        raise BackboneError(f"{directory / _CONFIG} says {layers} layers, but there are only {count} tensors")


def _require_vocabulary(directory: Path, tokenizer: PreTrainedTokenizerBase) -> None:
    """Check that the tokenizer had the files it is made from: without them it would come with a vocabulary of nothing.

    Raises:
        BackboneError: it had not.
    """
    if (directory / _TOKENIZER).is_file():
        return
    named = [tokenizer.vocab_files_names.get(kind) for kind in ("vocab_file", "merges_file")]
    lacking = [name for name in named if name and not (directory / name).is_file()]
    if lacking:
        raise BackboneError(f"{directory} lacks {' and '.join(lacking)}, which {type(tokenizer).__name__} is made from")
