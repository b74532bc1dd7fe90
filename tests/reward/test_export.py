"""Exported classifiers: opened by stock peft and transformers alone, they score as the reward model does."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from attrs import evolve
from transformers import AutoModelForSequenceClassification, AutoTokenizer, BertConfig, BertModel

from benchmarks.architectures import TEXTS, reward_model, scores
from benchmarks.tiny_models import byte_tokenizer, tiny_model
from copl.errors import BackboneError, OptionsError
from copl.records import PreferenceData
from copl.reward import export
from copl.reward.backbones.catalogue import HuggingFace, HuggingFaceOptions
from copl.reward.backbones.checkpoints import quiet
from copl.reward.backbones.loaded import LoadedBackbone, prepare_backbone
from copl.reward.backbones.standalone import PersonalReward
from copl.reward.export import export_user
from copl.reward.model import PersonalRewardModel
from copl.reward.options import RewardOptions
from copl.reward.training.user_vectors import UserVectors

USER = torch.tensor([0.7, -0.4])
OPTIONS = RewardOptions(
    warm_start=False, max_steps=6, batch_size=8, eval_every=6, learning_rate=1e-2, head_learning_rate=1e-2
)

# Runs the code of each usage page in its directory, where copl cannot be imported.
ELSEWHERE = """
import json, os, re, sys
sys.modules["copl"] = None
results = {}
for directory in sys.argv[2:]:
    os.chdir(directory)
    sys.modules.pop("score", None)
    space = {}
    exec(re.search(r"```python\\n(.*?)```", open("README.md").read(), re.S).group(1), space)
    results[directory] = [space["reward"](prompt, text) for prompt, text in json.loads(sys.argv[1])]
