"""A causal language model that policies stand on: prompts and responses as tokens, likelihoods, sampling."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import torch
from attrs import frozen
from torch import Tensor

from copl.align.policies.rows import plain_prompt
from copl.data.chat import decode_prompt
from copl.errors import BackboneError, in_brief
from copl.reward.backbones.checkpoints import fingerprint_directory, quiet
from copl.reward.backbones.language_models import language_model_directory
from copl.reward.backbones.standalone import TextError, chat_template


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
        self._has_chat = chat_template(tokenizer) is not None

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

    def fingerprint(self) -> str:
        """Return a text that is equal exactly when model and tokenizer are."""
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

    @property
    def max_positions(self) -> int:
        """The most tokens it reads."""
        limits = (self.tokenizer.model_max_length, getattr(self.model.config, "max_position_embeddings", 1024))
        return int(min(limit for limit in limits if limit))

    def prompt_ids(self, prompt: str, room: int) -> list[int]:
        """Return a prompt as tokens, up to where the response begins; one that is too long loses its beginning.

        Raises:
            BackboneError: the chat template refuses it.
        """
        if not self._has_chat:
            ids = self.tokenizer(plain_prompt(prompt))["input_ids"]
            if ids and ids[-1] == self.end:  # some tokenizers end whatever they read
                ids = ids[:-1]
        else:
            asked = decode_prompt(prompt)
            messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
            try:
                ids = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
            except (TextError, Exception) as error:  # whatever a template comes upon
                raise BackboneError(f"the chat template refuses a prompt: {str(error)[:200]}") from error
        return [int(token) for token in ids][-room:]

    def pair(self, prompt: str, response: str, max_length: int) -> TokenPair:
        """Return a prompt with a response as tokens; a long response loses its end, a long prompt its beginning."""
        limit = min(max_length, self.max_positions)
        ends = [] if self.end is None else [self.end]
        text = [*self.tokenizer(response, add_special_tokens=False)["input_ids"], *ends][: max(1, limit - 1)]
        asked = self.prompt_ids(prompt, max(1, limit - len(text)))
        return TokenPair((*asked, *map(int, text)), len(asked))

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

    @torch.no_grad()
    def write(self, prompt: str, *, seed: int, max_new_tokens: int, temperature: float) -> str:
        """Return a response; the same seed gives the same, whatever else is written.

        Args:
            prompt: in the form of `copl.data.chat`.
            seed: of the draws.
            max_new_tokens: where it is broken off.
            temperature: of sampling; 0 takes the likeliest token.
        """
        ids = self.prompt_ids(prompt, max(1, self.max_positions - max_new_tokens))
        draws = torch.Generator().manual_seed(seed)
        given, cache, written = torch.tensor([ids], device=self.model.device), None, []
        for _ in range(max_new_tokens):
            out = self.model(input_ids=given, past_key_values=cache, use_cache=True)
            cache, logits = out.past_key_values, out.logits[0, -1].float().cpu()
            if temperature > 0:
                token = int(torch.multinomial(torch.softmax(logits / temperature, 0), 1, generator=draws))
            else:
                token = int(logits.argmax())
            if token == self.end:
                break
            written.append(token)
            given = torch.tensor([[token]], device=self.model.device)
        return str(self.tokenizer.decode(written, skip_special_tokens=True)).strip()


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
    """Keep the advice of other packages to themselves."""
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
