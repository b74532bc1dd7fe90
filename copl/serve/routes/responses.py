"""OpenAI's newer dialect: responses, the best for the user, whole or as a stream of events."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from itertools import count
from typing import Any, Literal, final

from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field

from copl.serve.faults import REFUSALS, ApiError
from copl.serve.fields import UserField
from copl.serve.links import link
from copl.serve.routes.openai import MAX_CANDIDATES, ChatMessage, Chosen, Completion, TextPart, complete, words
from copl.serve.routes.openai import prompt_of_messages as prompt_of
from copl.serve.service import NamedUser, PrincipalOf, ServiceOf

router = APIRouter(prefix="/v1", tags=["OpenAI"], responses=REFUSALS)

_FEEDBACK = link(
    "feedback", "Say that the first candidate is the best.", body={"completion_id": "$response.body#/id", "chosen": 0}
)


@final
class InputPart(BaseModel):
    """A part of a message."""

    type: str = Field(description="`input_text`, or `output_text` of an answer of before.")
    text: str | None = None


@final
class InputMessage(BaseModel):
    """A message of the conversation."""

    type: Literal["message"] = "message"
    role: str = Field(min_length=1, max_length=64)
    content: str | list[InputPart]


@final
class ResponsesRequest(BaseModel):
    """A request for a response; fields that are not named here are not regarded."""

    model_config = ConfigDict(extra="ignore")

    input: str | list[InputMessage] = Field(description="What to answer: text, or the conversation so far.")
    instructions: str | None = Field(default=None, description="Goes before it as a system message.")
    model: str = Field(default="", max_length=500, description="Passed on to the language model upstream.")
    candidates: int | None = Field(default=None, ge=1, le=MAX_CANDIDATES, description="Answers to choose from.")
    stream: bool | None = None
    user: UserField = None
    safety_identifier: UserField = None
    temperature: float | None = Field(default=None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(default=None, ge=0, le=1, allow_inf_nan=False)
    max_output_tokens: int | None = Field(default=None, ge=1, le=1 << 20)
    tools: list[Any] | None = Field(default=None, description="Not offered: a response here is text.")
    previous_response_id: str | None = Field(default=None, description="Not offered: `input` has the conversation.")
    conversation: Any = Field(default=None, description="Not offered: `input` has the conversation.")
    text: dict[str, Any] | None = Field(default=None, description="Of its formats only text is offered.")
    background: bool | None = Field(default=None, description="Not offered.")


@final
class OutputText(BaseModel):
    """The text of an answer."""

    type: Literal["output_text"] = "output_text"
    text: str
    annotations: list[Any] = Field(default_factory=list)


@final
class OutputMessage(BaseModel):
    """An answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    status: Literal["completed", "incomplete", "in_progress"] = "completed"
    content: list[OutputText]


