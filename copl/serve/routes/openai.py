"""OpenAI's dialect: chat completions that are chosen for the user, and models."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Literal, final

from attrs import evolve, frozen
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from copl.data.canonical import canonical_text, text_fault
from copl.data.events.log import Entry
from copl.serve.faults import REFUSALS, ApiError
from copl.serve.fields import UserField, check_texts, prompt_of
from copl.serve.identity import Principal
from copl.serve.links import link
from copl.serve.service import NamedUser, PrincipalOf, Service, ServiceOf
from copl.serve.writers import PASSED_ON, Written

router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=REFUSALS)

MAX_CANDIDATES = 64
_FEEDBACK = link(
    "feedback", "Say that the first candidate is the best.", body={"completion_id": "$response.body#/id", "chosen": 0}
)


@final
class TextPart(BaseModel):
    """A part of a message."""

    type: str
    text: str | None = None


@final
class ChatMessage(BaseModel):
    """A message; text alone is understood."""

    role: str = Field(min_length=1, max_length=64)
    content: str | list[TextPart] | None = None


@final
class StreamOptions(BaseModel):
    """How a stream ends."""

    include_usage: bool | None = None


@final
class ChatRequest(BaseModel):
    """A request for chat completions; fields that are not named here are not regarded."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(default="", max_length=500, description="Passed on to the language model upstream.")
    messages: list[ChatMessage] = Field(min_length=1)
    n: int | None = Field(
        default=None, ge=1, le=MAX_CANDIDATES, description="Choices that come back, the best for the user first."
    )
    candidates: int | None = Field(
        default=None, ge=1, le=MAX_CANDIDATES, description="Answers to choose from; at least n."
    )
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    user: UserField = None
    safety_identifier: UserField = None
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    max_tokens: int | None = Field(default=None, ge=1, le=1 << 20)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1 << 20)
    stop: Annotated[str, Field(max_length=1000)] | Annotated[list[str], Field(max_length=16)] | None = None
    presence_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    frequency_penalty: float | None = Field(default=None, ge=-2, le=2, allow_inf_nan=False)
    seed: int | None = Field(default=None, ge=-(1 << 63), lt=1 << 63)
    response_format: dict[str, Any] | None = Field(default=None, description="Passed on to the upstream.")
    logprobs: bool | None = Field(default=None, description="Not offered.")
    tools: list[Any] | None = Field(default=None, description="Not offered: a completion here is text.")


@final
class AnswerMessage(BaseModel):
    """What was written."""

    role: Literal["assistant"] = "assistant"
    content: str


@final
class Choice(BaseModel):
    """One of the answers, the best for the user first."""

    index: int
    message: AnswerMessage
    finish_reason: Literal["stop", "length"] = Field(description="`length`: cut off at its limit of tokens.")


@final
class Usage(BaseModel):
    """Tokens, as the upstream counts them: those of all candidates."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


@final
class Chosen(BaseModel):
    """How the answer was chosen, beside OpenAI's fields."""

    user: str | None = Field(description="The user it was chosen for; null is the average user.")
    candidates: list[str] = Field(description="All candidates, the best first; feedback names one by its place here.")
    rewards: list[float] = Field(description="What each is worth to the user.")
    unpersonalised: int = Field(description="The candidate that is best for the average user.")
    known: bool = Field(description="Whether anything is known of the user.")
    run: str = Field(description="Fingerprint of the run that chose.")


@final
class ChatAnswer(BaseModel):
    """Chat completions."""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[Choice]
    usage: Usage
    copl: Chosen


@final
class ModelCard(BaseModel):
    """A model."""

    id: str
    object: Literal["model"] = "model"
    created: int = 0
    owned_by: str = "copl"


@final
class ModelsAnswer(BaseModel):
    """The models there are."""

    object: Literal["list"] = "list"
    data: list[ModelCard]


@final
@frozen
class Completion:
    """Candidates in the order of what they are worth to a user, kept under an id.

    Attributes:
        id: the completion's id.
        created: seconds since 1970.
        written: the candidates, the best first.
        chosen: how they were ordered.
    """

    id: str
    created: int
    written: Written
    chosen: Chosen

    def end_of(self, text: str) -> Literal["stop", "length"]:
        """Return why one of the candidates ends where it does."""
        return "length" if text in self.written.cut else "stop"


def prompt_of_messages(messages: Sequence[ChatMessage], *, of: str = "messages") -> str:
    """Return the prompt of a chat request, whose field `of` the messages are.

    Raises:
        ApiError: 400, a message is no text.
    """
    plain = []
    for place, message in enumerate(messages):
        content = message.content
        if isinstance(content, list):
            if any(part.type != "text" or part.text is None for part in content):
                raise ApiError(400, f"{of}.{place}: only parts of type text are understood")
            content = "\n".join(part.text or "" for part in content)
        if not content:
            raise ApiError(400, f"{of}.{place}: no text; tools, images and sound are not understood")
        plain.append({"role": message.role, "content": content})
    return prompt_of(plain)


