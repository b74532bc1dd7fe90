"""Tokens are drawn by inversion, each row by numbers of its own; with a memory of the prompt as without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from copl.align.sampling import SamplingOptions, drawn, sample

PLAIN = SamplingOptions(temperature=1.0, top_p=1.0, max_tokens=6)


def test_each_token_is_drawn_as_often_as_it_is_likely() -> None:
    logits = torch.tensor([[0.5, 2.0, -1.0, 1.0]])
    draws = ((np.arange(10_000) + 0.5) / 10_000).tolist()
    for temperature in (0.5, 1.0, 3.0):
        tokens = drawn(logits.repeat(len(draws), 1), draws, temperature, 1.0)
        shares = np.bincount(tokens, minlength=4) / len(draws)
        np.testing.assert_allclose(shares, (logits[0] / temperature).softmax(0).numpy(), atol=2e-4)


def test_top_p_keeps_the_fewest_that_reach_it() -> None:
    logits = torch.tensor([[0.2, 0.5, 0.3]]).log()
    draws = np.linspace(0, 0.9999, 50).tolist()
    assert set(drawn(logits.repeat(50, 1), draws, 1.0, 0.4)) == {1}
    assert set(drawn(logits.repeat(50, 1), draws, 1.0, 0.6)) == {1, 2}
    assert set(drawn(logits.repeat(50, 1), draws, 1.0, 1.0)) == {0, 1, 2}


@given(
    logits=st.lists(st.floats(-50, 50), min_size=1, max_size=9),
    draw=st.floats(0, 1, exclude_max=True),
    top_p=st.floats(1e-6, 1.0),
)
def test_what_cannot_be_drawn_never_is(logits: list[float], draw: float, top_p: float) -> None:
    banned = torch.tensor([[*logits, -torch.inf]])
    (token,) = drawn(banned, [draw], 1.0, top_p)
    assert 0 <= token < len(logits)


@pytest.fixture(scope="module")
def model(tiny_model: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_model, local_files_only=True).eval()


def streams(*seeds: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in seeds]


@torch.no_grad()
def plainly(model: Any, prompt: list[int], stream: np.random.Generator, ends: frozenset[int]) -> list[int]:
    """Read everything anew for each token."""
    written: list[int] = []
    while len(written) < PLAIN.max_tokens:
        logits = model(input_ids=torch.tensor([[*prompt, *written]])).logits[:, -1].float()
        if not written:
            logits[:, sorted(ends)] = -torch.inf
        (token,) = drawn(logits, [stream.random()], PLAIN.temperature, PLAIN.top_p)
        if token in ends:
            break
        written.append(token)
    return written


def test_together_is_the_same_as_alone_and_as_without_memory(model: Any) -> None:
    prompt, ends = [5, 9, 7], frozenset(range(40))
    together = sample(model, prompt, streams(1, 2, 3, 4), PLAIN, ends=ends)
    assert together == [sample(model, prompt, streams(seed), PLAIN, ends=ends)[0] for seed in (1, 2, 3, 4)]
    assert together == [plainly(model, prompt, stream, ends) for stream in streams(1, 2, 3, 4)]
    assert len({tuple(row) for row in together}) == 4


def test_an_end_ends_a_row_alone_and_is_never_the_first(model: Any) -> None:
    vocabulary = model.config.vocab_size
    ends = frozenset(range(vocabulary // 2))
    rows = sample(model, [5], streams(*range(12)), PLAIN, ends=ends)
    assert all(row and not ends & set(row) for row in rows)
    assert {len(row) for row in rows} > {1}
    assert max(len(row) for row in rows) <= PLAIN.max_tokens
