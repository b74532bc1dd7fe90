"""Who writes candidates: a language model upstream, by the official client, or a generator in this process."""

from __future__ import annotations

import asyncio
import math
import os
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, final

from attrs import frozen

from copl.align.choosing import candidates_of
from copl.data.chat import messages_of
from copl.data.reading.exports import text_of
from copl.data.thinking import answer_in
from copl.errors import CoplError, OptionsError, one_line, suggest
from copl.interfaces import CutText
from copl.serve.faults import ApiError
from copl.system.progress import SilentProgress

if TYPE_CHECKING:
    from copl.interfaces import Generator

KEY_VARIABLE = "COPL_UPSTREAM_KEY"
"""Environment variable with the upstream's key; a command line is seen by everybody on the machine."""

PASSED_ON = (
    "temperature", "top_p", "max_tokens", "max_completion_tokens", "stop", "presence_penalty", "frequency_penalty",
    "response_format",
)  # fmt: skip
"""Settings of a request that the upstream gets as they are; the seed comes beside them."""

_ALONG = 8
_SHORT: Mapping[str, Mapping[str, object]] = {"local": {"max_tokens": 64}}
"""Options of generators here: somebody waits, and a processor writes some ten tokens a second of each candidate."""

_ALWAYS = 8
_PATIENCE = 30.0
"""Seconds that a request may have to wait for the writer; `_ALWAYS` requests may wait in any case."""


@final
@frozen
class Written:
    """Answers that were written.

    Attributes:
        texts: the answers, at least one, none of them empty.
        model: who wrote them.
        prompt_tokens: tokens of the prompt, as far as known.
        completion_tokens: tokens of all answers, as far as known.
        cut: those of the answers that were at their limit of tokens before their end, as far as known.
    """

    texts: tuple[str, ...]
    model: str
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cut: frozenset[str] = frozenset()


class Writer(Protocol):
    """Writes answers."""

    async def models(self) -> Sequence[str]:
        """Return the names of the models there are.

        Raises:
            ApiError: 502, there is no answer.
        """
        ...

    async def write(self, prompt: str, num: int, settings: Mapping[str, Any]) -> Written:
        """Write answers.

        Args:
            prompt: in the form of `copl.data.chat`.
            num: how many.
            settings: ``model``, ``seed`` and those of `PASSED_ON`, as far as the request has them.

        Raises:
            ApiError: the request is one that the writer refuses, or the writer fails.
        """
        ...

    async def close(self) -> None:
        """Give back what it holds."""
        ...


@final
class Upstream:
    """An OpenAI-compatible server.

    Args:
        url: its address, with the path before ``/chat/completions``, such as ``http://127.0.0.1:8000/v1``.
        model: model there, whatever model a client names.
    """

    def __init__(self, url: str, model: str | None) -> None:
        try:
            from openai import AsyncOpenAI
        except ImportError as error:
            raise OptionsError("--upstream needs the client of OpenAI: pip install 'copl[serve]'") from error
        if not url.startswith(("http://", "https://")):
            raise OptionsError(f"--upstream {url}: expected an address such as http://127.0.0.1:8000/v1")
        key = os.environ.get(KEY_VARIABLE) or "none"
        try:
            self._client = AsyncOpenAI(base_url=url, api_key=key, max_retries=1, timeout=120.0)
        except Exception as error:  # whatever the client's own client makes of an address
            raise OptionsError(f"--upstream {url}: {one_line(str(error))}") from error
        self._model = model

    async def models(self) -> Sequence[str]:
        if self._model is not None:
            return [self._model]
        try:
            return [model.id async for model in self._client.models.list()]
        except Exception as error:  # whatever it is, the upstream has failed
            raise _failed(error) from error

    async def write(self, prompt: str, num: int, settings: Mapping[str, Any]) -> Written:
        messages: Any = messages_of(prompt)
        asked = {name: settings[name] for name in (*PASSED_ON, "seed") if settings.get(name) is not None}
        model = self._model or settings.get("model") or ""
        create = partial(self._client.chat.completions.create, model=model, messages=messages)
        try:
            answers = [_answer(await create(n=num, **asked), model)]
            missing = num - answers[0].num_choices
            for start in range(0, missing, _ALONG):  # many servers write one, whatever is asked for
                seeds = [
                    {"seed": asked["seed"] + place + 1} if "seed" in asked else {}  # with the same it is the same text
                    for place in range(start, min(missing, start + _ALONG))
                ]
                more = await asyncio.gather(*(create(**asked | seed) for seed in seeds), return_exceptions=True)
                failed = [one for one in more if isinstance(one, BaseException)]
                if failed and not any(answer.texts for answer in answers):
                    raise failed[0]
                answers += [_answer(one, model) for one in more if not isinstance(one, BaseException)]
                if failed:  # what there is, is enough to choose from
                    break
        except Exception as error:  # whatever it is, the upstream has failed
            raise _failed(error) from error
        texts = [text for answer in answers for text in answer.texts]
        if not texts:
            why = ": it was at its limit before it came to an answer; allow it more max_tokens"
            ended_early = any(answer.ended_early for answer in answers)
            raise ApiError(502, f"the language model upstream gave no text{why if ended_early else ''}")
        completion_tokens = sum(answer.completion_tokens for answer in answers)
        cut = frozenset[str]().union(*(answer.cut for answer in answers))
        return Written(tuple(texts[:num]), answers[0].model, answers[0].prompt_tokens, completion_tokens, cut)

    async def close(self) -> None:
        await self._client.close()


