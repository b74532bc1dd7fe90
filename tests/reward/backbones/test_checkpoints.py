"""Model directories that cannot be opened, or should not be, say so in one line; no code of theirs is run."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import BertConfig, BertModel, BertTokenizer, LlamaConfig, LlamaForCausalLM, LlamaModel

from benchmarks.tiny_models import byte_tokenizer
from copl.errors import BackboneError
from copl.reward.backbones.catalogue import HuggingFace, HuggingFaceOptions
from copl.reward.backbones.checkpoints import fingerprint_directory, missing_files, quiet
from copl.reward.backbones.loaded import LoadedBackbone

SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 64,
}
EVIL = """
from pathlib import Path
Path(__file__).with_name("was-run").touch()
from transformers import BertConfig, BertModel, BertTokenizer
class EvilConfig(BertConfig):
    model_type = "evil"
class EvilModel(BertModel):
    config_class = EvilConfig
class EvilTokenizer(BertTokenizer):
    pass
"""


def write(directory: Path, model: Any = None) -> Path:
    with torch.random.fork_rng(), quiet():
        torch.manual_seed(0)
        (model or BertModel(BertConfig(**SMALL))).save_pretrained(directory)
        byte_tokenizer(chat=False).save_pretrained(directory)
    return directory


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def load(directory: Path) -> LoadedBackbone:
    return HuggingFace(HuggingFaceOptions(str(directory))).load()


def refusal(directory: Path) -> str:
    with pytest.raises(BackboneError) as error:
        load(directory)
    (fault,) = error.value.faults
    assert "\n" not in fault
    return fault


@pytest.fixture
def nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    def ask(*prompt: Any) -> str:
        raise AssertionError(f"asked on standard input: {prompt}")

    monkeypatch.setattr("builtins.input", ask)


@pytest.mark.usefixtures("nobody_asks")
@pytest.mark.parametrize("where", ["config and model", "model alone", "tokenizer"])
def test_code_that_comes_with_a_model_is_never_run(where: str, tmp_path: Path) -> None:
    directory = write(tmp_path / "evil")
    (directory / "evil.py").write_text(EVIL)
    if where == "tokenizer":
        (directory / "tokenizer.json").unlink()
        (directory / "vocab.txt").write_text("a\n[UNK]\n")
        mine = {"tokenizer_class": "EvilTokenizer", "auto_map": {"AutoTokenizer": ["evil.EvilTokenizer", None]}}
        change(directory / "tokenizer_config.json", **mine)
        change(directory / "config.json", model_type="vit")  # which has no tokenizer of its own
    elif where == "model alone":
        change(directory / "config.json", model_type="vit_mae_x", auto_map={"AutoModel": "evil.EvilModel"})
    else:
        classes = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}
        change(directory / "config.json", model_type="evil", auto_map=classes)
    assert str(directory) in refusal(directory)
    if where == "config and model":
        assert "brings Python code of its own, which could do anything here, so copl never runs it" in refusal(
            directory
        )
    assert not (directory / "was-run").exists()


@pytest.mark.usefixtures("nobody_asks")
def test_a_known_architecture_that_brings_code_too_is_opened_without_it(tmp_path: Path) -> None:
    directory = write(tmp_path / "known")
    (directory / "evil.py").write_text(EVIL)
    classes = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}
    change(directory / "config.json", auto_map=classes)
    change(directory / "tokenizer_config.json", auto_map={"AutoTokenizer": ["evil.EvilTokenizer", None]})
    assert type(load(directory).model) is BertModel
    assert not (directory / "was-run").exists()


def test_attention_code_is_not_fetched(tmp_path: Path) -> None:
    directory = write(tmp_path / "kernel")
    change(directory / "config.json", attn_implementation="someone/their-kernel")
    assert "asks for attention code from elsewhere (someone/their-kernel), which copl does not run" in refusal(
        directory
    )


def _config(**values: Any) -> Callable[[Path], None]:
    return lambda directory: change(directory / "config.json", **values)


def _text(name: str, text: str) -> Callable[[Path], None]:
    return lambda directory: Path(directory / name).write_text(text) and None


def _without(name: str) -> Callable[[Path], None]:
    return lambda directory: Path(directory / name).unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_without("model.safetensors"), "it lacks model.safetensors"),
        (_without("tokenizer.json"), "it lacks tokenizer.json"),
        (_without("config.json"), "it lacks config.json"),
        (_text("config.json", "{"), "cannot load the model"),
        (_text("config.json", "[]"), "is no configuration: it holds list"),
        (_text("config.json", "null"), "is no configuration: it holds NoneType"),
        (_text("config.json", '{"model_type": "unheard-of"}'), "cannot load the model"),
        (_text("config.json", '{"model_type": 3}'), "cannot load the model"),
        (_text("tokenizer.json", "{}"), "cannot load the model"),
        (_text("tokenizer.json", "\xff"), "cannot load the model"),
        (_text("model.safetensors", "short"), "cannot load the model"),
        (_config(hidden_size=48), "have other sizes than its config.json says"),
        (_config(hidden_size=10**9), "cannot load the model|have other sizes"),
        (_config(hidden_size="wide"), "cannot load the model"),
        (_config(vocab_size=10**12), "have other sizes than its config.json says"),
        (_config(num_hidden_layers=10**9), "says 1000000000 layers, but there are only"),
        (_config(num_hidden_layers=0), "says num_hidden_layers 0; it has to be 1 or more"),
        (_config(num_attention_heads=-1), "says num_attention_heads -1; it has to be 1 or more"),
        (_config(num_attention_heads=None), "cannot load the model"),
        (_config(num_hidden_layers=3), "lacks 16 of the weights of BertModel, such as encoder.layer.2"),
        (_config(model_type="vit"), "cannot load the model|does not read plain text|of the weights of"),
        (_text("model.safetensors.index.json", "{}"), "lacks a readable model.safetensors.index.json"),
        (_text("model.safetensors.index.json", '{"weight_map": {"a": 3}}'), "it lacks 3"),
        (
            lambda directory: change(directory / "tokenizer_config.json", model_max_length="long"),
            "cannot load the model",
        ),
        (_text("adapter_model.safetensors", ""), None),
    ],
)
def test_directories_that_are_no_whole_model_say_what_is_wrong(
    spoil: Callable[[Path], None], message: str | None, tmp_path: Path
) -> None:
    directory = write(tmp_path / "model")
    spoil(directory)
    if message is None:
        load(directory)
    else:
        assert re.search(message, refusal(directory))


def test_what_an_adapter_left_behind_is_passed_over_and_an_adapter_beside_a_model_is_not(tmp_path: Path) -> None:
    directory = write(tmp_path / "merged")
    plain = load(directory).model.state_dict()
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "someone/else"}')
    again = load(directory).model.state_dict()
    assert plain.keys() == again.keys()
    assert all(torch.equal(plain[name], again[name]) for name in plain)
    save_file({"a": torch.zeros(1)}, directory / "adapter_model.safetensors")
    assert "holds a whole model and an adapter; merge the adapter into it, or move adapter_* elsewhere" in refusal(
        directory
    )


def test_tokenizers_without_tokenizer_json_need_the_files_they_are_made_from(tmp_path: Path) -> None:
    directory = write(tmp_path / "model")
    (directory / "tokenizer.json").unlink()
    change(directory / "tokenizer_config.json", tokenizer_class="BertTokenizer")
    (directory / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b"]))
    assert isinstance(load(directory).tokenizer, BertTokenizer)
    (directory / "vocab.txt").rename(directory / "vocab.json")
    assert missing_files(directory) == ["merges.txt"]
    (directory / "vocab.json").rename(directory / "spm.model")
    assert missing_files(directory) == []
    assert "lacks vocab.txt, which BertTokenizer is made from" in refusal(directory)
    (directory / "spm.model").unlink()
    assert missing_files(directory) == ["tokenizer.json"]
    change(directory / "tokenizer_config.json", tokenizer_class="ByT5Tokenizer")
    assert missing_files(directory) == []
    assert load(directory).tokenizer("a")["input_ids"]


def test_a_sentencepiece_model_alone_is_read_or_the_package_that_is_needed_is_named(tmp_path: Path) -> None:
    directory = write(tmp_path / "model")
    (directory / "tokenizer.json").unlink()
    (directory / "spm.model").write_bytes(b"\n\x0e\n\x05<unk>\x15\x00\x00\x00\x00\x18\x02")
    change(directory / "tokenizer_config.json", tokenizer_class="DebertaV2Tokenizer")
    try:
        import sentencepiece  # noqa: F401
    except ImportError:
        assert refusal(directory) == f"the tokenizer in {directory} needs one more package: pip install sentencepiece"
    else:
        load(directory)


def test_padding_and_turns_that_the_model_has_no_embeddings_of(tmp_path: Path) -> None:
    import numpy as np

    from copl.records import ResponseTable
    from copl.reward.backbones.loaded import encode_responses

    tokenizer = byte_tokenizer(chat=True)
    model = LlamaModel(LlamaConfig(**(SMALL | {"vocab_size": len(tokenizer)}), num_key_value_heads=2))
    directory = write(tmp_path / "model", model)
    tokenizer.add_special_tokens({"pad_token": "<|pad|>"})
    tokenizer.save_pretrained(directory)
    backbone = load(directory)
    assert backbone.tokenizer.pad_token_id == 263
    assert backbone.pad_id == backbone.tokenizer.eos_token_id  # padding is masked: any other token will do
    encoded = encode_responses(backbone, ResponseTable(["a", "bc"], ["d", "e"]), np.arange(2), 64)
    assert encoded.ids.max() < 263
    tokenizer.add_tokens(["<|turn|>x"], special_tokens=True)
    tokenizer.chat_template = "{% for m in messages %}<|turn|>x{{ m.content }}{% endfor %}"
    tokenizer.save_pretrained(directory)
    with pytest.raises(BackboneError, match=r"gives token 264 \('<\|turn\|>x'\), but LlamaModel has 263 embeddings; "):
        encode_responses(load(directory), ResponseTable(["a"], ["d"]), np.arange(1), 64)


def test_named_chat_templates_without_a_default_are_refused_unless_another_template_is_asked_for(
    tmp_path: Path,
) -> None:
    directory = write(tmp_path / "model", LlamaModel(LlamaConfig(**SMALL, num_key_value_heads=2)))
    tokenizer = byte_tokenizer(chat=False)
    tokenizer.chat_template = {"rag": "{{ messages }}", "tool_use": "{{ messages }}"}
    tokenizer.save_pretrained(directory)
    assert "of the chat templates rag, tool_use none is the default; use the backbone's template=plain" in refusal(
        directory
    )
    assert HuggingFace(HuggingFaceOptions(str(directory), template="plain")).load().template == "plain"


def test_a_relative_path_is_the_same_model_from_everywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "models" / "x")
    monkeypatch.chdir(tmp_path)
    options = HuggingFaceOptions("models/x")
    assert options.path == str(tmp_path / "models" / "x")
    assert HuggingFaceOptions("someone/tiny").path == "someone/tiny"
    monkeypatch.chdir("/")
    backbone = HuggingFace(options).load()
    assert backbone.source == options.path
    os.rename(tmp_path / "models", tmp_path / "elsewhere")
    with pytest.raises(
        BackboneError, match=r"there is no model directory .*models/x; put it back, or open the run with"
    ):
        HuggingFace(options).load()


def test_of_a_model_that_sees_and_reads_the_part_that_reads_is_kept() -> None:
    from benchmarks.tiny_models import tiny_model
    from copl.reward.backbones.loaded import prepare_backbone

    whole = tiny_model("gemma3")
    backbone = prepare_backbone(whole, byte_tokenizer(chat=False))
    assert type(backbone.model).__name__ == "Gemma3TextModel"
    ids = torch.arange(8, 20).unsqueeze(0)
    with torch.no_grad():
        both = [model(input_ids=ids, attention_mask=torch.ones_like(ids)) for model in (whole.eval(), backbone.model)]
    torch.testing.assert_close(both[0].last_hidden_state, both[1].last_hidden_state)


def test_the_fingerprint_covers_named_templates(tmp_path: Path) -> None:
    directory = write(tmp_path / "model")
    before = fingerprint_directory(directory)
    (directory / "additional_chat_templates").mkdir()
    (directory / "additional_chat_templates" / "rag.jinja").write_text("x")
    assert fingerprint_directory(directory) != before
    assert load_file(directory / "model.safetensors")


def test_a_model_with_its_head_is_read_without_it(tmp_path: Path) -> None:
    directory = write(tmp_path / "model", LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2)))
    assert type(load(directory).model) is LlamaModel
