"""The transformer under a reward model: its parts, its texts as tokens, and the pooling of its hidden states.

A text is a prompt and a response joined the way the backbone was taught: with the tokenizer's chat template, as a
sentence pair for encoders, else as ``Human: ... Assistant: ...``; or the response is read alone, since the prompt is
the same for both sides of a comparison and takes its part of an encoder's mean. Every text is four runs of tokens,

    opening | prompt | response | closing

so that one that is too long loses the beginning of its prompt, and of its response only what alone exceeds the limit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

import numpy as np
import torch
from attrs import frozen
from jinja2 import TemplateError
from torch import Tensor, nn
from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

from copl.data.chat import decode_prompt
from copl.errors import BackboneError
from copl.experts.targets import default_target_modules
from copl.records import ResponseTable, TokenBatch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from copl.records import IntArray

Pooling = Literal["last", "mean"]
Template = Literal["chat", "pair", "plain", "response"]
Side = Literal["left", "right"]

_Specials: TypeAlias = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]
_PLACEHOLDER = "copl-response-b3f1"


@final
@frozen(eq=False)
class LoadedBackbone:
    """A transformer without its language-model head, frozen, and what a reward model has to know of it.

    Attributes:
        model: the transformer; returns ``last_hidden_state`` [B, L, H].
        tokenizer: its tokenizer; never changed.
        hidden_size: size H of the hidden states, from the configuration.
        num_layers: number of transformer layers.
        pooling: how hidden states become one vector: of the last token, or their mean.
        template: how prompt and response are joined.
        target_modules: the linear modules LoRA adapts unless others are named.
        pad_id: token id that fills up batches. Attention masks tell padding from text, never this id: it may be the
            end-of-text token, and is that (else 0) where the tokenizer has no padding token.
        max_positions: the longest input the model takes, in tokens.
        source: Hugging Face id or path by which others find the same weights; None where there is none.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    hidden_size: int
    num_layers: int
    pooling: Pooling
    template: Template
    target_modules: tuple[str, ...]
    pad_id: int
    max_positions: int
    source: str | None = None

    def on_accelerator(self) -> LoadedBackbone:
        """Move the transformer to this process's GPU, where there is one, in place; return itself."""
        if torch.cuda.is_available():
            self.model.to("cuda")
        return self


def prepare_backbone(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    pooling: Pooling | None = None,
    template: Template | None = None,
) -> LoadedBackbone:
    """Freeze a model and find out what a reward model has to know of it.

    Args:
        model: a transformer without head; put into evaluation mode, in place.
        tokenizer: its tokenizer, a fast one.
        pooling: None: the mean for encoders, the last token for decoders.
        template: None: the chat template where there is one, a sentence pair for encoders, else plain text.

    Raises:
        BackboneError: an encoder-decoder, a model whose query and value projections cannot be found, or a chat template
            asked for where there is none.
    """
    config = model.config.get_text_config()
    if model.config.is_encoder_decoder:
        raise BackboneError(f"{type(model).__name__} is an encoder-decoder; a decoder or an encoder is needed")
    is_encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    has_chat = bool(tokenizer.chat_template)
    if template == "chat" and not has_chat:
        raise BackboneError(f"the tokenizer of {type(model).__name__} has no chat template; use template=plain")
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    config.use_cache = False  # nothing is generated
    model.requires_grad_(False)
    model.eval()
    return LoadedBackbone(
        model=model,
        tokenizer=tokenizer,
        hidden_size=int(config.hidden_size),
        num_layers=int(config.num_hidden_layers),
        pooling=pooling or ("mean" if is_encoder else "last"),
        template=template or ("chat" if has_chat else "pair" if is_encoder else "plain"),
        target_modules=default_target_modules(model),
        pad_id=next(int(i) for i in ids if i is not None),
        max_positions=_max_positions(model, tokenizer),
    )


def _max_positions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    limits = [tokenizer.model_max_length, getattr(model.config.get_text_config(), "max_position_embeddings", None)]
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        # RoBERTa and its kin count positions from behind the padding index.
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            limits.append(table.num_embeddings - table.padding_idx - 1)
    return int(min(limit for limit in limits if limit))


