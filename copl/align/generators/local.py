"""Generator ``local``: any causal language model of transformers, on this machine."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Literal, final

import attrs
from attrs.validators import and_, ge, gt, le

from copl.align.choosing import WithText
from copl.align.prompts import told_first
from copl.align.seeds import stream
from copl.options import option
from copl.plugins import Component
from copl.reward.backbones.names import PACKAGED_WRITER

if TYPE_CHECKING:
    from copl.align.policies.writer import Writer
    from copl.errors import BackboneError
    from copl.interfaces import Progress


@final
@attrs.frozen
class LocalOptions:
    """Options of the generator on this machine."""

    model: str = option(PACKAGED_WRITER, help=f"{PACKAGED_WRITER}, a Hugging Face id, or the path of a model directory")
    revision: str | None = option(None, help="branch, tag or commit of a Hugging Face id")
    dtype: Literal["float32", "bfloat16", "float16"] = option("float32", help="floating-point type of the weights")
    max_tokens: int = option(128, help="longest candidate, in tokens", validator=ge(1))
    max_prompt: int = option(
        2048, help="tokens of a prompt that are read; a longer one loses its beginning", validator=ge(1)
    )
    temperature: float = option(
        1.0, help="below 1 likelier words, above 1 rarer ones; 0 always the likeliest", validator=ge(0.0)
    )
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
        """Return a text for the weights, the tokenizer and how tokens are drawn.

        Raises:
            BackboneError: the model cannot be found.
        """
        return f"local:{self._weights}:{attrs.astuple(attrs.evolve(self._options, model='', revision=None))}"

    @cached_property
    def _weights(self) -> str:
        from copl.reward.backbones.checkpoints import fingerprint_directory
        from copl.reward.backbones.language_models import language_model_directory

        return fingerprint_directory(language_model_directory(self._options.model, revision=self._options.revision))

    def candidates(self, prompts: Sequence[str], *, num: int, seed: int, progress: Progress) -> list[tuple[str, ...]]:
        """Write the candidates.

        Raises:
            BackboneError: the model cannot be found or does not fit, or a prompt is refused by its chat template, or
                all candidates to it were broken off before the answer began.
        """
        from copl.align.sampling import SamplingOptions

        options, writer = self._options, self._writer
        how = SamplingOptions(options.temperature, options.top_p, options.max_tokens)
        instructed = [told_first(prompt, options.system) for prompt in prompts]
        asked = writer.questions(instructed, options.max_tokens, progress, options.max_prompt)
        candidates = WithText()
        with progress.task("write candidates", total=len(prompts) * num) as task:
            for prompt, question in zip(prompts, asked, strict=True):
                texts: list[str | BackboneError] = []
                for start in range(0, num, options.batch_size):
                    places = range(start, min(start + options.batch_size, num))
                    texts += writer.write(question, [stream(seed, prompt, place) for place in places], how)
                    task.advance(len(places))
                candidates.add(texts)
        candidates.tell(progress)
        return candidates.texts

    def num_tokens(self, text: str) -> int:
        """Return how many tokens a text has."""
        return len(self._writer.tokenizer(text, add_special_tokens=False)["input_ids"])

    @cached_property
    def _writer(self) -> Writer:
        from copl.align.policies.writer import Writer

        options = self._options
        return Writer.open(options.model, revision=options.revision, dtype=options.dtype)


COMPONENTS = [
    Component(
        name="local",
        options=LocalOptions,
        build=LocalGenerator,
        summary="any causal language model of transformers, on this machine",
    )
]
