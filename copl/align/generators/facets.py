"""Generator ``facets``: the grammar of the embedded corpus, whose candidates have facets that are known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, final

from copl.align.seeds import stream
from copl.data.reading.faults import Faults
from copl.data.sources.facets.corpus import FACETS, Subject, Topic, compose
from copl.data.sources.facets.reading import find_subject
from copl.errors import quoted
from copl.options import NoOptions
from copl.plugins import Component

if TYPE_CHECKING:
    from copl.interfaces import Progress

COMBINATIONS = tuple(product((0, 1), repeat=len(FACETS)))
"""All styles that an answer may have, 32."""


@final
class FacetsGenerator:
    """Writes answers to the prompts of the embedded corpus, each of another style, in an order of the prompt's own.

    There are no more than 32 candidates to a prompt, one of each combination of the five style facets.
    """

    def __init__(self, options: NoOptions) -> None:
        self._options = options

    @property
    def follows_prompts(self) -> bool:
        return False

    def fingerprint(self) -> str:
        return "facets"

    def candidates(self, prompts: Sequence[str], *, num: int, seed: int, progress: Progress) -> list[tuple[str, ...]]:
        """Compose the candidates.

        Raises:
            DataError: a prompt is none of the corpus.
        """
        self.check(prompts)
        subjects = ((prompt, find_subject(prompt)) for prompt in prompts)
        return [self._written(*subject, prompt, num, seed) for prompt, subject in subjects if subject is not None]

    def check(self, prompts: Sequence[str]) -> None:
        """Look whether all prompts are of the corpus.

        Raises:
            DataError: one fault for each that is not.
        """
        faults = Faults("generator facets")
        for prompt in dict.fromkeys(prompts):
            if find_subject(prompt) is None:
                faults.add(
                    f"{quoted(prompt)} is no prompt of the embedded corpus; choose another generator, such as local"
                )
        faults.raise_any()

    @staticmethod
    def _written(topic: Topic, subject: Subject, prompt: str, num: int, seed: int) -> tuple[str, ...]:
        styles = stream(seed, prompt, -1).permutation(COMBINATIONS)[:num]
        return tuple(compose(topic, subject, style, stream(seed, prompt, place)) for place, style in enumerate(styles))


COMPONENTS = [
    Component(
        name="facets",
        options=NoOptions,
        build=FacetsGenerator,
        summary="the grammar of the embedded corpus: up to 32 answers of different, known style",
    )
]