@final
@frozen(eq=False)
class EncodedResponses:
    """Texts as tokens of uneven length, kept flat.

    Attributes:
        ids: the token ids of all texts, one after the other.
        offsets: where each text begins in `ids`, and where the last one ends [N + 1].
        prompt_lengths: number of tokens before the response in each text, opening included [N].
        pad_id: token id that fills up batches.
        max_length: the limit in tokens that was applied.
        num_truncated: texts that were too long and lost tokens.
        num_responses_cut: those of them whose response alone was too long, so that its end is missing too.
    """

    ids: NDArray[np.int32]
    offsets: IntArray
    prompt_lengths: IntArray
    pad_id: int
    max_length: int
    num_truncated: int
    num_responses_cut: int

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> IntArray:
        """Number of tokens of each text [N]."""
        lengths: IntArray = np.diff(self.offsets)
        return lengths

    def finding(self) -> str | None:
        """Return one sentence on what was cut, or None where nothing was."""
        if self.num_truncated == 0:
            return None
        cut = f"; {self.num_responses_cut} of them also the end of a response" if self.num_responses_cut else ""
        return (
            f"{self.num_truncated} of {len(self)} texts exceed {self.max_length} tokens "
            f"and lost the beginning of their prompt{cut}; raise max_length to keep all"
        )


@final
@frozen
class _Joint:
    """What stands around the responses of one prompt; `opening` and `closing` are never cut."""

    prompt: str
    opening: tuple[int, ...] = ()
    divider: tuple[int, ...] = ()
    closing: tuple[int, ...] = ()
    closing_text: str = ""
    before_response: str = ""
    strips: bool = False


def encode_responses(
    backbone: LoadedBackbone, responses: ResponseTable, rows: IntArray, max_length: int
) -> EncodedResponses:
    """Join prompt and response of some rows and turn them into tokens; each prompt is tokenised once.

    Args:
        backbone: whose tokenizer and template to use.
        responses: the responses.
        rows: which of them; text i of the result belongs to ``rows[i]``.
        max_length: limit in tokens; where the model takes fewer, its own limit holds.

    Raises:
        BackboneError: the chat template refuses a prompt, or the limit leaves no room for a response.
    """
    chosen = [int(row) for row in rows]
    special = cache(partial(_special_tokens, backbone.tokenizer))
    distinct = dict.fromkeys(responses.prompts[row] for row in chosen)
    joints = {prompt: _joint(backbone, prompt, special) for prompt in distinct}
    limit = min(max_length, backbone.max_positions)
    prompts = _tokenise(backbone, [joint.prompt for joint in joints.values()])
    closings = _tokenise(backbone, [joint.closing_text for joint in joints.values()])
    of_prompt = dict(zip(joints, zip(joints.values(), prompts, closings, strict=True), strict=True))
    texts = [_response_text(joints[responses.prompts[row]], responses.texts[row]) for row in chosen]
    kept: list[list[int]] = []
    prompt_lengths: list[int] = []
    num_truncated = num_responses_cut = 0
    for row, response in zip(chosen, _tokenise(backbone, texts), strict=True):
        joint, prompt, closing = of_prompt[responses.prompts[row]]
        opening, prompt = _split_opening(backbone, joint, prompt)
        tail = [*joint.closing, *closing]
        room = limit - len(opening) - len(joint.divider) - len(tail)
        if room < 1:
            raise BackboneError(f"max_length {limit} leaves no room for a response beside the template's own tokens")
        num_truncated += len(prompt) + len(response) > room
        num_responses_cut += len(response) > room
        response = response[:room]
        spare = room - len(response)
        front = [*opening, *(prompt[-spare:] if spare else []), *joint.divider]
        kept.append([*front, *response, *tail])
        prompt_lengths.append(len(front))
    offsets = np.zeros(len(kept) + 1, dtype=np.int64)
    np.cumsum([len(ids) for ids in kept], out=offsets[1:])
    flat = np.fromiter((i for ids in kept for i in ids), dtype=np.int32, count=int(offsets[-1]))
    lengths = np.asarray(prompt_lengths, dtype=np.int64)
    return EncodedResponses(flat, offsets, lengths, backbone.pad_id, limit, num_truncated, num_responses_cut)


def _tokenise(backbone: LoadedBackbone, texts: Sequence[str]) -> list[list[int]]:
    distinct = list(dict.fromkeys(texts))
    if not distinct:
        return []
    ids = backbone.tokenizer(distinct, add_special_tokens=False, return_attention_mask=False, verbose=False)
    found = dict(zip(distinct, ids["input_ids"], strict=True))
    return [found[text] for text in texts]


def _split_opening(backbone: LoadedBackbone, joint: _Joint, prompt: list[int]) -> tuple[list[int], list[int]]:
    """A chat template writes the begin-of-text token itself; it is not part of what may be cut."""
    if not joint.opening and prompt and prompt[0] == backbone.tokenizer.bos_token_id:
        return prompt[:1], prompt[1:]
    return list(joint.opening), prompt


