"""The generator of the embedded grammar: every style once, in an order of the prompt's own."""

from __future__ import annotations

import pytest

from copl.align.generators.facets import COMBINATIONS, FacetsGenerator
from copl.data.sources.facets.reading import read_facets
from copl.errors import DataError
from copl.options import NoOptions
from copl.system.progress import SilentProgress

PROMPTS = ["Why does my bread not rise?", "How do I clean a keyboard?"]


def write(prompts: list[str], num: int, seed: int = 0) -> list[tuple[str, ...]]:
    return FacetsGenerator(NoOptions()).candidates(prompts, num=num, seed=seed, progress=SilentProgress())


def test_thirty_two_candidates_are_of_all_styles() -> None:
    for prompt, texts in zip(PROMPTS, write(PROMPTS, 40), strict=True):
        assert sorted(read_facets(prompt, text) or () for text in texts) == sorted(COMBINATIONS)


def test_prompts_and_seeds_have_orders_of_their_own() -> None:
    orders = {
        tuple(read_facets(prompt, text) for text in texts)
        for seed in (0, 1)
        for prompt, texts in zip(PROMPTS, write(PROMPTS, 8, seed), strict=True)
    }
    assert len(orders) == 4


def test_a_prompt_it_does_not_know_is_named() -> None:
    with pytest.raises(DataError) as caught:
        write(["What is love?", PROMPTS[0], "Why?"], 1)
    refused = "is no prompt of the embedded corpus; choose another generator, such as local"
    assert caught.value.faults == (
        f"generator facets: 'What is love?' {refused}",
        f"generator facets: 'Why?' {refused}",
    )
