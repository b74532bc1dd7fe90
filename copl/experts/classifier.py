"""One user's reward as an ordinary PEFT classifier: a plain LoRA and a linear head that stock PEFT loads.

A reward that is linear in the pooled hidden state is a classifier with a single label. Where the last token is pooled
and transformers has a sequence classifier for the backbone, it is that (``SEQ_CLS``): the logit is the reward. Else it
is a token classifier (``TOKEN_CLS``), linear in every token's state, and the reward is the mean of the tokens' logits,
or the logit of the last one, as the backbone is pooled.
"""

from __future__ import annotations

import copy
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, final

import torch
from attrs import frozen
from torch import Tensor, nn

from copl.errors import BackboneError
from copl.experts.adapter_files import write_adapter
from copl.experts.mixture import MixtureOfLora, user_slice

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Task = Literal["SEQ_CLS", "TOKEN_CLS"]


@final
@frozen
class ClassifierForm:
    """How a backbone becomes a classifier in transformers.

    Attributes:
        task: PEFT's name of the task.
        auto_class: the transformers class that opens it.
        prefix: path of the backbone inside the classifier.
        head: name of its linear layer.
        has_bias: whether that layer has a bias.
    """

    task: Task
    auto_class: str
    prefix: str
    head: str
    has_bias: bool


def classifier_form(model: PreTrainedModel, pooling: str, config: object = None) -> ClassifierForm:
    """Find the classifier of a backbone.

    Args:
        model: the backbone, with or without adapters.
        pooling: ``last`` or ``mean``.
        config: configuration of what the backbone is part of; its own unless given.

    Raises:
        BackboneError: transformers has no classifier for it that is linear in the hidden states.
    """
    candidates: list[tuple[Task, str]] = [("TOKEN_CLS", "AutoModelForTokenClassification")]
    if pooling == "last":
        candidates.insert(0, ("SEQ_CLS", "AutoModelForSequenceClassification"))
    for task, auto_class in candidates:
        form = _form(model, model.config if config is None else config, task, auto_class)
        # A sequence classifier with a bias pools the first token through a layer of its own, as BERT does.
        if form is not None and not (task == "SEQ_CLS" and form.has_bias):
            return form
    raise BackboneError(f"transformers has no linear classifier on {type(model).__name__}; this backbone has no export")


def _form(model: PreTrainedModel, config: Any, task: Task, auto_class: str) -> ClassifierForm | None:
    import transformers

    config = copy.deepcopy(config)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            classifier = getattr(transformers, auto_class).from_config(config, trust_remote_code=False)
    except ValueError:  # the class has no entry for this architecture
        return None
    prefix = next((path for path, part in classifier.named_modules() if type(part) is type(model)), None)
    others = [(n, child) for n, child in classifier.named_children() if not f"{prefix}.".startswith(f"{n}.")]
    heads = [(name, child) for name, child in others if any(True for _ in child.parameters())]
    if not prefix or len(heads) != 1 or not isinstance(heads[0][1], nn.Linear):
        return None
    return ClassifierForm(task, auto_class, prefix, heads[0][0], heads[0][1].bias is not None)


def write_user_classifier(
    mixture: MixtureOfLora,
    weights: Tensor | None,
    form: ClassifierForm,
    head: Tensor,
    offset: float,
    base: str,
    directory: Path,
    *,
    revision: str | None = None,
) -> int:
    """Write one user's slice of a mixture, with the head, as a plain PEFT adapter.

    Args:
        mixture: the trained mixture; left as it is.
        weights: the user's gate weights, as `MixtureOfLora.set_weights` takes them, for one user; None without experts.
        form: the classifier.
        head: weights of the reward in the pooled hidden state [H].
        offset: what is added to it; has to be 0 where the classifier has no bias.
        base: path or id of the backbone's weights.
        directory: where the adapter goes.
        revision: commit of an id.

    Returns:
        the rank of the adapter.
    """
    if offset != 0.0 and not form.has_bias:
        raise ValueError(f"{form.auto_class} has no bias to hold the offset {offset}")
    rank, config, tensors = user_slice(mixture, weights)
    wrapped, inside = "base_model.model.", f"base_model.model.{form.prefix}."
    tensors = {inside + name.removeprefix(wrapped): tensor for name, tensor in tensors.items()}
    tensors[f"{wrapped}{form.head}.weight"] = head.detach().float().reshape(1, -1)
    if form.has_bias:
        tensors[f"{wrapped}{form.head}.bias"] = torch.tensor([offset], dtype=torch.float32)
    changes: dict[str, Any] = {"task_type": form.task, "modules_to_save": [form.head]}
    changes |= {"base_model_name_or_path": base, "revision": revision}
    if "." in form.prefix:  # other parts of the model have modules of the same names
        adapted = {name.removeprefix(wrapped).rpartition(".lora_")[0] for name in tensors if ".lora_" in name}
        changes |= {"target_modules": sorted(adapted), "layers_to_transform": None, "layers_pattern": None}
    write_adapter(directory, config | changes, tensors)
    return rank


def merge_user_classifier(
    directory: Path, base: str, form: ClassifierForm, pad_id: int, out: Path, *, revision: str | None = None
) -> None:
    """Merge an exported adapter into its backbone and write the whole classifier.

    Args:
        directory: the adapter.
        base: path or id of the backbone's weights.
        form: the classifier.
        pad_id: the padding token that the classifier's configuration names.
        out: where the model goes.
        revision: commit of an id.
    """
    import transformers
    from peft import PeftModel

    opener: Any = getattr(transformers, form.auto_class)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 for a property under its former name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        model = opener.from_pretrained(
            base, num_labels=1, dtype=torch.float32, revision=revision, trust_remote_code=False
        )
        merged = PeftModel.from_pretrained(model, directory).merge_and_unload()
    if form.task == "SEQ_CLS":  # by it the classifier finds the last token; elsewhere it may stand for a position
        merged.config.get_text_config().pad_token_id = pad_id
    merged.save_pretrained(out)
