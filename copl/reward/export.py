"""One user's reward model as a plain classifier that stock `peft` and `transformers` open, with no `copl` installed."""

from __future__ import annotations

import inspect
import json
import shutil
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from attrs import asdict, evolve, frozen
from torch import Tensor

from copl.data.canonical import canonical_text
from copl.data.chat import encode_prompt
from copl.errors import BackboneError, OptionsError, in_brief
from copl.experts.classifier import ClassifierForm, classifier_form, merge_user_classifier, write_user_classifier
from copl.records import ResponseTable
from copl.reward.backbones import standalone
from copl.reward.backbones.checkpoints import quiet
from copl.reward.backbones.loaded import LoadedBackbone, tolerance_of
from copl.reward.model import PersonalRewardModel
from copl.reward.scoring import score_responses
from copl.reward.usage import usage_page
from copl.system.files import is_free, new_directory, write_text

if TYPE_CHECKING:
    from transformers import PretrainedConfig

CARD = "export.json"
SCRIPT = "score.py"


@final
@frozen
class Export:
    """What an export wrote.

    Attributes:
        directory: where the classifier is.
        base: path or id of the backbone it stands on; the directory itself where it was merged.
        revision: commit of an id.
        dtype: floating-point type it is to be opened in.
        rank: rank of the plain adapter.
        task: PEFT's name of the classifier's task.
        score: how logits become the reward: ``logit``, ``mean of the tokens' logits`` or ``logit of the last token``.
    """

    directory: Path
    base: str
    revision: str | None
    dtype: str
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
    """Write one user's reward model, and check that it scores as the model does.

    Args:
        model: the trained reward model.
        user: the user's embedding [D]; None for a model without users.
        user_id: named in the usage page.
        clean: the backbone once more, without adapters; written beside the adapter where it has no name of its own.
            Its weights are given up, for the sake of memory.
        directory: where the classifier goes; must not exist or be empty.
        merge: write the whole classifier with the adapter merged into its weights.

    Raises:
        OptionsError: the head is not linear in the hidden states, or the directory holds something.
        BackboneError: transformers has no classifier for the backbone, or one that says something else.
    """
    if not model.head.linear_in_features:
        raise OptionsError("reward.head: a classifier's head is linear; train with reward.head=bilinear or linear")
    if not is_free(directory):
        raise OptionsError(f"{directory}: already there; choose another --out")
    form = classifier_form(model.backbone.model, model.backbone.pooling, _config_of(clean))
    vector = torch.zeros(1, model.embedding_dim) if user is None else user.unsqueeze(0)
    with new_directory(directory) as fresh:
        where = evolve(_write(model, vector, form, clean, fresh, merge=merge), directory=directory)
        card = _card(where, model, form, _pad_id(clean))
        write_text(fresh / CARD, json.dumps({"user": user_id, **card}, indent=2) + "\n")
        write_text(fresh / "README.md", usage_page(user_id, card))
        write_text(fresh / SCRIPT, _script())
        clean.model.to("meta")
        _require_equal(model, vector, fresh)
    return where


def _script() -> str:
    """`copl.reward.backbones.standalone` with the one function of `copl` that it uses written into it."""
    source = Path(standalone.__file__).read_text(encoding="utf-8")
    (line,) = (line for line in source.splitlines() if line.startswith("from copl."))
    used = {name: canonical_text.__globals__.get(name) for name in canonical_text.__code__.co_names}
    imports = [f"import {name}" for name, value in used.items() if isinstance(value, ModuleType)]
    constants = [f"{name} = {value!r}" for name, value in used.items() if isinstance(value, str | dict)]
    return source.replace(line, "\n".join([*imports, "", *constants, "", "", inspect.getsource(canonical_text)]))


def _config_of(backbone: LoadedBackbone) -> PretrainedConfig:
    """The configuration of what the classifier is opened from, which may be more than the part that reads."""
    if backbone.source is None:
        return backbone.model.config
    from transformers import AutoConfig

    return AutoConfig.from_pretrained(
        backbone.source, revision=backbone.revision, local_files_only=True, trust_remote_code=False
    )


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
    named = base or "base"
    rank = write_user_classifier(
        model.mixture,
        None if weights is None else weights[0],
        form,
        linear_weights(model, vector),
        0.0,
        named,
        adapter,
        revision=clean.revision,
    )
    if merge:
        with quiet():
            merge_user_classifier(adapter, base or str(place), form, _pad_id(clean), out, revision=clean.revision)
        shutil.rmtree(adapter)
        shutil.rmtree(place, ignore_errors=True)
        named = "."
    clean.tokenizer.save_pretrained(out)
    revision = None if merge else clean.revision
    dtype = "float32" if merge else str(model.backbone.model.dtype).removeprefix("torch.")
    return Export(out, named, revision, dtype, rank, form.task, _how(form, model.backbone.pooling))


@torch.no_grad()
def _require_equal(model: PersonalRewardModel, user: Tensor, directory: Path) -> None:
    """Score a few texts both ways.

    Raises:
        BackboneError: the scores differ.
    """
    name = type(model.backbone.model).__name__
    try:
        with quiet():
            reward = standalone.PersonalReward(directory)
    except Exception as error:  # whatever the tools of others come upon
        raise BackboneError(
            f"{name} has no export: the classifier cannot be opened again ({in_brief(error)})"
        ) from error
    expected, scores = [], []
    for prompt, response in _samples(model):
        table = ResponseTable([encode_prompt(prompt)], [canonical_text(response)])
        try:
            own = score_responses(model, table, user.to(model.device), np.zeros(1, int))
        except BackboneError:
            continue  # a chat template that does not take such a conversation
        expected.append(float(own[0]))
        scores.append(reward(prompt, response))
    worst = float(np.max(np.abs(np.subtract(expected, scores)), initial=0.0))
    if not worst <= tolerance_of(model.backbone.model.dtype) * max(1.0, float(np.max(np.abs(expected), initial=0.0))):
        raise BackboneError(
            f"{name} has no export: transformers' {reward.card['classifier']['auto_class']} scores otherwise than copl "
            f"(up to {worst:.1e} apart)"
        )


def _samples(model: PersonalRewardModel) -> list[tuple[Any, str]]:
    """Texts of each kind: short, a conversation, with the tokenizer's own marks inside, too long."""
    tokenizer = model.backbone.tokenizer
    marks = " ".join(str(mark) for mark in tokenizer.all_special_tokens[:8])
    talk = [("user", "How do I boil an egg?"), ("assistant", "How soft?"), ("user", "Soft.")]
    messages = [{"role": role, "content": content} for role, content in talk]
    return [
        ("How do I fry an egg?", "Hot pan, three minutes."),
        ("", "Not every response has a prompt.\n"),
        (messages, " Four minutes, then cold water.  "),
        (f"What does {marks} mean?", f"They are {marks}"),
        ("all the words of a long prompt " * (model.max_length // 4), "The end."),
    ]


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


def _card(export: Export, model: PersonalRewardModel, form: ClassifierForm, pad_id: int) -> dict[str, object]:
    return {
        **export.facts(),
        "revision": export.revision,
        "dtype": export.dtype,
        "classifier": asdict(form),
        "pooling": model.backbone.pooling,
        "template": model.backbone.template,
        "max_length": min(model.max_length, model.backbone.max_positions),
        "pad_token_id": pad_id,
    }