def _response_text(joint: _Joint, text: str) -> str:
    return joint.before_response + (text.strip() if joint.strips else text)


def _joint(backbone: LoadedBackbone, prompt: str, special: Callable[[str | None], _Specials]) -> _Joint:
    content = "" if backbone.template == "response" else decode_prompt(prompt)
    if backbone.template == "chat":
        return _chat_joint(backbone.tokenizer, content)
    if backbone.template == "pair" and (isinstance(content, str) or len(content) == 1):
        content = content if isinstance(content, str) else content[0]["content"]
    elif content != "":
        content = _spoken(content)
    opening, divider, closing = special(None)
    if content == "":
        return _Joint("", opening, closing=closing)
    if backbone.template == "pair":
        opening, divider, closing = special("a")
        return _Joint(content, opening, divider, closing)
    return _Joint(f"{content}\n\nAssistant:", opening, closing=closing, before_response=" ")


def _spoken(content: str | list[dict[str, str]]) -> str:
    """A conversation as plain text: Human: ... Assistant: ..."""
    if isinstance(content, str):
        return f"Human: {content}"
    names = {"user": "Human", "assistant": "Assistant"}
    return "\n\n".join(f"{names.get(m['role'], m['role'].capitalize())}: {m['content']}" for m in content)


def _chat_joint(tokenizer: Any, content: str | list[dict[str, str]]) -> _Joint:
    messages = [{"role": "user", "content": content}] if isinstance(content, str) else content
    answer = {"role": "assistant", "content": f"\t{_PLACEHOLDER}\t"}
    try:
        # Some templates print today's date unless they are given one; a score must not depend on the day.
        text = tokenizer.apply_chat_template([*messages, answer], tokenize=False, date_string="26 Jul 2024")
    except TemplateError as error:
        raise BackboneError(
            f"the chat template refuses the prompt {str(content)[:80]!r}: {error}; use the backbone's template=plain"
        ) from error
    before, found, after = text.rpartition(_PLACEHOLDER)
    if not found:
        raise BackboneError("the chat template drops the response; use the backbone's template=plain")
    strips = not (before.endswith("\t") and after.startswith("\t"))
    return _Joint(before.removesuffix("\t"), closing_text=after.removeprefix("\t"), strips=strips)


def _special_tokens(tokenizer: Any, second: str | None) -> _Specials:
    """The tokens that the tokenizer itself puts before, between and after one text or two."""
    encoding = tokenizer("a", second)
    ids, parts = encoding["input_ids"], encoding.sequence_ids(0)
    inside = [place for place, part in enumerate(parts) if part is not None]
    between = tuple(i for place, i in enumerate(ids) if parts[place] is None and inside[0] < place < inside[-1])
    return tuple(ids[: inside[0]]), between, tuple(ids[inside[-1] + 1 :])


def collate(encoded: EncodedResponses, rows: Sequence[int] | IntArray, side: Side = "right") -> TokenBatch:
    """Return texts as one padded batch, as long as its longest text.

    Args:
        encoded: the texts.
        rows: which of them, by their place in `encoded`.
        side: where the padding goes. With padding on the right, positions count from the first token.
    """
    chosen = np.asarray(rows, dtype=np.int64)
    lengths = encoded.lengths[chosen]
    width = int(lengths.max(initial=0))
    places = np.arange(width)
    mask = places < lengths[:, None] if side == "right" else places >= width - lengths[:, None]
    ids = np.full(mask.shape, encoded.pad_id, dtype=np.int64)
    pieces = [encoded.ids[encoded.offsets[row] : encoded.offsets[row + 1]] for row in chosen]
    if pieces:
        ids[mask] = np.concatenate(pieces)
    return TokenBatch(torch.from_numpy(ids), torch.from_numpy(mask.astype(np.int64)))


def pool(hidden: Tensor, attention_mask: Tensor, how: Pooling) -> Tensor:
    """Return one vector [B, H] for each text.

    Args:
        hidden: hidden states [B, L, H].
        attention_mask: 1 for tokens, 0 for padding on either side [B, L].
        how: ``last``: the state of the last token that is not padding; ``mean``: the mean over all that are not.
    """
    if how == "last":
        places = torch.arange(1, attention_mask.shape[1] + 1, device=attention_mask.device)
        last = (attention_mask * places).argmax(dim=1)
        return hidden[torch.arange(len(hidden), device=hidden.device), last.to(hidden.device)]
    mask = attention_mask.unsqueeze(-1).to(hidden.device)
    total = (hidden.float() * mask).sum(dim=1)
    return (total / mask.sum(dim=1).clamp(min=1)).to(hidden.dtype)