print(json.dumps(results))
"""


def _backbone(kind: str, template: Any = None) -> LoadedBackbone:
    tokenizer = byte_tokenizer(chat=kind == "llama")
    return prepare_backbone(tiny_model(kind), tokenizer, template=template)


def _exported(
    kind: str, directory: Path, template: Any = None, **options: Any
) -> tuple[PersonalRewardModel, export.Export]:
    backbone = _backbone(kind, template)
    model = reward_model(backbone, backbone.target_modules)
    return model, export_user(model, USER, "someone", _backbone(kind, template), directory, **options)


@pytest.mark.slow
def test_what_the_usage_page_says_scores_as_the_reward_model_does(tmp_path: Path) -> None:
    expected = {}
    for kind, template, merge in [
        ("llama", None, False),
        ("llama", "response", False),
        ("gemma", None, True),
        ("bert", None, False),
        ("bert", None, True),
    ]:
        place = tmp_path / f"{kind}-{template}-{merge}"
        model, written = _exported(kind, place, template, merge=merge)
        assert written.task == ("TOKEN_CLS" if kind == "bert" else "SEQ_CLS")
        assert written.rank == model.mixture.layout.shared_rank + model.mixture.layout.expert_rank
        expected[str(place)] = scores(model, list(range(len(TEXTS))))
        assert np.std(expected[str(place)]) > 1e-3  # equality of constants would prove nothing
    command = [sys.executable, "-c", ELSEWHERE, json.dumps(TEXTS), *expected]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not re.search("MISSING|initialized|Warning", done.stderr)  # the head comes with the adapter
    results = json.loads(done.stdout.splitlines()[-1])
    for place, wanted in expected.items():
        np.testing.assert_allclose(results[place], wanted, atol=1e-4, err_msg=place)


def test_what_is_trained_is_exported_for_each_user(
    train_tiny: Callable[..., PersonalRewardModel],
    make_backbone: Callable[[str], LoadedBackbone],
    preferences: tuple[PreferenceData, UserVectors],
    tmp_path: Path,
) -> None:
    data, users = preferences
    model = train_tiny(tmp_path / "run", data, users, OPTIONS)
    rows = [(data.responses.prompts[row], data.responses.texts[row]) for row in range(4)]
    for number in (0, 1):
        export_user(model, users.values[number], str(number), make_backbone("llama"), tmp_path / str(number))
        reward = PersonalReward(tmp_path / str(number))
        own = export.score_responses(model, data.responses, users.values[number].expand(4, -1), np.arange(4))
        np.testing.assert_allclose([reward(*row) for row in rows], own, atol=1e-4)


def test_whole_models_are_classifiers_that_batch(tmp_path: Path) -> None:
    model, _ = _exported("llama", tmp_path / "llama", "plain", merge=True)
    with quiet():
        classifier = AutoModelForSequenceClassification.from_pretrained(tmp_path / "llama").eval()
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / "llama")
    texts = ["Human: a\n\nAssistant: b", "Human: How long?\n\nAssistant: Three minutes or four."]
    card = json.loads((tmp_path / "llama" / "export.json").read_text())
    assert classifier.config.pad_token_id == card["pad_token_id"] == tokenizer.pad_token_id
    with torch.no_grad():
        logits = classifier(**tokenizer(texts, padding=True, return_tensors="pt")).logits[:, 0]
    reward = PersonalReward(tmp_path / "llama")
    alone = [reward("a", "b"), reward("How long?", "Three minutes or four.")]
    np.testing.assert_allclose(logits, alone, atol=1e-4)
    assert model.backbone.template == "plain"


def test_segments_of_a_pair_are_told_by_no_token_types(tmp_path: Path) -> None:
    """The tokenizer says 0 for the prompt and 1 for the response, which copl does not pass on."""

    def backbone() -> LoadedBackbone:
        tokenizer = byte_tokenizer(chat=False)
        tokenizer.model_input_names = ["input_ids", "token_type_ids", "attention_mask"]
        return prepare_backbone(tiny_model("bert"), tokenizer)

    own = backbone()
    assert 1 in own.tokenizer("a", "b")["token_type_ids"]
    model = reward_model(own, own.target_modules)
    export_user(model, USER, "someone", backbone(), tmp_path / "bert")
    reward = PersonalReward(tmp_path / "bert")
    expected = scores(model, list(range(len(TEXTS))))
    np.testing.assert_allclose([reward(*text) for text in TEXTS], expected, atol=1e-4)


def test_the_backbone_can_lie_elsewhere(tmp_path: Path) -> None:
    with quiet():
        tiny_model("llama").save_pretrained(tmp_path / "base")
        byte_tokenizer(chat=True).save_pretrained(tmp_path / "base")
    component = HuggingFace(HuggingFaceOptions(str(tmp_path / "base")))
    backbone = component.load()
    model = reward_model(backbone, backbone.target_modules)
    written = export_user(model, USER, "someone", component.load(), tmp_path / "out")
    assert written.base == str(tmp_path / "base")
    assert not (tmp_path / "out" / "base").exists()
    (tmp_path / "base").rename(tmp_path / "moved")
    with pytest.raises(FileNotFoundError, match=r"the backbone is not in .*base; say where it is: .*base=\.\.\."):
        PersonalReward(tmp_path / "out")
    reward = PersonalReward(tmp_path / "out", base=str(tmp_path / "moved"))
    np.testing.assert_allclose([reward(*text) for text in TEXTS], scores(model, list(range(len(TEXTS)))), atol=1e-4)


def test_the_page_says_how_other_tools_read_it(tmp_path: Path) -> None:
    _exported("bert", tmp_path / "bert")
    script = (tmp_path / "bert" / "score.py").read_text()
    assert "def canonical_text(" in script
    assert not re.search(r"^\s*(from|import) copl", script, re.MULTILINE)
    page = (tmp_path / "bert" / "README.md").read_text()
    assert "the mean of the tokens' logits is the reward. Prompt and response are read" in page
    assert "without `token_type_ids`; 96 tokens at most" in page


def test_a_classifier_that_says_something_else_is_not_exported(tmp_path: Path) -> None:
    backbone = _backbone("bert")
    model = reward_model(backbone, backbone.target_modules)
    other = _backbone("bert")
    with torch.no_grad():
        other.model.embeddings.word_embeddings.weight[:, ::2] += 0.1
    with pytest.raises(BackboneError, match=r"BertModel has no export: .*ForTokenClassification scores otherwise than"):
        export_user(model, USER, "someone", other, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    pooled = prepare_backbone(BertModel(BertConfig(**_SMALL)), byte_tokenizer(chat=False), pooling="last")
    assert export.classifier_form(pooled.model, "last").task == "TOKEN_CLS"  # its sequence classifier reads the first


_SMALL = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}


def test_a_users_rewards_are_linear_in_the_hidden_state_without_an_offset(
    train_tiny: Callable[..., PersonalRewardModel],
    preferences: tuple[PreferenceData, UserVectors],
    tmp_path: Path,
) -> None:
    model = train_tiny(tmp_path, *preferences, OPTIONS)
    assert float(model.feature_centre.abs().max()) > 0.01
    conditioned = model.condition(preferences[1].values[:1])
    nothing = model.head(model.scaled(torch.zeros(1, model.backbone.hidden_size)), conditioned)
    assert float((nothing + model.level(conditioned)).detach()) == pytest.approx(0.0, abs=1e-5)


def test_nothing_is_written_where_something_is_or_the_head_is_not_linear(
    train_tiny: Callable[..., PersonalRewardModel],
    make_backbone: Callable[[str], LoadedBackbone],
    preferences: tuple[PreferenceData, UserVectors],
    tmp_path: Path,
) -> None:
    backbone = _backbone("llama")
    model = reward_model(backbone, backbone.target_modules)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(OptionsError, match="already there; choose another --out"):
        export_user(model, USER, "0", _backbone("llama"), tmp_path / "full")
    curved = train_tiny(tmp_path / "mlp", *preferences, evolve(OPTIONS, head="mlp"))
    with pytest.raises(OptionsError, match=re.escape("train with reward.head=bilinear or linear")):
        export_user(curved, preferences[1].values[0], "0", make_backbone("llama"), tmp_path / "curved")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["full", "mlp"]
