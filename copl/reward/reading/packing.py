"""Two responses to one prompt in one sequence, so that a decoder reads the tokens they share once.

    prompt | rest of the chosen text | rest of the rejected one

A token sees the shared tokens and those of its own text before it; the positions of the rejected text go on from the
end of the shared tokens. What counts as shared is the longest common beginning of the two token sequences, so texts
whose prompts were cut unequally, or that have different prompts, are packed as correctly, only with less gain.
`check_packing` proves on the model at hand that the hidden states are those of the texts read one by one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from attrs import frozen
from torch import Tensor

from copl.errors import BackboneError
from copl.records import Comparisons
from copl.reward.backbones.loaded import EncodedResponses, LoadedBackbone, apart, collate, tolerance_of
from copl.reward.reading.kept import UnevenRows

if TYPE_CHECKING:
    from copl.records import IntArray

SHARED, CHOSEN, REJECTED, PADDING = 0, 1, 2, -1


@final
@frozen(eq=False)
class PackedPairs:
    """Comparisons as tokens.

    Attributes:
        input_ids: token ids [B, L].
        segments: which text a token belongs to: `SHARED`, `CHOSEN`, `REJECTED` or `PADDING` [B, L].
        position_ids: place of each token in its own text [B, L].
    """

    input_ids: Tensor
    segments: Tensor
    position_ids: Tensor

    def own(self, segment: int) -> Tensor:
        """Return the mask [B, L] of the tokens of the chosen or the rejected text, shared ones included."""
        return ((self.segments == SHARED) | (self.segments == segment)).long()

    def block_mask(self) -> Tensor:
        """Return which token [B, 1, L, L] (row) sees which (column); padding sees itself, to keep numbers finite."""
        length = self.segments.shape[1]
        seen, sees = self.segments.unsqueeze(1), self.segments.unsqueeze(2)
        causal = torch.ones(length, length, dtype=torch.bool, device=self.segments.device).tril()
        allowed = causal & ((seen == SHARED) | (seen == sees))
        return allowed.unsqueeze(1)


def shared_beginning(first: Any, second: Any) -> int:
    """Return the number of tokens two texts begin with in common; each text keeps at least its last one to itself."""
    limit = min(len(first), len(second)) - 1
    different = np.flatnonzero(first[:limit] != second[:limit])
    return int(different[0]) if len(different) else limit


def pack_pairs(encoded: EncodedResponses, chosen: IntArray, rejected: IntArray) -> tuple[PackedPairs, list[int]]:
    """Pack the texts `chosen[i]` and `rejected[i]`; also return the number of tokens each pair shares."""
    rows, shared = [], []
    for first, second in zip(chosen, rejected, strict=True):
        a, b = _ids(encoded, first), _ids(encoded, second)
        common = shared_beginning(a, b)
        segments = np.repeat([SHARED, CHOSEN, REJECTED], [common, len(a) - common, len(b) - common])
        positions = np.concatenate([np.arange(len(a)), np.arange(common, len(b))])
        rows.append((np.concatenate([a, b[common:]]), segments, positions))
        shared.append(common)
    width = max(len(ids) for ids, _, _ in rows)
    tensors = [torch.full((len(rows), width), fill) for fill in (encoded.pad_id, PADDING, 0)]
    for place, row in enumerate(rows):
        for tensor, values in zip(tensors, row, strict=True):
            tensor[place, : len(values)] = torch.from_numpy(values.astype(np.int64))
    return PackedPairs(*tensors), shared


def packed_states(
    kept: UnevenRows, pairs: PackedPairs, chosen: IntArray, rejected: IntArray, shared: list[int]
) -> Tensor:
    """Return the kept hidden states [B, L, H] of packed pairs."""
    spans = [kept.text(a) for a in chosen]
    spans = [span for a, b, n in zip(spans, rejected, shared, strict=True) for span in (a, kept.text(b)[n:])]
    padded = spans[0].new_zeros((*pairs.segments.shape, spans[0].shape[1]))
    padded[pairs.segments != PADDING] = torch.cat(spans)
    return padded


def packed_inputs(model: Any, pairs: PackedPairs) -> dict[str, Tensor]:
    """Return the arguments a transformer takes for packed pairs."""
    mask = pairs.block_mask()
    if model.config.get_text_config()._attn_implementation == "eager":  # adds the mask to the scores
        lowest = torch.finfo(model.dtype).min
        mask = torch.zeros(mask.shape, dtype=model.dtype, device=mask.device).masked_fill_(~mask, lowest)
    return {"input_ids": pairs.input_ids, "attention_mask": mask, "position_ids": pairs.position_ids}


def saved_share(encoded: EncodedResponses, comparisons: Comparisons) -> float:
    """Return the share of all tokens of the pairs that need not be read when they are packed."""
    if len(comparisons) == 0:
        return 0.0
    step = max(1, len(comparisons) // 1000)
    pairs = [(_ids(encoded, a), _ids(encoded, b)) for a, b in _places(comparisons)[::step]]
    return sum(shared_beginning(a, b) for a, b in pairs) / sum(len(a) + len(b) for a, b in pairs)


@torch.no_grad()
def check_packing(backbone: LoadedBackbone, encoded: EncodedResponses, comparisons: Comparisons) -> None:
    """Compare packed pairs with the same texts one by one.

    Raises:
        BackboneError: the hidden states differ, or the attention cannot be masked in blocks; the pairs of this model
            cannot be packed.
    """
    model: Any = backbone.model
    config = model.config.get_text_config()
    window, name = getattr(config, "sliding_window", None), type(model).__name__
    attention = config._attn_implementation
    if attention not in ("sdpa", "eager"):
        raise BackboneError(f"pairs cannot be packed with {attention} attention; it takes no block mask")
    if window and int(encoded.lengths.max(initial=0)) > window:
        raise BackboneError(f"pairs cannot be packed: some texts exceed the sliding window of {name}, {window} tokens")
    few = _places(comparisons)[:: max(1, len(comparisons) // 4)][:4]
    chosen, rejected = few.T
    pairs, _ = pack_pairs(encoded, chosen, rejected)
    pairs = PackedPairs(*(t.to(model.device) for t in (pairs.input_ids, pairs.segments, pairs.position_ids)))
    try:
        packed = model(**packed_inputs(model, pairs)).last_hidden_state
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError, AssertionError) as error:
        raise BackboneError(f"pairs cannot be packed: {name} takes no block mask ({error})") from error
    for rows, segment in ((chosen, CHOSEN), (rejected, REJECTED)):
        tokens = collate(encoded, rows)
        mask = tokens.attention_mask.to(model.device)
        plain = model(input_ids=tokens.input_ids.to(model.device), attention_mask=mask).last_hidden_state[mask.bool()]
        again = packed[pairs.own(segment).bool()]
        worst = apart(again, plain)
        if not worst <= tolerance_of(model.dtype):
            raise BackboneError(
                f"pairs cannot be packed: hidden states of {name} differ by {worst:.1e} of the largest value; only "
                "models that read from left to right can share a prompt"
            )


def _ids(encoded: EncodedResponses, place: int) -> Any:
    return encoded.ids[encoded.offsets[place] : encoded.offsets[place + 1]]


def _places(comparisons: Comparisons) -> IntArray:
    places: IntArray = np.stack([comparisons.chosen, comparisons.rejected], axis=1)
    return places
