"""Every architecture of transformers that reads text, tiny and with random weights, and tokenizers of each kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerFast
from transformers.models.auto import modeling_auto
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "<s>", "</s>", "<|turn|>")
CHAT = (
    "{{ bos_token }}{% for message in messages %}<|turn|>{{ message['role'] }}\n"
    "{% if message['role'] == 'assistant' and '</think>' in message['content'] %}"
    "<think>{{ message['content'].split('</think>')[0].removeprefix('<think>') }}</think>"
    "{{ message['content'].split('</think>')[-1] | trim }}{% else %}{{ message['content'] }}{% endif %}</s>\n"
    "{% endfor %}"
)
"""A chat template that takes thoughts apart, as Qwen3's does."""

_LARGEST = 4_000_000  # parameters
_GIVEN = {"q_lora_rank": 12, "kv_lora_rank": 12, "qk_nope_head_dim": 8, "qk_rope_head_dim": 8, "v_head_dim": 8}
_GIVEN |= {"index_head_dim": 8, "index_n_heads": 2, "index_topk": 256, "rotary_dim": 4, "q_lora": 12}
_GIVEN |= {"pad_token_id": 0, "bos_token_id": 4, "eos_token_id": 5}
_SIZES: Mapping[str, int] = {
    **dict.fromkeys(("vocab_size", "vocab_size_per_layer_input"), 300),
    **dict.fromkeys(
        ("hidden_size", "n_embd", "d_model", "dim", "emb_dim", "embedding_size", "word_embed_proj_dim"), 32
    ),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "num_layers", "n_layers"), 3),
    **dict.fromkeys(("num_attention_heads", "n_head", "num_heads", "n_heads", "attention_heads"), 4),
    **dict.fromkeys(("intermediate_size", "n_inner", "d_ff", "ffn_dim", "hidden_dim", "d_inner"), 48),
    **dict.fromkeys(("max_position_embeddings", "n_positions", "max_seq_len"), 160),
    **dict.fromkeys(("head_dim", "d_kv", "d_head", "hidden_size_per_layer_input"), 8),
    **dict.fromkeys(("moe_intermediate_size", "shared_expert_intermediate_size", "expert_ffn_hidden_size"), 24),
    **dict.fromkeys(("num_experts", "num_local_experts", "n_routed_experts", "zero_expert_num"), 4),
    **dict.fromkeys(("num_key_value_heads", "num_experts_per_tok", "n_group", "topk_group", "num_kv_heads"), 2),
    **dict.fromkeys(("first_k_dense_replace", "n_shared_experts"), 1),
    **_GIVEN,
}
_LINEAR = {"linear_num_value_heads": 4, "linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8}
_HYBRID = {**_LINEAR, "layer_types": ["linear_attention", "full_attention", "full_attention"]}
_MAMBA = {"mamba_n_heads": 8, "mamba_d_head": 8, "mamba_d_state": 8, "mamba_n_groups": 1, "mamba_chunk_size": 16}
_VISION = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
_DEBERTA: Mapping[str, Any] = {
    "relative_attention": True,
    "share_att_key": True,
    "position_buckets": 16,
    "max_relative_positions": 64,
    "pos_att_type": ["p2c", "c2p"],
    "norm_rel_ebd": "layer_norm",
    "conv_kernel_size": 3,
    "position_biased_input": False,
}
_OWN: Mapping[str, Mapping[str, Any]] = {
    "bamba": {**_MAMBA, "attn_layer_indices": [1]},
    "bailing_hybrid": {
        "layer_types": ["linear_attention", "full_attention", "full_attention"],
        "num_expert_group": 2,
        "num_experts_per_token": 2,
        "linear_num_heads": 4,
        "linear_head_dim": 8,
    },
    "cohere_compass_text": {"layer_types": ["full_attention"] * 3},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 32},
    "deberta-v2": _DEBERTA,
    "dots1": {"n_group": 1, "topk_group": 1},
    "esmc": {"num_key_value_heads": 4},
    "falcon_h1": {**_MAMBA, "mamba_d_ssm": 64},
    "gemma3": {
        "text_config": {**{key: _SIZES[key] for key in ("vocab_size", "hidden_size", "num_hidden_layers", "head_dim")}}
        | {"num_attention_heads": 4, "num_key_value_heads": 2, "intermediate_size": 48, "pad_token_id": 0},
        "vision_config": {**_VISION, "image_size": 28, "patch_size": 14},
        "mm_tokens_per_image": 4,
    },
    "gemma4_text": {
        "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
        "per_layer_config": {},
    },
    "gpt_neo": {"attention_types": [[["global", "local", "global"], 1]]},
    "granitemoehybrid": {**_MAMBA, "layer_types": ["mamba", "attention", "attention"]},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1, "mamba_dt_rank": 4, "use_mamba_kernels": False},
    "lfm2_moe": {"layer_types": ["conv", "full_attention", "full_attention"], "num_dense_layers": 1},
    "lilt": {"hidden_size": 48},
    "longformer": {"attention_window": [8, 8, 8]},
    "luke": {"entity_vocab_size": 8, "entity_emb_size": 8},
    "mamba2": {"num_heads": 8, "head_dim": 8, "n_groups": 1, "state_size": 8, "chunk_size": 16},
    "minicpm3": {"head_dim": 8},
    "mistral4": {"head_dim": 16, "num_key_value_heads": 4},
    "opt": {"word_embed_proj_dim": 24},  # as OPT-350m has it
    "qwen3_5_moe_text": _HYBRID,
    "qwen3_5_text": _HYBRID,
    "qwen3_next": _HYBRID,
    "qwen4_exp_text": _HYBRID,
    "roc_bert": {"pronunciation_vocab_size": 300, "shape_vocab_size": 300, "pronunciation_embed_dim": 8}
    | {"shape_embed_dim": 8},
    "xmod": {"default_language": "en_XX", "languages": ["en_XX"]},
    "zaya": {"num_experts_per_tok": 1},
}


