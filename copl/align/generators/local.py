"""Generator ``local``: any causal language model of transformers, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, final

import attrs
from attrs.validators import and_, ge, gt, le

from copl.align.prompts import told_first
from copl.align.seeds import stream
from copl.data.canonical import canonical_text
from copl.errors import BackboneError
from copl.options import option
from copl.plugins import Component

if TYPE_CHECKING:
    import numpy as np

    from copl.align.policies.writer import Writer
    from copl.interfaces import Progress

PACKAGED = "smollm2-135m"

_NO_WORDS = "..."
"""Stands for a candidate that is blank."""


@final
@attrs.frozen
class LocalOptions:
    """Options of the generator on this machine."""

    model: str = option(PACKAGED, help=f"{PACKAGED}, a Hugging Face id, or the path of a model directory")
    revision: str | None = option(None, help="branch, tag or commit of a Hugging Face id")
    dtype: Literal["float32", "bfloat16", "float16"] = option("float32", help="floating-point type of the weights")
    max_tokens: int = option(128, help="longest candidate, in tokens", validator=ge(1))
    temperature: float = option(1.0, help="below 1 likelier words, above 1 rarer ones", validator=gt(0.0))
    top_p: float = option(
        0.95, help="words are drawn from the likeliest that together have this share", validator=and_(gt(0.0), le(1.0))
    )
    batch_size: int = option(8, help="candidates to a prompt that are written together", validator=ge(1))
    system: str = option("", help="what the model is told before every prompt")


@final
class LocalGenerator:
    """Samples from a causal language model, by its chat template where it has one, else as Human: ... Assistant: ...

    Each candidate draws from random numbers of its own, made of seed, prompt and place. Rounding differs with the size
    of a batch, so another `num` or ``batch_size`` may, about once in ten thousand candidates, end in other words.
    """

    def __init__(self, options: LocalOptions) -> None:
        self._options = options

    @property
    def follows_prompts(self) -> bool:
        return True

    def fingerprint(self) -> str:
        """Return a text for the weights and the tokenizer.

        Raises:
            BackboneError: the model cannot be found.
        """
        from copl.reward.backbones.checkpoints import fingerprint_directory
        from copl.reward.backbones.language_models import language_model_directory

        directory = language_model_directory(self._options.model, revision=self._options.revision)
        return f"local:{fingerprint_directory(directory)}"

    def candidates(self, prompts: Sequence[str], *, num: int, seed: int, progress: Progress) -> list[tuple[str, ...]]:
        """Write the candidates.

        Raises:
            BackboneError: the model cannot be found or does not fit, or a prompt is refused by its chat template.
        """
        written: list[tuple[str, ...]] = []
        asked = [self._tokens(prompt) for prompt in prompts]
        with progress.task("write candidates", total=len(prompts) * num) as task:
            for prompt, tokens in zip(prompts, asked, strict=True):
                texts: list[str] = []
                for start in range(0, num, self._options.batch_size):
                    places = range(start, min(start + self._options.batch_size, num))
                    texts += self._write(tokens, [stream(seed, prompt, place) for place in places])
                    task.advance(len(places))
                written.append(tuple(texts))
        return written

    def num_tokens(self, text: str) -> int:
        """Return how many tokens a text has."""
        return len(self._writer.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _write(self, tokens: Sequence[int], streams: Sequence[np.random.Generator]) -> list[str]:
        from copl.align.sampling import SamplingOptions, sample

        writer, options = self._writer, self._options
        how = SamplingOptions(options.temperature, options.top_p, options.max_tokens)
        rows = sample(writer.model, tokens, streams, how, ends=self._ends)
        texts = [writer.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
        if not writer.chat:  # a model that was taught no end goes on with the next question
            texts = [text.partition("\n\nHuman:")[0] for text in texts]
        return [canonical_text(text) or _NO_WORDS for text in texts]

    @cached_property
    def _writer(self) -> Writer:
        from copl.align.policies.writer import Writer

        options = self._options
        return Writer.open(options.model, revision=options.revision, dtype=options.dtype)

    @cached_property
    def _ends(self) -> frozenset[int]:
        ends = getattr(self._writer.model.generation_config, "eos_token_id", None)
        listed = ends if isinstance(ends, list | tuple) else [ends]
        return frozenset(int(end) for end in (*listed, self._writer.end) if end is not None)

    def _tokens(self, prompt: str) -> list[int]:
        """Return the tokens of a prompt up to where the answer begins, the oldest left out where there is no room."""
        options = self._options
        room = self._writer.max_positions - options.max_tokens
        if room < 1:
            raise BackboneError(
                f"generator local: {options.model} reads {self._writer.max_positions} tokens, which leaves no room for"
                f" a prompt beside max_tokens={options.max_tokens}"
            )
        return self._writer.prompt_ids(told_first(prompt, options.system), room)


COMPONENTS = [
    Component(
        name="local",
        options=LocalOptions,
        build=LocalGenerator,
        summary="any causal language model of transformers, on this machine",
    )
]
