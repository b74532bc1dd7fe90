"""Generator ``openai``: any service that speaks the chat completions of OpenAI, by the official client."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, final

import attrs
from attrs.validators import and_, ge, gt, le

from copl.align.choosing import WithText
from copl.align.prompts import told_first
from copl.align.seeds import seed_of
from copl.data.canonical import canonical_text
from copl.data.chat import messages_of
from copl.data.reading.exports import text_of
from copl.data.thinking import answer_in
from copl.errors import BackboneError, quoted
from copl.interfaces import CutText
from copl.options import option
from copl.plugins import Component

if TYPE_CHECKING:
    from copl.interfaces import Progress

KEY = "OPENAI_API_KEY"
"""The environment variable that the key is read from, and nowhere else."""


@final
@attrs.frozen
class OpenAiOptions:
    """Options of the generator behind a service."""

    model: str = option(help="name of the model, as the service calls it")
    base_url: str | None = option(
        None, help="address of the service, such as http://localhost:8000/v1; none: OpenAI's, or $OPENAI_BASE_URL"
    )
    max_tokens: int = option(512, help="longest candidate, in tokens", validator=ge(1))
    temperature: float = option(1.0, help="below 1 likelier words, above 1 rarer ones", validator=ge(0.0))
    top_p: float = option(
        1.0, help="words are drawn from the likeliest that together have this share", validator=and_(gt(0.0), le(1.0))
    )
    concurrency: int = option(8, help="candidates asked for at the same time", validator=ge(1))
    retries: int = option(3, help="how often a request is repeated that met a busy or failing service", validator=ge(0))
    timeout: float = option(120.0, help="seconds after which a request is given up", validator=gt(0.0))
    system: str = option("", help="what the model is told before every prompt")


@final
class OpenAiGenerator:
    """Asks a service for each candidate by itself, with a seed of its own, which the service may or may not keep to.

    The key is that of the environment variable OPENAI_API_KEY; a service of one's own may need none.
    """

    def __init__(self, options: OpenAiOptions) -> None:
        self._options = options

    @property
    def follows_prompts(self) -> bool:
        return True

    def fingerprint(self) -> str:
        """Return a text for the service, its model and how tokens are drawn."""
        options = self._options
        asked = (options.model, options.max_tokens, options.temperature, options.top_p, options.system)
        return f"openai:{self._own_service or ''}:{asked}"

    def candidates(self, prompts: Sequence[str], *, num: int, seed: int, progress: Progress) -> list[tuple[str, ...]]:
        """Ask for the candidates.

        Raises:
            BackboneError: there is no client or key, or the service refuses or fails, or gives no text at all to a
                prompt.
        """
        client = self._client
        orders = [(prompt, seed_of(seed, prompt, place)) for prompt in prompts for place in range(num)]
        candidates = WithText()
        pool = ThreadPoolExecutor(self._options.concurrency)
        try:
            with progress.task("ask for candidates", total=len(orders)) as task:
                asked = [pool.submit(self._ask, client, prompt, own) for prompt, own in orders]
                for start in range(0, len(asked), num):
                    texts: list[str | BackboneError] = []
                    for answer in asked[start : start + num]:
                        texts.append(answer.result())
                        task.advance()
                    candidates.add(texts)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # nobody waits for what nobody wants any more
        candidates.tell(progress)
        return candidates.texts

    def _ask(self, client: Any, prompt: str, seed: int) -> str | BackboneError:
        """Return what the service says; where that is no text, what there is to say of it."""
        import openai

        options = self._options
        try:
            completion = client.chat.completions.create(
                model=options.model,
                messages=messages_of(told_first(prompt, options.system)),
                **self._settings,
                seed=seed % 2**31,
            )
            choice = completion.choices[0] if completion.choices else None
            content = choice.message.content if choice else None
        except openai.APIStatusError as error:
            raise self._fault(f"answers {error.status_code}: {_one_line(error.message)}") from error
        except openai.APITimeoutError as error:
            raise self._fault(f"gave no answer within {options.timeout:g} s") from error
        except openai.APIConnectionError as error:
            raise self._fault(f"cannot be reached ({_one_line(str(error.__cause__ or error))})") from error
        except (openai.OpenAIError, AttributeError, TypeError, ValueError) as error:
            raise self._fault(f"gave something that is no chat completion ({_one_line(str(error))})") from error
        answer = canonical_text(answer_in(text_of(content)))
        if not answer:
            return self._fault(f"gave no text to {quoted(prompt)}{self._why(choice)}")
        return CutText(answer) if getattr(choice, "finish_reason", None) == "length" else answer

    def _why(self, choice: object) -> str:
        """Return why a service gave no text, as far as it says so."""
        if refused := getattr(getattr(choice, "message", None), "refusal", None):
            return f": it refuses ({_one_line(str(refused))})"
        ended = getattr(choice, "finish_reason", None)
        if ended == "length":
            most = self._options.max_tokens
            return f": after {most} tokens it was still thinking; give it more by --set generator.max_tokens={4 * most}"
        return ": its filter held the text back" if ended == "content_filter" else ""

    @property
    def _settings(self) -> dict[str, float]:
        """The longest candidate and how tokens are drawn, by names that the service knows.

        Newer models of OpenAI refuse the former name of the one, and of the other even what they do unasked.
        """
        options = self._options
        drawn = {"temperature": options.temperature, "top_p": options.top_p}
        if self._own_service:  # whose own settings may be others
            return {"max_tokens": options.max_tokens, **drawn}
        changed = {name: value for name, value in drawn.items() if value != 1}
        return {"max_completion_tokens": options.max_tokens, **changed}

    @property
    def _own_service(self) -> str | None:
        return self._options.base_url or os.environ.get("OPENAI_BASE_URL")

    def _fault(self, what: str) -> BackboneError:
        return BackboneError(f"generator openai: the service at {self._client.base_url} {what}")

    @cached_property
    def _client(self) -> Any:
        try:
            import openai
        except ImportError:
            raise BackboneError("generator openai needs one more package: pip install 'copl[align]'") from None
        key = os.environ.get(KEY, "").strip()
        own = self._own_service
        if not key and not own:
            raise BackboneError(f"generator openai: set {KEY} to your key, or generator.base_url to your own service")
        try:
            return openai.OpenAI(
                api_key=key or "none",
                base_url=own,
                max_retries=self._options.retries,
                timeout=self._options.timeout,
            )
        except Exception as error:  # whatever the client's own client makes of an address
            raise BackboneError(f"generator openai: {own or 'the service'}: {_one_line(str(error))}") from error


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


COMPONENTS = [
    Component(
        name="openai",
        options=OpenAiOptions,
        build=OpenAiGenerator,
        summary="any service that speaks the chat completions of OpenAI",
    )
]
