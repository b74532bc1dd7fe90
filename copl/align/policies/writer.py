"""A causal language model that policies stand on: prompts and responses as tokens, likelihoods, sampling."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

import torch
from attrs import frozen
from torch import Tensor

from copl.align.policies.rows import plain_prompt
from copl.align.policies.words import has_marks, marks_of, tokens_of
from copl.align.sampling import SamplingOptions, sample
from copl.data.canonical import canonical_text
from copl.data.chat import messages_of
from copl.data.thinking import OPENING, answer_in
from copl.errors import BackboneError, in_brief
from copl.interfaces import CutText
from copl.reward.backbones.checkpoints import fingerprint_directory, quiet
from copl.reward.backbones.language_models import language_model_directory
from copl.reward.backbones.standalone import TextError, chat_template, render

LONGEST_PROMPT = 2048
"""Tokens of a prompt that are read, where nothing else is said: more take minutes on a processor, and memory."""
_NO_WORDS = "..."
"""Stands for a response that is blank."""

if TYPE_CHECKING:
    import numpy as np

    from copl.align.policies.rows import PreferenceRow
    from copl.interfaces import Progress


@final
@frozen(eq=False)
class TokenPair:
    """A prompt with a response as tokens.

    Attributes:
        ids: all tokens.
        start: where the response begins.
    """

    ids: tuple[int, ...]
    start: int


@final
class Writer:
    """A causal language model with its tokenizer, frozen.

    Attributes:
        model: the model.
        tokenizer: its tokenizer.
        directory: where it lies.
    """

    def __init__(self, model: Any, tokenizer: Any, directory: Path) -> None:
        self.model = model
        self.tokenizer = tokenizer
        self.directory = directory
        try:
            self._has_chat = chat_template(tokenizer) is not None
        except TextError as error:
            raise BackboneError(f"{directory}: {_in_short(error)}") from error

    @classmethod
    def open(cls, name: str | Path, *, revision: str | None = None, dtype: str = "float32") -> Writer:
        """Open a language model by name, id or path (`language_model_directory`).

        Args:
            name: the model.
            revision: branch, tag or commit of an id.
            dtype: floating-point type of the weights; policies train in float32.

        Raises:
            BackboneError: it is missing or damaged, or does not write.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        directory = language_model_directory(name, revision=revision)
        options: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        try:
            with quiet():
                model = AutoModelForCausalLM.from_pretrained(
                    directory, dtype=getattr(torch, dtype), use_safetensors=True, **options
                )
                tokenizer = AutoTokenizer.from_pretrained(directory, **options)
        except Exception as error:  # whatever foreign code comes upon in foreign files
            raise BackboneError(f"cannot load the model in {directory}: {in_brief(error)}") from error
        if torch.cuda.is_available():
            model.to("cuda")
        model.requires_grad_(False)
        return cls(model.eval(), tokenizer, directory)

    @cached_property
    def fingerprint(self) -> str:
        """A text that is equal exactly when model and tokenizer are."""
        return fingerprint_directory(self.directory)

    @property
    def chat(self) -> bool:
        """Whether it is asked by messages."""
        return self._has_chat

    @property
    def end(self) -> int | None:
        """The token that ends a response."""
        end = self.tokenizer.eos_token_id
        return None if end is None else int(end)

    @cached_property
    def _ends(self) -> frozenset[int]:
        """All tokens that end a response."""
        ends = getattr(self.model.generation_config, "eos_token_id", None)
        listed = ends if isinstance(ends, list | tuple) else [ends]
        return frozenset(int(end) for end in (*listed, self.end) if end is not None)

    @cached_property
    def _begins_thinking(self) -> bool:
        """Whether its chat template ends with the mark that opens the thinking, so that the model writes none."""
        try:
            return render(self.tokenizer, messages_of("?"), asks=True).rstrip().endswith(OPENING)
        except TextError:  # whatever this template wants besides, prompts may have it
            return False

    @cached_property
    def _marks(self) -> frozenset[int]:
        return marks_of(self.tokenizer) | self._ends

    def has_marks(self, prompt: str, response: str) -> bool:
        """Return whether a text holds what the tokenizer takes for a mark of the template, wherever it stands."""
        return any(has_marks(self.tokenizer, text, self._marks) for text in (*_written_in(prompt), response))

    @property
    def max_positions(self) -> int:
        """The most tokens it reads."""
        limits = (self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", 1024))
        return int(min(limit for limit in limits if limit))

    def prompt_ids(self, prompt: str, room: int) -> list[int]:
        """Return a prompt as tokens, up to where the response begins; one that is too long loses its beginning.

        Marks of the template that stand in the prompt are words (`copl.align.policies.words`).

        Raises:
            BackboneError: the chat template refuses it.
        """

        def join(texts: Sequence[str]) -> str:
            turns = [{"role": role, "content": text} for role, text in zip(texts[::2], texts[1::2], strict=True)]
            return render(self.tokenizer, turns, asks=True) if self._has_chat else plain_prompt(turns)

        try:
            ids = tokens_of(self.tokenizer, _written_in(prompt), join, self._marks, opened=not self._has_chat)
        except TextError as error:
            raise BackboneError(_in_short(error)) from error
        return ids[-room:]

    def pair(self, prompt: str, response: str, max_length: int) -> TokenPair:
        """Return a prompt with a response as tokens; a long response loses its end, a long prompt its beginning."""
        limit = min(max_length, self.max_positions)
        text = self._response_ids(response)[: max(1, limit - 1)]
        asked = self.prompt_ids(prompt, max(1, limit - len(text)))
        return TokenPair((*asked, *text), len(asked))

    def _response_ids(self, response: str) -> list[int]:
        before, ends = "" if self.chat else " ", [] if self.end is None else [self.end]
        return [*tokens_of(self.tokenizer, [response], lambda texts: before + texts[0], self._marks), *ends]

    def tell_cut(self, rows: Sequence[PreferenceRow], max_length: int, progress: Progress) -> None:
        """Say how many rows have more tokens, with one of their responses, than are trained on.

        Args:
            rows: the rows.
            max_length: tokens of prompt and response together that are.
            progress: is told.
        """
        limit = min(max_length, self.max_positions)
        num_cut = 0
        for row in rows:
            longest = max(len(self._response_ids(text)) for text in (row.chosen, row.rejected))
            num_cut += len(self.prompt_ids(row.prompt, sys.maxsize)) + longest > limit
        if num_cut:
            cut = f"{num_cut} of {len(rows)} rows are longer than {limit} tokens and are cut; max_length sets the limit"
            progress.log("policy", finding=cut)

    def likelihoods(self, pairs: Sequence[TokenPair]) -> Tensor:
        """Return the log-likelihood [B] of each response given its prompt, by the model as it is now."""
        device, width = self.model.device, max(len(pair.ids) for pair in pairs)
        ids = torch.zeros(len(pairs), width, dtype=torch.long)
        mask, own = torch.zeros_like(ids), torch.zeros(len(pairs), width, dtype=torch.bool)
        for row, pair in enumerate(pairs):
            ids[row, : len(pair.ids)] = torch.tensor(pair.ids)
            mask[row, : len(pair.ids)] = 1
            own[row, pair.start : len(pair.ids)] = True
        logits = self.model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, :-1].float()
        taken = logits.gather(2, ids[:, 1:].to(device).unsqueeze(2)).squeeze(2) - logits.logsumexp(2)
        likelihoods: Tensor = (taken * own[:, 1:].to(device)).sum(1)
        return likelihoods

    def room(self, max_tokens: int, max_prompt: int = LONGEST_PROMPT) -> int:
        """Return how many tokens a prompt may have where so many are to follow.

        Args:
            max_tokens: tokens that are to be written.
            max_prompt: the most that are read, however many the model could read.

        Raises:
            BackboneError: so many tokens leave no room for any prompt.
        """
        room = self.max_positions - max_tokens
        if room < 1:
            raise BackboneError(
                f"{self.directory.name} reads {self.max_positions} tokens, which leaves no room for a prompt beside"
                f" {max_tokens} tokens to write"
            )
        return min(room, max_prompt)

    def questions(
        self, prompts: Sequence[str], max_tokens: int, progress: Progress, max_prompt: int = LONGEST_PROMPT
    ) -> list[list[int]]:
        """Return prompts as tokens where so many are to follow; one too long loses its beginning, which is said.

        Args:
            prompts: the prompts.
            max_tokens: tokens that are to be written.
            progress: is told how many were too long.
            max_prompt: the most that are read of a prompt.

        Raises:
            BackboneError: the chat template refuses one, or so many tokens leave no room for any prompt.
        """
        room = self.room(max_tokens, max_prompt)
        asked = [self.prompt_ids(prompt, room + 1) for prompt in prompts]
        if num_cut := sum(len(question) > room for question in asked):
            which = "one prompt is" if num_cut == 1 else f"{num_cut} prompts are"
            limit = "; max_prompt sets the limit" if room == max_prompt != LONGEST_PROMPT else ""
            cut = f"{which} longer than {room} tokens, so the beginning was left out{limit}"
            progress.log("write candidates", finding=cut)
        return [question[-room:] for question in asked]

    def write(
        self, question: Sequence[int], streams: Sequence[np.random.Generator], how: SamplingOptions
    ) -> list[str | BackboneError]:
        """Return a response for each stream of random numbers, in its one spelling; an ellipsis where it is blank.

        What the model thought before it is put aside, and what was broken off is a `CutText`; where that was before
        the answer began, there is a fault in its place, for whoever needs this very response to raise.

        Args:
            question: the prompt, from `questions`.
            streams: one for each response; the same stream gives the same response.
            how: how tokens are drawn, and where a response is broken off.
        """
        rows = sample(self.model, question, streams, how, ends=self._ends)
        texts = [self.tokenizer.decode(row, skip_special_tokens=True) for row in rows]
        cut = [len(row) == how.max_tokens for row in rows]
        if not self.chat:  # a model that was taught no end goes on with the next question
            ends = [text.partition("\n\nHuman:") for text in texts]
            texts = [text for text, _, _ in ends]
            cut = [was_cut and not mark for was_cut, (_, mark, _) in zip(cut, ends, strict=True)]
        elif self._begins_thinking:
            texts = [OPENING + text for text in texts]
        return [self._answer(text, was_cut, how) for text, was_cut in zip(texts, cut, strict=True)]

    def _answer(self, text: str, was_cut: bool, how: SamplingOptions) -> str | BackboneError:
        answer = canonical_text(answer_in(text))
        if was_cut and not answer and text.strip():
            return BackboneError(
                f"{self.directory.name} was still thinking after {how.max_tokens} tokens; let it write more, or take a"
                " model that answers at once"
            )
        return CutText(answer or _NO_WORDS) if was_cut else answer or _NO_WORDS


def _written_in(prompt: str) -> list[str]:
    """Role and content of each turn of a prompt, one after the other."""
    return [part for turn in messages_of(prompt) for part in (turn["role"], turn["content"])]


def _in_short(error: TextError) -> str:
    """What is wrong with a chat template, without advice for backbones of a reward model."""
    return str(error).partition("; use ")[0]


@contextmanager
def own_randomness(seed: int) -> Iterator[None]:
    """Seed the global generators that trainers and PEFT draw from, and put them back afterwards."""
    import random

    import numpy as np

    states = random.getstate(), np.random.get_state()  # noqa: NPY002 - trainers draw from it
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=devices):
        random.seed(seed)
        np.random.seed(seed % 2**32)  # noqa: NPY002
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(states[0])
            np.random.set_state(states[1])  # noqa: NPY002


@contextmanager
def quiet_packages() -> Iterator[None]:
    """Keep the bars and the advice of other packages to themselves."""
    bars: Any = getattr(sys.modules.get("datasets"), "utils", None)  # imported already, if it is used at all
    shown = bool(bars and bars.is_progress_bar_enabled())
    if shown:
        bars.disable_progress_bars()
    try:
        with quiet(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        if shown:
            bars.enable_progress_bars()
