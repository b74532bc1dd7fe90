"""The transformer under a reward model: its parts, its texts as tokens, and the pooling of its hidden states.

How a text is joined of prompt and response, and what is cut where it is too long, says
`copl.reward.backbones.standalone`, which exported models share.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal, final

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor, nn

from copl.errors import BackboneError, in_brief
from copl.experts.targets import default_target_modules, modules_called_otherwise
from copl.records import ResponseTable, TokenBatch
from copl.reward.backbones.standalone import TextError, Tokens, chat_template, encode

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from copl.records import IntArray

Pooling = Literal["last", "mean"]
Template = Literal["chat", "pair", "plain", "response"]


@final
@frozen(eq=False)
class LoadedBackbone:
    """A transformer without its language-model head, frozen, and what a reward model has to know of it.

    Attributes:
        model: the transformer; returns ``last_hidden_state`` [B, L, H].
        tokenizer: its tokenizer; never changed.
        hidden_size: size H of the hidden states that the transformer returns.
        num_layers: number of transformer layers.
        pooling: how hidden states become one vector: of the last token, or their mean.
        template: how prompt and response are joined.
        target_modules: the linear modules LoRA adapts unless others are named; none where its names tell nothing.
        pad_id: token id that fills up batches. Attention masks tell padding from text, never this id: it may be the
            end-of-text token, and is that (else 0) where the tokenizer has no padding token.
        max_positions: the longest input the model takes, in tokens.
        source: Hugging Face id or path by which others find the same weights; None where there is none.
        revision: the commit of a Hugging Face id.
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
    revision: str | None = None

    def on_accelerator(self) -> LoadedBackbone:
        """Move the transformer to this process's GPU, where there is one, in place; return itself."""
        if accelerator().type != "cpu":
            self.model.to(accelerator())
        return self


