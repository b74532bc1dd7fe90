"""Sampling from a causal language model so that each candidate has random numbers of its own.

All candidates to a prompt are written together: the prompt is read once, and then one token of each a step. Prompts
never share a batch, so what stands beside a prompt cannot change what is written to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, final

import torch
from attrs import frozen
from torch import Tensor

from copl.reward.backbones.memory import memory_argument, memory_of

if TYPE_CHECKING:
    import numpy as np


@final
@frozen
class SamplingOptions:
    """How tokens are drawn.

    Attributes:
        temperature: divides the logits; 0 takes the likeliest token.
        top_p: tokens are drawn from the likeliest ones that together have this probability (Holtzman et al. 2020).
        max_tokens: a candidate ends after so many.
    """

    temperature: float
    top_p: float
    max_tokens: int


@torch.inference_mode()
def sample(
    model: Any,
    prompt: Sequence[int],
    streams: Sequence[np.random.Generator],
    options: SamplingOptions,
    *,
    ends: frozenset[int],
) -> list[list[int]]:
    """Return the tokens of one candidate for each stream of random numbers, without the token that ended it.

    Args:
        model: a causal language model of transformers, in evaluation mode.
        prompt: the tokens of the prompt, at least one.
        streams: one number is drawn from each stream for each token.
        options: how tokens are drawn.
        ends: tokens that end a candidate; never the first one.
    """
    logits, cache = _read(model, torch.tensor([list(prompt)], device=model.device), len(streams))
    written: list[list[int]] = [[] for _ in streams]
    open_rows = set(range(len(streams)))
    last = [0] * len(streams)
    for step in range(options.max_tokens):
        if step == 0 and ends:
            logits[:, sorted(ends)] = -torch.inf
        draws = [stream.random() for stream in streams]
        tokens = drawn(logits, draws, options.temperature, options.top_p)
        for row in sorted(open_rows):
            if tokens[row] in ends:
                open_rows.discard(row)
            else:
                written[row].append(tokens[row])
                last[row] = tokens[row]
        if not open_rows or step == options.max_tokens - 1:
            break
        output = model(
            input_ids=torch.tensor(last, device=model.device)[:, None], **{memory_argument(): cache}, use_cache=True
        )
        logits, cache = output.logits[:, -1].float(), memory_of(output)
    return written


def _read(model: Any, prompt: Tensor, count: int) -> tuple[Tensor, Any]:
    """Read the prompt, once where the model's memory of it can be copied, and return next logits [B, V] and memory."""
    output = model(input_ids=prompt, use_cache=True)
    cache = memory_of(output)
    if hasattr(cache, "batch_repeat_interleave"):
        cache.batch_repeat_interleave(count)
    elif count > 1:
        output = model(input_ids=prompt.expand(count, -1), use_cache=True)
        return output.logits[:, -1].float().clone(), memory_of(output)
    return output.logits[:, -1].float().expand(count, -1).clone(), cache


def drawn(logits: Tensor, draws: Sequence[float], temperature: float, top_p: float) -> list[int]:
    """Return a token for each row of logits [B, V], by inversion of the distribution at a number from 0 to 1 each.

    >>> drawn(torch.tensor([[0.0, 5.0, 5.0]]), [0.0], 1.0, 0.5)
    [1]
    """
    if temperature == 0:
        greedy: list[int] = logits.argmax(dim=1).tolist()
        return greedy
    likely, order = torch.sort((logits.double() / temperature).softmax(dim=1), dim=1, descending=True, stable=True)
    cumulated = likely.cumsum(dim=1)
    kept = (cumulated - likely < top_p).sum(dim=1, keepdim=True)  # up to the one that reaches top_p
    total = cumulated.gather(1, kept - 1)
    at = torch.tensor(draws, dtype=torch.float64, device=logits.device)[:, None] * total
    place = torch.minimum((cumulated <= at).sum(dim=1, keepdim=True), kept - 1)
    tokens: list[int] = order.gather(1, place)[:, 0].tolist()
    return tokens
