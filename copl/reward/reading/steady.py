"""Passes whose result for a text does not depend on what else is read with it.

Matrix products are rounded as their shapes demand, so a text read beside others may have other last digits than alone.
Here every text is padded to a width of its own, a multiple of 8 tokens, stands only beside texts of the same width,
and no pass has fewer than 64 rows of tokens, below which libraries change their kernels. What is left to the company a
text is read in is nothing that was ever measured (`tests/reward/reading/test_steady.py`).

A decoder reads the prompt of several responses once: keys and values of its tokens are kept while the responses are
read, and a response goes on from them (always, so that a score is the same with one response to the prompt or many).
`shares_prompts` proves on the model at hand that hidden states are those of whole texts. An encoder can't: what it says
of a prompt's token depends on the response.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, final

import numpy as np
import torch
from attrs import evolve, frozen
from torch import Tensor

from copl.reward.backbones.loaded import EncodedResponses, LoadedBackbone, apart, collate, pool, tolerance_of
from copl.reward.backbones.memory import memory_argument, memory_of
from copl.reward.reading.kept import UnevenRows
from copl.reward.reading.passes import Read, length_batches
from copl.reward.reading.trunk import FrozenTrunk, KeptStates
from copl.system.abreast import abreast

if TYPE_CHECKING:
    from copl.records import IntArray

Call = Callable[[dict[str, Any], "IntArray"], Any]
"""Runs a transformer on inputs whose rows are the texts at some places, and returns its output."""

_WIDTH = 8
_ROWS = 64
_FAMILY = 4
_MANY = 2048
"""Tokens of texts that are worth reading side by side."""


@final
@frozen(eq=False)
class TextBatch:
    """Some texts as a transformer has read them; padding lies on the right.

    Attributes:
        places: which texts [B].
        attention_mask: 1 for tokens, 0 for padding [B, L].
        hidden: last hidden states [B, L, H].
        states: hidden states that entered the first adapted layer [B, L, H]; None where they were not wanted.
    """

    places: IntArray
    attention_mask: Tensor
    hidden: Tensor
    states: Tensor | None


def steady_reads(
    backbone: LoadedBackbone,
    encoded: EncodedResponses,
    trunk: FrozenTrunk | None,
    states: UnevenRows | None,
    *,
    prompts: bool,
    upper: bool,
) -> Iterator[Read]:
    """Run the frozen layers that texts have not passed yet: all, those below the adapted ones, or those above.

    Where all are run in one go, hidden states are those of two goes to the last bit, for the batches are the same.

    Args:
        backbone: the transformer.
        encoded: the texts.
        trunk: where some layers are adapted.
        states: what entered those, for each text, where the layers below have been passed.
        prompts: whether a prompt is read once for all its responses.
        upper: whether the layers above are wanted; always where there are no others, or those below were passed.
    """
    model = backbone.model
    upper = upper or trunk is None or states is not None
    prompts = prompts and states is None
    with ExitStack() as stack:
        kept = None
        if trunk is not None and states is None:
            kept = stack.enter_context(trunk.keeping())
            if not upper:
                stack.enter_context(trunk.alone())

        def call(inputs: dict[str, Any], rows: IntArray) -> Any:
            if trunk is None or states is None:
                return model(**inputs)
            with trunk.replaying(states.padded_to(rows, inputs["attention_mask"].shape[1]).to(model.device)):
                return model(**inputs)

        def reads(places: IntArray) -> list[Read]:
            reads = []
            for batch in steady_pass(backbone, encoded.take(places), call, kept, prompts=prompts):
                pooled = pool(batch.hidden, batch.attention_mask, backbone.pooling).float().cpu() if upper else None
                below = None if batch.states is None else batch.states[batch.attention_mask.bool()].cpu()
                reads.append(Read(places[batch.places], pooled, below))
            return reads

        # the layers above are told what to go on from one call at a time; a few texts are quicker by all processors
        is_one = states is not None or model.device.type != "cpu" or len(encoded.ids) < _MANY
        for some in abreast(reads, [np.arange(len(encoded))] if is_one else _parts(encoded, prompts=prompts)):
            yield from some


def _parts(encoded: EncodedResponses, *, prompts: bool) -> list[IntArray]:
    """Return the places of texts whose passes on a processor have nothing to do with those of others."""
    if prompts:
        return [members for _, members in _families(encoded, None, always=True)]
    return [places for places, _ in steady_batches(encoded)]


def steady_batches(encoded: EncodedResponses, start: int = 0) -> Iterator[tuple[IntArray, int]]:
    """Yield places of texts that are padded to one width, with it.

    Args:
        encoded: the texts.
        start: tokens at the beginning of each text that are not read.
    """
    lengths = encoded.lengths - start
    room = np.maximum(encoded.max_length, encoded.lengths) - start
    widths = np.minimum(-(-lengths // _WIDTH) * _WIDTH, room)
    for width in np.unique(widths)[::-1].tolist():
        places = np.flatnonzero(widths == width)
        for part in length_batches(np.full(len(places), width)):
            yield places[part], width


def rows_of(places: IntArray, width: int) -> IntArray:
    """Return the places that a pass over texts of this width has as rows: some again, where they are too few."""
    rows: IntArray = np.resize(places, max(len(places), -(-_ROWS // max(1, width))))
    return rows


def steady_pass(
    backbone: LoadedBackbone,
    encoded: EncodedResponses,
    call: Call,
    kept: KeptStates | None = None,
    *,
    prompts: bool,
    kinds: IntArray | None = None,
) -> Iterator[TextBatch]:
    """Read texts, each by passes that are the same whatever else is read.

    Args:
        backbone: what there is to know of the transformer.
        encoded: the texts.
        call: runs it.
        kept: gets the states below the adapted layers at each call (`FrozenTrunk.keeping`), where they are wanted.
        prompts: whether a prompt is read once for all its responses.
        kinds: texts of different kinds have no tokens in common, whatever their prompts [N].
    """
    if not prompts:
        yield from _whole(backbone, encoded, call, kept)
        return
    for start, members in _families(encoded, kinds, always=backbone.model.device.type == "cpu"):
        part = encoded.take(members)
        if not start:
            for batch in _whole(backbone, part, _among(call, members), kept):
                yield evolve(batch, places=members[batch.places])
            continue
        prompt = collate(part, [0]).input_ids[:, :start]
        read = call({**_inputs(backbone, prompt, torch.ones_like(prompt)), "use_cache": True}, members[:1])
        before = kept.pop() if kept else None
        for places, width in steady_batches(part, start):
            rows = rows_of(places, width)
            tokens = collate(part, rows, width=start + width)
            cache = copy.deepcopy(memory_of(read))
            cache.batch_repeat_interleave(len(rows))
            inputs = _inputs(backbone, tokens.input_ids[:, start:], tokens.attention_mask)
            out = call({**inputs, memory_argument(): cache, "use_cache": True}, members[rows]).last_hidden_state
            after, own = (kept.pop() if kept else None), slice(len(places))
            states = None if before is None or after is None else _joined(before, after[own])
            hidden = _joined(read.last_hidden_state, out[own])
            yield TextBatch(members[places], tokens.attention_mask[own], hidden, states)


def _whole(
    backbone: LoadedBackbone, encoded: EncodedResponses, call: Call, kept: KeptStates | None
) -> Iterator[TextBatch]:
    for places, width in steady_batches(encoded):
        rows = rows_of(places, width)
        tokens = collate(encoded, rows, width=width)
        hidden = call(_inputs(backbone, tokens.input_ids, tokens.attention_mask), rows).last_hidden_state
        states, own = (kept.pop() if kept else None), slice(len(places))
        yield TextBatch(places, tokens.attention_mask[own], hidden[own], None if states is None else states[own])


@torch.no_grad()
def shares_prompts(backbone: LoadedBackbone) -> bool:
    """Return whether a text read after its prompt has the hidden states of the whole text, tried on some tokens."""
    model, length, start = backbone.model, 14, 5
    ids = (torch.arange(2 * length, device=model.device).view(2, length) + 7) % int(
        model.config.get_text_config().vocab_size
    )
    ids[1, :start] = ids[0, :start]
    mask = torch.ones_like(ids)
    mask[1, start + 4 :] = 0
    try:
        whole = model(input_ids=ids, attention_mask=mask).last_hidden_state[mask.bool()]
        prompt = model(input_ids=ids[:1, :start], attention_mask=mask[:1, :start], use_cache=True)
        cache = copy.deepcopy(memory_of(prompt))
        cache.batch_repeat_interleave(2)
        out = model(input_ids=ids[:, start:], attention_mask=mask, **{memory_argument(): cache}, use_cache=True)
        parts = _joined(prompt.last_hidden_state, out.last_hidden_state)[mask.bool()]
    except Exception:  # noqa: BLE001 - whatever a model says that keeps nothing, or something else, of what it has read
        return False
    return apart(parts, whole) <= tolerance_of(model.dtype)


def _families(encoded: EncodedResponses, kinds: IntArray | None, *, always: bool) -> Iterator[tuple[int, IntArray]]:
    """Yield the places of texts that have all tokens before the response in common, with the number of those.

    Where a small family is not to go by itself, as on an accelerator, which is quicker with many texts at once, it goes
    with other such, with no tokens in common.
    """
    starts = np.minimum(encoded.prompt_lengths, encoded.lengths - 1)  # each keeps its last token to itself
    families: dict[tuple[int, bytes], list[int]] = {}
    for place, start in enumerate(starts.tolist()):
        prompt = encoded.ids[encoded.offsets[place] : encoded.offsets[place] + start]
        families.setdefault((0 if kinds is None else int(kinds[place]), prompt.tobytes()), []).append(place)
    small: list[int] = []
    for places in families.values():
        if always or len(places) >= _FAMILY:
            yield int(starts[places[0]]), np.array(places, dtype=np.int64)
        else:
            small += places
    if small:
        yield 0, np.array(small, dtype=np.int64)


def _among(call: Call, members: IntArray) -> Call:
    """The same for texts that are known by their place among some."""
    return lambda inputs, rows: call(inputs, members[rows])


def _inputs(backbone: LoadedBackbone, ids: Tensor, mask: Tensor) -> dict[str, Any]:
    device = backbone.model.device
    return {"input_ids": ids.to(device), "attention_mask": mask.to(device)}


def _joined(prompt: Tensor, rest: Tensor) -> Tensor:
    """The states [B, P + L, H] of whole texts, from those of the one prompt [1, P, H] and of what follows [B, L, H]."""
    return torch.cat([prompt.expand(len(rest), -1, -1), rest], dim=1)