async def complete(
    service: Service, user: str | None, prompt: str, num: int, settings: dict[str, Any], *, kind: str = "chatcmpl-"
) -> Completion:
    """Have candidates written, order them for the user, and keep all of it.

    Args:
        service: the service.
        user: whom to choose for; None is the average user.
        prompt: in the form of `copl.data.chat`.
        num: number of candidates.
        settings: as `copl.serve.writers.Writer.write` takes them.
        kind: what its id begins with.
    """
    options, began = service.options, time.time()
    check_texts([], [prompt], max_text=options.max_text, max_texts=options.max_texts)
    if service.writer is None:
        raise ApiError(400, "nobody writes answers here: start with --upstream URL")
    with service.metrics.stage("upstream"):
        written = _readable(await service.writer.write(prompt, num, settings))
    rewarded = await service.score(user, [prompt] * len(written.texts), written.texts, average=True)
    order = sorted(range(len(written.texts)), key=lambda place: -rewarded.rewards[place])
    average = [rewarded.average[place] for place in order]
    chosen = Chosen(
        user=user,
        candidates=[written.texts[place] for place in order],
        rewards=[rewarded.rewards[place] for place in order],
        unpersonalised=max(range(len(order)), key=average.__getitem__),
        known=rewarded.known,
        run=rewarded.run,
    )
    own_id, created = f"{kind}{secrets.token_hex(16)}", int(time.time())
    kept = {
        "prompt": prompt, "candidates": chosen.candidates, "shown": 0, "unpersonalised": chosen.unpersonalised,
        "rewards": chosen.rewards, "average": average, "model": written.model, "run": chosen.run,
    }  # fmt: skip
    if user is not None:  # what nobody could say anything of, and nobody could have forgotten, is not kept
        await service.append(user, None, [Entry("completion", own_id, kept)], began=began)
    differs = chosen.candidates[0] != chosen.candidates[chosen.unpersonalised]
    service.metrics.answers.labels(str(differs).lower()).inc()
    return Completion(own_id, created, written, chosen)


def _readable(written: Written) -> Written:
    """Return what was written in the one spelling of texts, without what cannot be kept.

    Raises:
        ApiError: 502, nothing is left.
    """
    texts, cut = (
        [canonical_text(text) for text in some if text_fault(text) is None] for some in (written.texts, written.cut)
    )
    if not texts:
        raise ApiError(502, "the language model wrote nothing that can be read")
    return evolve(written, texts=tuple(texts), cut=frozenset(cut))


def _user(principal: Principal, named: str | None, body: ChatRequest) -> str | None:
    return principal.user_of(named, body.safety_identifier, body.user)


@router.post(
    "/chat/completions",
    summary="Have answers written, and get the best for the user",
    response_model=ChatAnswer,
    responses={200: {"content": {"text/event-stream": {}}, "links": {"feedback": _FEEDBACK}}},
)
async def chat(service: ServiceOf, principal: PrincipalOf, named: NamedUser, body: ChatRequest) -> Any:
    user = _user(principal, named, body)
    if body.tools:
        raise ApiError(400, "tools: not offered; a completion here is text")
    if body.logprobs:
        raise ApiError(400, "logprobs: not offered; field copl of the answer has the reward of each candidate")
    prompt = prompt_of_messages(body.messages)
    num_choices = body.n or 1
    num = max(num_choices, body.candidates or service.options.candidates)
    settings = {name: getattr(body, name) for name in (*PASSED_ON, "model", "seed")}
    completion = await complete(service, user, prompt, num, settings)
    if body.stream:
        include_usage = bool(body.stream_options and body.stream_options.include_usage)
        return StreamingResponse(_stream(completion, num_choices, include_usage), media_type="text/event-stream")
    choices = [
        Choice(index=place, message=AnswerMessage(content=text), finish_reason=completion.end_of(text))
        for place, text in enumerate(completion.chosen.candidates[:num_choices])
    ]
    return ChatAnswer(
        id=completion.id,
        created=completion.created,
        model=completion.written.model,
        choices=choices,
        usage=_usage(completion.written),
        copl=completion.chosen,
    )


def _usage(written: Written) -> Usage:
    asked, answered = written.prompt_tokens, written.completion_tokens
    return Usage(prompt_tokens=asked, completion_tokens=answered, total_tokens=asked + answered)


async def _stream(completion: Completion, num_choices: int, include_usage: bool) -> AsyncIterator[str]:
    """Yield the chosen answers as server-sent events, word by word; they were chosen whole."""
    model = completion.written.model
    head = {"id": completion.id, "object": "chat.completion.chunk", "created": completion.created, "model": model}

    def event(place: int, delta: dict[str, Any], finish: str | None = None, **more: object) -> str:
        choice = {"index": place, "delta": delta, "finish_reason": finish}
        return _event({**head, "choices": [choice], **more})

    for place, text in enumerate(completion.chosen.candidates[:num_choices]):
        more: dict[str, Any] = {"copl": completion.chosen.model_dump()} if place == 0 else {}
        yield event(place, {"role": "assistant", "content": ""}, None, **more)
        for word in words(text):
            yield event(place, {"content": word})
        yield event(place, {}, completion.end_of(text))
    if include_usage:
        yield _event({**head, "choices": [], "usage": _usage(completion.written).model_dump()})
    yield "data: [DONE]\n\n"


def _event(value: dict[str, object]) -> str:
    return f"data: {json.dumps(value, ensure_ascii=False)}\n\n"


def words(text: str) -> list[str]:
    """Return a text in parts that end after a space, and make up the text.

    >>> words("one two  three")
    ['one ', 'two ', ' ', 'three']
    """
    parts = text.split(" ")
    return [part for part in [*(f"{part} " for part in parts[:-1]), parts[-1]] if part]


@router.get("/models", summary="The models there are")
async def models(service: ServiceOf, principal: PrincipalOf) -> ModelsAnswer:
    names = await service.writer.models() if service.writer is not None else []
    return ModelsAnswer(data=[ModelCard(id=name) for name in [*names, service.reward_name]])


@router.get("/models/{model:path}", summary="One model")
async def model(service: ServiceOf, principal: PrincipalOf, model: str) -> ModelCard:
    names = await service.writer.models() if service.writer is not None else []
    if model not in (*names, service.reward_name):
        raise ApiError(404, "there is no such model; GET /v1/models lists them")
    return ModelCard(id=model)
