"""One user's reward model as a plain classifier that stock `peft` and `transformers` open, with no `copl` installed."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, final

import torch
from attrs import asdict, frozen
from torch import Tensor

from copl.errors import OptionsError
from copl.experts.classifier import ClassifierForm, classifier_form, merge_user_classifier, write_user_classifier
from copl.reward.backbones.checkpoints import quiet
from copl.reward.backbones.loaded import LoadedBackbone
from copl.reward.model import PersonalRewardModel
from copl.reward.usage import usage_page
from copl.system.files import write_text

CARD = "export.json"


@final
@frozen
class Export:
    """What an export wrote.

    Attributes:
        directory: where the classifier is.
        base: path or id of the backbone it stands on; the directory itself where it was merged.
        rank: rank of the plain adapter.
        task: PEFT's name of the classifier's task.
        score: how logits become the reward: ``logit``, ``mean of the tokens' logits`` or ``logit of the last token``.
    """

    directory: Path
    base: str
    rank: int
    task: str
    score: str

    def facts(self) -> dict[str, Any]:
        """Return what there is to say of it, as plain JSON values."""
        return {"base": self.base, "rank": self.rank, "task": self.task, "reward": self.score}


def export_user(
    model: PersonalRewardModel,
    user: Tensor | None,
    user_id: str,
    clean: LoadedBackbone,
    directory: Path,
    *,
    merge: bool = False,
) -> Export:
    """Write one user's reward model.

    Args:
        model: the trained reward model.
        user: the user's embedding [D]; None for a model without users.
        user_id: named in the usage page.
        clean: the backbone once more, without adapters; written beside the adapter where it has no name of its own.
        directory: where the classifier goes; must not exist or be empty.
        merge: write the whole classifier with the adapter merged into its weights.

    Raises:
        OptionsError: the head is not linear in the hidden states, or the directory holds something.
        BackboneError: transformers has no classifier for the backbone.
    """
    if not model.head.linear_in_features:
        raise OptionsError("reward.head: a classifier's head is linear; train with reward.head=bilinear or linear")
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise OptionsError(f"{directory}: already there; choose another --out")
    form = classifier_form(model.backbone.model, model.backbone.pooling)
    vector = torch.zeros(1, model.embedding_dim) if user is None else user.unsqueeze(0)
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        found = _write(model, vector, form, clean, scratch, merge=merge)
        where = Export(directory, found.base, found.rank, found.task, found.score)
        write_text(scratch / CARD, json.dumps({"user": user_id, **_card(where, model, form)}, indent=2) + "\n")
        write_text(scratch / "README.md", usage_page(user_id, model.backbone, form, _pad_id(clean), merged=merge))
        scratch.chmod(0o755)
        if directory.exists():
            directory.rmdir()
        scratch.replace(directory)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return where


def _write(
    model: PersonalRewardModel,
    vector: Tensor,
    form: ClassifierForm,
    clean: LoadedBackbone,
    out: Path,
    *,
    merge: bool,
) -> Export:
    weights = model.gate_weights(vector)
    adapter = out / "adapter" if merge else out
    base, place = clean.source, out / "base"
    if base is None:
        with quiet():
            clean.model.save_pretrained(place)
        clean.tokenizer.save_pretrained(place)
    named = base or "base"
    rank = write_user_classifier(
        model.mixture, None if weights is None else weights[0], form, linear_weights(model, vector), 0.0, named, adapter
    )
    if merge:
        with quiet():
            merge_user_classifier(adapter, base or str(place), form, _pad_id(clean), out)
        shutil.rmtree(adapter)
        shutil.rmtree(place, ignore_errors=True)
        named = "."
    clean.tokenizer.save_pretrained(out)
    return Export(out, named, rank, form.task, _how(form, model.backbone.pooling))


@torch.no_grad()
def linear_weights(model: PersonalRewardModel, user: Tensor) -> Tensor:
    """Return the weights [H] of a user's [1, D] reward in the pooled hidden state."""
    size = model.backbone.hidden_size
    units = torch.eye(size, device=model.device) / model.feature_scale
    weights: Tensor = model.head(units, model.tell(user).expand(size, -1)).cpu()
    return weights


def _how(form: ClassifierForm, pooling: str) -> str:
    if form.task == "SEQ_CLS":
        return "logit"
    return "mean of the tokens' logits" if pooling == "mean" else "logit of the last token"


def _pad_id(backbone: LoadedBackbone) -> int:
    """A padding token that never ends a text: a sequence classifier takes the last token that is another."""
    tokenizer = backbone.tokenizer
    endings = {tokenizer.eos_token_id, *tokenizer("a")["input_ids"][-1:]}
    candidates = [tokenizer.pad_token_id, tokenizer.unk_token_id, tokenizer.bos_token_id, *tokenizer.all_special_ids]
    fit = [int(i) for i in candidates if i is not None and i not in endings]
    return fit[0] if fit else backbone.pad_id


def _card(export: Export, model: PersonalRewardModel, form: ClassifierForm) -> dict[str, Any]:
    return {
        **export.facts(),
        "classifier": asdict(form),
        "pooling": model.backbone.pooling,
        "template": model.backbone.template,
        "max_length": model.max_length,
    }