def accelerator() -> torch.device:
    """Return this process's GPU, or the processor where there is none."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def prepare_backbone(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    pooling: Pooling | None = None,
    template: Template | None = None,
) -> LoadedBackbone:
    """Freeze a model and find out what a reward model has to know of it.

    Args:
        model: a transformer without head; put into evaluation mode, in place. Of one that sees or hears too, only the
            part that reads is kept.
        tokenizer: its tokenizer.
        pooling: None: the mean for encoders, the last token for decoders.
        template: None: the chat template where there is one, a sentence pair for encoders, else plain text.

    Raises:
        BackboneError: an encoder-decoder, a model that does not give a hidden state for each token or reads padding,
            or a chat template asked for where there is none.
    """
    # Imported here, as whoever loads a model has done: others need only what this module knows of tokens.
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    if model.config.is_encoder_decoder:
        raise BackboneError(f"{type(model).__name__} is an encoder-decoder; a decoder or an encoder is needed")
    model = _reader(model)
    config = model.config.get_text_config()
    is_encoder = config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    config.use_cache = False  # nothing is generated
    model.requires_grad_(False)
    model.eval()
    pad_id = _pad_id(model, tokenizer)
    hidden_size, unfit = _try_out(model, pad_id)
    return LoadedBackbone(
        model=model,
        tokenizer=tokenizer,
        hidden_size=hidden_size,
        num_layers=_num_layers(model),
        pooling=pooling or ("mean" if is_encoder else "last"),
        template=_template_of(model, tokenizer, template, "pair" if is_encoder else "plain"),
        target_modules=default_target_modules(model, without=unfit),
        pad_id=pad_id,
        max_positions=max_positions(model, tokenizer),
    )


def _reader(model: PreTrainedModel) -> PreTrainedModel:
    """The part of a model that reads text, where it has others too."""
    config = model.config.get_text_config()
    parts = (module for module in model.modules() if getattr(module, "config", None) is config)
    reader: PreTrainedModel = model if config is model.config else next(parts, model)  # the outermost comes first
    return reader


@torch.no_grad()
def _try_out(model: PreTrainedModel, pad_id: int) -> tuple[int, frozenset[str]]:
    """Read a short text beside a longer one, and alone.

    Returns:
        the size of the hidden states, and the linear modules that are called with something else than a row a text.

    Raises:
        BackboneError: it does not give a hidden state for each token, or padding changes what it says of a text.
    """
    rows, length, short = 2, 16, 9
    ids = (torch.arange(rows * length, device=model.device) % (num_embeddings(model) or length)).view(rows, length)
    mask = torch.ones_like(ids)
    ids[0, short:], mask[0, short:] = pad_id, 0
    name = type(model).__name__
    try:
        with modules_called_otherwise(model, rows) as unfit:
            hidden = model(input_ids=ids, attention_mask=mask).last_hidden_state
        shape = tuple(hidden.shape)
        if shape[:2] != (rows, length) or len(shape) != 3:
            raise ValueError(f"its hidden states are {shape} for {rows} texts of {length} tokens")
        alone = model(input_ids=ids[:1, :short], attention_mask=mask[:1, :short]).last_hidden_state[0]
    except RuntimeError:  # short of memory, or a fault of the model's own: said where texts are read
        return int(model.config.get_text_config().hidden_size), frozenset()
    except Exception as error:  # whatever a model of another kind says to text
        raise BackboneError(
            f"{name} does not read plain text ({in_brief(error)}); a decoder or an encoder is needed"
        ) from error
    worst = apart(hidden[0, :short], alone)
    if worst > tolerance_of(model.dtype):
        raise BackboneError(
            f"{name} reads padding: a text has another hidden state beside a longer one (by {worst:.1e} of the largest "
            "value), so its score would depend on the batch; choose another backbone"
        )
    return shape[2], frozenset(unfit)


def apart(states: Tensor, reference: Tensor) -> float:
    """Return the largest difference of two tensors of one shape, as a share of the largest value of the second."""
    return float((states - reference).abs().max() / reference.abs().max().clamp_min(1e-12))


def tolerance_of(dtype: torch.dtype) -> float:
    """Return how far `apart` two ways to the same hidden states may be; in half precision the order of sums matters."""
    return 1e-4 if dtype in (torch.float32, torch.float64) else 5e-2


def _num_layers(model: PreTrainedModel) -> int:
    """The number of layers as modules; some models run the same ones several times."""
    wanted = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    lengths = [len(module) for module in model.modules() if isinstance(module, nn.ModuleList)]
    return int(wanted) if wanted in lengths else max(lengths, default=1)


def _template_of(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, template: Template | None, other: Template
) -> Template:
    """The template to use: the one asked for, else the chat template, else `other`."""
    if template not in (None, "chat"):
        return template
    try:
        has_chat = chat_template(tokenizer) is not None
    except TextError as error:
        raise BackboneError(f"{type(model).__name__}: {error}") from error
    if template == "chat" and not has_chat:
        raise BackboneError(f"the tokenizer of {type(model).__name__} has no chat template; use template=plain")
    return "chat" if has_chat else other


def _pad_id(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to fill up batches with; it is masked, so any will do that the model has an embedding of."""
    count = num_embeddings(model)
    ids = (tokenizer.pad_token_id, tokenizer.eos_token_id, 0)
    return next(int(i) for i in ids if i is not None and (count is None or i < count))


def num_embeddings(model: PreTrainedModel) -> int | None:
    """Return how many tokens a model has embeddings of; None where it has none as other models have them."""
    try:
        count = getattr(model.get_input_embeddings(), "num_embeddings", None)
    except (NotImplementedError, AttributeError):
        return None
    return int(count) if count else None