@final
class ResponsesUsage(BaseModel):
    """Tokens, as the upstream counts them: those of all candidates."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: dict[str, int] = Field(default_factory=lambda: {"cached_tokens": 0})
    output_tokens_details: dict[str, int] = Field(default_factory=lambda: {"reasoning_tokens": 0})


@final
class ResponsesAnswer(BaseModel):
    """A response."""

    id: str = Field(description="What feedback names it by.")
    object: Literal["response"] = "response"
    created_at: int
    status: Literal["completed", "incomplete", "in_progress"] = "completed"
    incomplete_details: dict[str, str] | None = None
    model: str
    instructions: str | None = None
    output: list[OutputMessage]
    parallel_tool_calls: bool = False
    tool_choice: Literal["none"] = "none"
    tools: list[Any] = Field(default_factory=list)
    usage: ResponsesUsage | None = None
    copl: Chosen | None = None


def _messages(body: ResponsesRequest) -> list[ChatMessage]:
    given = [InputMessage(role="user", content=body.input)] if isinstance(body.input, str) else body.input
    if not given:
        raise ApiError(422, "input: expected text, or at least one message")
    before = [ChatMessage(role="system", content=body.instructions)] if body.instructions else []
    return [*before, *(ChatMessage(role=one.role, content=_content(one.content)) for one in given)]


def _content(content: str | list[InputPart]) -> str | list[TextPart]:
    if isinstance(content, str):
        return content
    kinds = ("input_text", "output_text", "text")
    return [TextPart(type="text" if part.type in kinds else part.type, text=part.text) for part in content]


def _refuse_what_is_not_offered(body: ResponsesRequest) -> None:
    if body.tools:
        raise ApiError(400, "tools: not offered; a response here is text")
    for name in ("previous_response_id", "conversation"):
        if getattr(body, name) is not None:
            raise ApiError(400, f"{name}: not offered; send the whole conversation as input")
    shape = (body.text or {}).get("format")
    if isinstance(shape, dict) and shape.get("type", "text") != "text":
        raise ApiError(400, "text.format: not offered; a response here is text")
    if body.background:
        raise ApiError(400, "background: not offered; the response comes with the answer")


@router.post(
    "/responses",
    summary="Have a response written, and get the best for the user",
    response_model=ResponsesAnswer,
    responses={200: {"content": {"text/event-stream": {}}, "links": {"feedback": _FEEDBACK}}},
)
async def responses(service: ServiceOf, principal: PrincipalOf, named: NamedUser, body: ResponsesRequest) -> Any:
    user = principal.user_of(named, body.safety_identifier, body.user)
    _refuse_what_is_not_offered(body)
    prompt = prompt_of(_messages(body), of="input")
    settings = {"model": body.model, "temperature": body.temperature, "top_p": body.top_p}
    settings["max_tokens"] = body.max_output_tokens
    num = body.candidates or service.options.candidates
    completion = await complete(service, user, prompt, num, settings, kind="resp_")
    if body.stream:
        return StreamingResponse(_stream(completion, body.instructions), media_type="text/event-stream")
    return _answer(completion, body.instructions)


def _answer(completion: Completion, instructions: str | None) -> ResponsesAnswer:
    asked, answered = completion.written.prompt_tokens, completion.written.completion_tokens
    text = completion.chosen.candidates[0]
    is_cut = completion.end_of(text) == "length"
    status: Literal["completed", "incomplete"] = "incomplete" if is_cut else "completed"
    return ResponsesAnswer(
        status=status,
        incomplete_details={"reason": "max_output_tokens"} if is_cut else None,
        id=completion.id,
        created_at=completion.created,
        model=completion.written.model,
        instructions=instructions,
        output=[OutputMessage(id=_message_id(completion), status=status, content=[OutputText(text=text)])],
        usage=ResponsesUsage(input_tokens=asked, output_tokens=answered, total_tokens=asked + answered),
        copl=completion.chosen,
    )


def _message_id(completion: Completion) -> str:
    return completion.id.replace("resp_", "msg_", 1)


async def _stream(completion: Completion, instructions: str | None) -> AsyncIterator[str]:
    """Yield the response as server-sent events, its text word by word; it was chosen whole."""
    whole, numbers = _answer(completion, instructions), count()
    nothing: dict[str, Any] = {"output": [], "usage": None, "copl": None, "incomplete_details": None}
    begun = whole.model_copy(update={"status": "in_progress", **nothing})
    (message,) = whole.output
    place: dict[str, Any] = {"item_id": message.id, "output_index": 0, "content_index": 0}
    part = message.content[0]

    def event(kind: str, **fields: Any) -> str:
        value = {"type": kind, "sequence_number": next(numbers), **fields}
        return f"event: {kind}\ndata: {json.dumps(value, ensure_ascii=False)}\n\n"

    yield event("response.created", response=begun.model_dump())
    yield event("response.in_progress", response=begun.model_dump())
    empty = message.model_copy(update={"status": "in_progress", "content": []})
    yield event("response.output_item.added", output_index=0, item=empty.model_dump())
    yield event("response.content_part.added", **place, part=OutputText(text="").model_dump())
    for word in words(part.text):
        yield event("response.output_text.delta", **place, delta=word, logprobs=[])
    yield event("response.output_text.done", **place, text=part.text, logprobs=[])
    yield event("response.content_part.done", **place, part=part.model_dump())
    yield event("response.output_item.done", output_index=0, item=message.model_dump())
    yield event(f"response.{whole.status}", response=whole.model_dump())