def model_types() -> list[str]:
    """Return the names of all architectures with a head for text, encoder-decoders included."""
    heads = (
        modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
        modeling_auto.MODEL_FOR_TOKEN_CLASSIFICATION_MAPPING_NAMES,
    )
    return sorted(name for name in modeling_auto.MODEL_MAPPING_NAMES if any(name in names for names in heads))


def tiny_model(model_type: str, **changes: Any) -> PreTrainedModel:
    """Return a model of an architecture with the same random weights each time.

    Args:
        model_type: the architecture's name in transformers.
        changes: other values of its configuration.

    Raises:
        ValueError: the sizes here do not make it a small one.
    """
    kind = CONFIG_MAPPING[model_type]
    standard = kind()
    values = standard.to_dict()
    renamed = getattr(standard, "attribute_map", {})
    sizes = {name: size for name, size in _SIZES.items() if name in values and name not in renamed}
    if "kv_lora_rank" in values:  # all heads share what is compressed
        sizes["num_key_value_heads"] = sizes["num_attention_heads"]
    config = kind(**{**sizes, **_OWN.get(model_type, {}), **changes})
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in AutoModel.from_config(config).parameters())
    if count > _LARGEST:
        raise ValueError(f"{count:,} parameters")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model: PreTrainedModel = AutoModel.from_config(config, dtype=torch.float32).eval()
        for parameter in model.parameters():  # some are made for learning and say nothing yet
            if parameter.dim() > 1:
                torch.nn.init.normal_(parameter, std=0.15)
    return model


def byte_tokenizer(*, chat: bool, side: str = "right") -> PreTrainedTokenizerFast:
    """Return a tokenizer of one token a byte that puts marks around texts, as BERT's does."""
    vocabulary = {token: n for n, token in enumerate([*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return _finished(tokenizer, chat=chat, side=side)


def prefix_space_tokenizer(*, chat: bool, side: str = "right") -> PreTrainedTokenizerFast:
    """Return a tokenizer that puts a space before every text, as Llama 2's, Mistral's and Zephyr's do."""
    bytes_ = [f"<0x{n:02X}>" for n in range(256)]
    letters = ["▁", "▁a", "▁H", *"abcdefghijklmnopqrstuvwxyz:"]
    vocabulary = {token: n for n, token in enumerate([*SPECIAL, *bytes_, *letters])}
    tokenizer = Tokenizer(models.BPE(vocabulary, [("▁", "a")], unk_token="[UNK]", byte_fallback=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    return _finished(tokenizer, chat=chat, side=side)


def _finished(tokenizer: Tokenizer, *, chat: bool, side: str) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    marks = {"pad_token": "[PAD]", "unk_token": "[UNK]", "bos_token": "<s>", "eos_token": "</s>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, padding_side=side, **marks)
    fast.chat_template = CHAT if chat else None
    return fast