def max_positions(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> int:
    """Return the longest input a model takes, in tokens."""
    limits = [tokenizer.model_max_length, getattr(model.config.get_text_config(), "max_position_embeddings", None)]
    for module in model.modules():
        table = getattr(module, "position_embeddings", None)
        # RoBERTa and its kin count positions from behind the padding index.
        if isinstance(table, nn.Embedding) and table.padding_idx is not None:
            limits.append(table.num_embeddings - table.padding_idx - 1)
    return int(min(limit for limit in limits if isinstance(limit, int | float) and limit > 0))


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

    def take(self, places: IntArray) -> EncodedResponses:
        """Return the texts at some places, in their order; what was cut is told of all of them."""
        offsets = np.zeros(len(places) + 1, dtype=np.int64)
        np.cumsum(self.lengths[places], out=offsets[1:])
        pieces = [self.ids[self.offsets[place] : self.offsets[place + 1]] for place in places.tolist()]
        ids = np.concatenate(pieces) if pieces else self.ids[:0]
        return evolve(self, ids=ids, offsets=offsets, prompt_lengths=self.prompt_lengths[places])

    def alike(self, first: IntArray, second: IntArray) -> NDArray[np.bool_]:
        """Return whether the texts at two places are the same tokens, for each pair of places [N]."""
        pieces = [self.ids[self.offsets[place] : self.offsets[place + 1]].tobytes() for place in range(len(self))]
        pairs = zip(first.tolist(), second.tolist(), strict=True)
        return np.fromiter((pieces[a] == pieces[b] for a, b in pairs), np.bool_, len(first))

    def finding(self) -> str | None:
        """Return one sentence on what was cut, or None where nothing was."""
        if self.num_truncated == 0:
            return None
        cut = f"; {self.num_responses_cut} of them also the end of a response" if self.num_responses_cut else ""
        return (
            f"{self.num_truncated} of {len(self)} texts exceed {self.max_length} tokens "
            f"and lost the beginning of their prompt{cut}; raise max_length to keep all"
        )


def encode_responses(
    backbone: LoadedBackbone, responses: ResponseTable, rows: IntArray, max_length: int
) -> EncodedResponses:
    """Join prompt and response of some rows and turn them into tokens.

    Args:
        backbone: whose tokenizer and template to use.
        responses: the responses.
        rows: which of them; text i of the result belongs to ``rows[i]``.
        max_length: limit in tokens; where the model takes fewer, its own limit holds.

    Raises:
        BackboneError: the chat template refuses a prompt, the limit leaves no room for a response, or the tokenizer
            gives tokens that the model has no embedding of.
    """
    limit = min(max_length, backbone.max_positions)
    return joined_tokens(backbone, tokens_of(backbone, responses, rows, limit), limit)


def tokens_of(backbone: LoadedBackbone, responses: ResponseTable, rows: IntArray, limit: int) -> list[Tokens]:
    """Return some rows as tokens, `limit` at most; see `encode_responses`."""
    texts = [(responses.prompts[int(row)], responses.texts[int(row)]) for row in rows]
    try:
        return encode(backbone.tokenizer, backbone.template, texts, limit)
    except TextError as error:
        raise BackboneError(str(error)) from error


def joined_tokens(backbone: LoadedBackbone, tokens: Sequence[Tokens], limit: int) -> EncodedResponses:
    """Return texts as tokens in one record; see `encode_responses`."""
    offsets = np.zeros(len(tokens) + 1, dtype=np.int64)
    np.cumsum([len(text.ids) for text in tokens], out=offsets[1:])
    flat = np.fromiter((i for text in tokens for i in text.ids), dtype=np.int32, count=int(offsets[-1]))
    _require_embeddings(backbone, flat)
    return EncodedResponses(
        ids=flat,
        offsets=offsets,
        prompt_lengths=np.asarray([text.prompt_length for text in tokens], dtype=np.int64),
        pad_id=backbone.pad_id,
        max_length=limit,
        num_truncated=sum(text.is_cut for text in tokens),
        num_responses_cut=sum(text.response_is_cut for text in tokens),
    )


def _require_embeddings(backbone: LoadedBackbone, ids: NDArray[np.int32]) -> None:
    """Check that the model has an embedding of every token.

    Raises:
        BackboneError: it has not.
    """
    count = num_embeddings(backbone.model)
    strange = np.unique(ids[ids >= count]) if count is not None else ids[:0]
    if len(strange):
        token = backbone.tokenizer.convert_ids_to_tokens(int(strange[0]))
        raise BackboneError(
            f"the tokenizer gives token {strange[0]} ({token!r}), but {type(backbone.model).__name__} has {count} "
            "embeddings; take the tokenizer that belongs to the model, or resize its embeddings and save it again"
        )


def collate(encoded: EncodedResponses, rows: Sequence[int] | IntArray, *, width: int = 0) -> TokenBatch:
    """Return texts as one batch, padded on the right to its longest text, so that positions count from the first token.

    Args:
        encoded: the texts.
        rows: which of them, by their place in `encoded`.
        width: what the batch is at least padded to.
    """
    chosen = np.asarray(rows, dtype=np.int64)
    lengths = encoded.lengths[chosen]
    width = int(lengths.max(initial=width))
    mask = np.arange(width) < lengths[:, None]
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
