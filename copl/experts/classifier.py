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
        prefix: name of the backbone inside the classifier.
        head: name of its linear layer.
        has_bias: whether that layer has a bias.
    """

    task: Task
    auto_class: str
    prefix: str
    head: str
    has_bias: bool


def classifier_form(model: PreTrainedModel, pooling: str) -> ClassifierForm:
    """Find the classifier of a backbone.

    Args:
        model: the backbone, with or without adapters.
        pooling: ``last`` or ``mean``.

    Raises:
        BackboneError: transformers has no classifier for it that is linear in the hidden states.
    """
    candidates: list[tuple[Task, str]] = [("TOKEN_CLS", "AutoModelForTokenClassification")]
    if pooling == "last":
        candidates.insert(0, ("SEQ_CLS", "AutoModelForSequenceClassification"))
    for task, auto_class in candidates:
        form = _form(model, task, auto_class)
        # A sequence classifier with a bias pools the first token through a layer of its own, as BERT does.
        if form is not None and not (task == "SEQ_CLS" and form.has_bias):
            return form
    raise BackboneError(f"transformers has no linear classifier on {type(model).__name__}; this backbone has no export")


def _form(model: PreTrainedModel, task: Task, auto_class: str) -> ClassifierForm | None:
    import transformers

    config = copy.deepcopy(model.config)
    config.num_labels = 1
    try:
        with torch.device("meta"):
            classifier = getattr(transformers, auto_class).from_config(config)
    except ValueError:  # the class has no entry for this architecture
        return None
    prefix = classifier.base_model_prefix
    heads = [n for n, child in classifier.named_children() if n != prefix and isinstance(child, nn.Linear)]
    if not hasattr(classifier, prefix) or len(heads) != 1:
        return None
    return ClassifierForm(task, auto_class, prefix, heads[0], getattr(classifier, heads[0]).bias is not None)


def write_user_classifier(
    mixture: MixtureOfLora,
    weights: Tensor | None,
    form: ClassifierForm,
    head: Tensor,
    offset: float,
    base: str,
    directory: Path,
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
    changes = {"task_type": form.task, "modules_to_save": [form.head], "base_model_name_or_path": base}
    write_adapter(directory, config | changes, tensors)
    return rank


def merge_user_classifier(directory: Path, base: str, form: ClassifierForm, pad_id: int, out: Path) -> None:
    """Merge an exported adapter into its backbone and write the whole classifier.

    Args:
        directory: the adapter.
        base: path or id of the backbone's weights.
        form: the classifier.
        pad_id: the padding token that the classifier's configuration names.
        out: where the model goes.
    """
    import transformers
    from peft import PeftModel

    opener: Any = getattr(transformers, form.auto_class)
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5 for a property under its former name.
        warnings.filterwarnings("ignore", message="`is_gradient_checkpointing` is deprecated", category=FutureWarning)
        model = opener.from_pretrained(base, num_labels=1, pad_token_id=pad_id, dtype=torch.float32)
        merged = PeftModel.from_pretrained(model, directory).merge_and_unload()
    merged.save_pretrained(out)