@final
@frozen
class _Answer:
    """One answer of an upstream, whatever it leaves out."""

    num_choices: int
    texts: tuple[str, ...]
    model: str
    prompt_tokens: int
    completion_tokens: int
    cut: frozenset[str]
    ended_early: bool


def _answer(value: Any, model: str) -> _Answer:
    choices = value.choices or ()
    contents = [choice.message.content for choice in choices]
    contents = [answer_in(text if isinstance(text, str) else text_of(text)) for text in contents]
    cut = frozenset(text for text, one in zip(contents, choices, strict=True) if text and one.finish_reason == "length")
    texts = tuple(text for text in contents if text.strip())
    asked, answered = (getattr(value.usage, f"{name}_tokens", None) or 0 for name in ("prompt", "completion"))
    ended_early = any(choice.finish_reason == "length" for choice in choices) and not texts
    return _Answer(len(contents), texts, value.model or model, asked, answered, cut, ended_early)


def _failed(error: Exception) -> ApiError:
    import openai

    if isinstance(error, openai.APIStatusError):
        words = one_line(str(error.message))[:300]
        if error.status_code == 404:
            return ApiError(400, f"the upstream has no such model, or --upstream is not its /v1: {words}")
        if error.status_code in (400, 413, 422):
            return ApiError(400, f"the language model upstream refuses this: {words}")
        if error.status_code in (429, 503):
            seconds = error.response.headers.get("retry-after", "1")
            return ApiError(
                503, "the language model upstream is busy", {"Retry-After": seconds if seconds.isdecimal() else "1"}
            )
        return ApiError(502, f"the language model upstream answers with status {error.status_code}")
    if isinstance(error, openai.APITimeoutError):
        return ApiError(502, "the language model upstream gave no answer in time")
    if isinstance(error, openai.APIConnectionError):
        return ApiError(502, f"the language model upstream cannot be reached: {one_line(type(error).__name__)}")
    return ApiError(502, "the language model upstream gave something that is no chat completion; check --upstream")


@final
class WritersLine:
    """Who waits for one writer: as many as are expected to be written to in time, by what others took lately."""

    def __init__(self) -> None:
        self._num, self._seconds = 0, 1.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Wait in the line.

        Raises:
            ApiError: 503, too many wait.
        """
        expected = self._num * self._seconds
        if self._num >= _ALWAYS and expected > _PATIENCE:
            after = {"Retry-After": str(min(60, math.ceil(expected)))}
            raise ApiError(503, f"{self._num} requests wait for the writer already", after)
        self._num += 1
        try:
            yield
        finally:
            self._num -= 1

    def took(self, seconds: float) -> None:
        """Take down how long the writer took for one request."""
        self._seconds = 0.7 * self._seconds + 0.3 * seconds


@final
class Embedded:
    """Generators of `copl.align` in this process, on a thread of their own; the first that can answer a prompt does.

    Args:
        names: names of the components, such as ``local``.

    Raises:
        OptionsError: there is no such generator, or it cannot be made without options.
    """

    def __init__(self, names: Sequence[str]) -> None:
        from copl.plugins import load

        registry = load().registry("generator")
        known = [one.component.name for one in registry]
        faults = [
            f"--generator {name}: there is none{suggest(name, known)}; there are {', '.join(known)}, and none"
            for name in names
            if name not in known
        ]
        if faults:
            raise OptionsError(faults)
        self.names = tuple(names)
        self._generators: list[Generator] = [registry.create(name, _SHORT.get(name, {})) for name in names]
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="copl-writer")
        self._line = WritersLine()

    async def models(self) -> Sequence[str]:
        return list(self.names)

    async def write(self, prompt: str, num: int, settings: Mapping[str, Any]) -> Written:
        if (settings.get("response_format") or {}).get("type", "text") != "text":
            raise ApiError(400, "response_format: what writes here writes text; start with --upstream for more")
        seed = settings.get("seed")
        number = secrets.randbelow(1 << 31) if seed is None else int(seed) % (1 << 31)
        with self._line.waiting():
            try:
                return await asyncio.get_running_loop().run_in_executor(self._thread, self._write, prompt, num, number)
            except CoplError as error:
                raise ApiError(400, "; ".join(error.faults)) from None

    def _write(self, prompt: str, num: int, seed: int) -> Written:
        started = time.monotonic()
        try:
            return self._written(prompt, num, seed)
        finally:
            self._line.took(time.monotonic() - started)

    def _written(self, prompt: str, num: int, seed: int) -> Written:
        faults: list[str] = []
        for name, generator in zip(self.names, self._generators, strict=True):
            try:
                (texts,) = candidates_of(generator, [prompt], num=num, seed=seed, progress=SilentProgress())
            except CoplError as error:
                faults += error.faults
                continue
            cut = frozenset(text for text in texts if isinstance(text, CutText))
            return Written(texts, name, len(prompt.split()), sum(len(text.split()) for text in texts), cut)
        raise CoplError(faults)

    async def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def embedded_defaults() -> tuple[str, ...]:
    """Return the generators that need no options, in the order in which they are asked.

    The grammar of the embedded corpus answers its own prompts at once; a language model answers any other.
    """
    from copl.plugins import load

    known = {one.component.name for one in load().registry("generator")}
    return tuple(name for name in ("facets", "local") if name in known)
