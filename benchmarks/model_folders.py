"""Folders that people give as a backbone and that are none that can be read: each has to be refused, with a reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.tiny_models import byte_tokenizer, tiny_model
from copl.errors import CoplError
from copl.reward.backbones.catalogue import HuggingFace, HuggingFaceOptions
from copl.reward.backbones.checkpoints import quiet

RAN = "was-run"
_CODE = f"""
from pathlib import Path
Path(__file__).with_name("{RAN}").touch()
from transformers import BertConfig, BertModel
class OwnConfig(BertConfig):
    model_type = "own"
class OwnModel(BertModel):
    config_class = OwnConfig
"""


def _whole(architecture: str, directory: Path, **config: Any) -> None:
    with quiet():
        tiny_model(architecture).save_pretrained(directory)
        byte_tokenizer(chat=False).save_pretrained(directory)
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **config}))


def _remote_code(directory: Path) -> None:
    classes = {"AutoConfig": "own.OwnConfig", "AutoModel": "own.OwnModel"}
    _whole("bert", directory, model_type="own", auto_map=classes)
    (directory / "own.py").write_text(_CODE)


def _gguf(directory: Path) -> None:
    (directory / "model.Q4_K_M.gguf").write_bytes(b"GGUF\x03\0\0\0")


def _pickle(directory: Path) -> None:
    _whole("bert", directory)
    (directory / "model.safetensors").unlink()
    torch.save({"embeddings.weight": torch.zeros(1)}, directory / "pytorch_model.bin")


def _adapter(directory: Path) -> None:
    (directory / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    (directory / "adapter_model.safetensors").write_bytes(b"\2\0\0\0\0\0\0\0{}")


def _other_sizes(directory: Path) -> None:
    _whole("llama", directory, hidden_size=48)


FOLDERS: dict[str, tuple[Callable[[Path], None], str]] = {
    "an architecture of its own, with its Python code": (_remote_code, "Python code of its own"),
    "GGUF": (_gguf, "holds weights for llama.cpp"),
    "pickled weights": (_pickle, "holds weights as a pickle"),
    "an adapter without its model": (_adapter, "it is an adapter: merge it"),
    "T5": (lambda directory: _whole("t5", directory), "is an encoder-decoder"),
    "weights of other sizes than the configuration's": (_other_sizes, "have other sizes than its config.json says"),
}
"""By what they are: what writes them, and what the refusal has to say."""


def refusal(write: Callable[[Path], None], directory: Path) -> str:
    """Return what is said of a folder, or FAULT."""
    directory.mkdir()
    write(directory)
    try:
        HuggingFace(HuggingFaceOptions(str(directory))).load()
    except CoplError as error:
        ran = (directory / RAN).exists()
        return (
            "FAULT: its code was run" if ran else "refused: " + " ".join(error.faults).replace(f"{directory}", "FOLDER")
        )
    except Exception as error:  # noqa: BLE001  # the kind of thing that is looked for
        return f"FAULT: {type(error).__name__}: {' '.join(str(error).split())[:120]}"
    return "FAULT: it was opened"
