"""Language models that write, as plain directories that transformers, TRL and vLLM open by their path."""

from __future__ import annotations

from pathlib import Path

from copl.errors import BackboneError, in_brief
from copl.reward.backbones.catalogue import HuggingFace, HuggingFaceOptions, SmolLm2, SmolLm2Options
from copl.reward.backbones.checkpoints import require_complete
from copl.reward.backbones.names import PACKAGED_WRITER


def language_model_directory(name: str | Path, *, revision: str | None = None) -> Path:
    """Return the directory of a causal language model with its tokenizer: weights, configuration, chat template.

    `smollm2-135m`, which comes as an ordinary Python package in 4-bit form, is written once into the cache as float32
    safetensors (538 MB), and generates and trains from there like any other.

        AutoModelForCausalLM.from_pretrained(language_model_directory("smollm2-135m"))

    Args:
        name: ``smollm2-135m``, a Hugging Face id, or the path of a directory.
        revision: branch, tag or commit of an id.

    Raises:
        BackboneError: it cannot be found, is damaged, or is a model that does not write.
    """
    if str(name) == PACKAGED_WRITER:
        return SmolLm2(SmolLm2Options()).directory()
    directory = HuggingFace(HuggingFaceOptions(path=str(name), revision=revision)).directory()
    require_complete(directory)
    _require_writer(directory)
    return directory


def _require_writer(directory: Path) -> None:
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_MASKED_LM_MAPPING_NAMES,
    )

    try:
        config = AutoConfig.from_pretrained(directory, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever foreign code comes upon in foreign files
        raise BackboneError(f"cannot load the model in {directory}: {in_brief(error)}") from error
    kind = config.model_type
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES or kind in MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        raise BackboneError(f"{directory} holds a model of type {kind}, which does not write; take a causal one")
