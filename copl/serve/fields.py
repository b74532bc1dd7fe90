"""Fields that several dialects share, checked and in the one spelling of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictInt, StrictStr

from copl.data.canonical import ValueFaultError
from copl.data.chat import decode_prompt
from copl.data.reading import values
from copl.serve.faults import ApiError


def _text(value: str) -> str:
    try:
        return str(values.response(value))
    except ValueFaultError as fault:
        raise ValueError(str(fault)) from None


class Strict(BaseModel):
    """A body whose unknown fields are faults."""

    model_config = ConfigDict(extra="forbid")


class Message(BaseModel):
    """A chat message."""

    role: str = Field(description="`system`, `user`, `assistant`, …", min_length=1, max_length=64)
    content: str = Field(description="Its text.", min_length=1)

    model_config = ConfigDict(extra="forbid")


Text: TypeAlias = Annotated[str, AfterValidator(_text), Field(min_length=1, examples=["Eight minutes."])]
"""A response."""

PromptField: TypeAlias = Annotated[
    str | list[Message],
    Field(description="What the responses answer: text or chat messages.", examples=["How do I boil an egg?"]),
]

UserField: TypeAlias = Annotated[
    StrictStr | StrictInt | None, Field(description="The user to speak for, where the token may.", examples=["ann"])
]


def prompt_of(value: str | Sequence[Message] | Sequence[Mapping[str, object]]) -> str:
    """Return a prompt as it stands in tables.

    Raises:
        ApiError: 422, it is no prompt.
    """
    given = value if isinstance(value, str) else [_plain(message) for message in value]
    try:
        return str(values.prompt(given))
    except ValueFaultError as fault:
        raise ApiError(422, f"prompt: {fault}") from None


def _plain(message: Message | Mapping[str, object]) -> dict[str, object]:
    if isinstance(message, Message):
        return {"role": message.role, "content": message.content}
    return {"role": message.get("role"), "content": message.get("content")}


def shown_prompt(prompt: str) -> str | list[dict[str, str]]:
    """Return a prompt as clients write it."""
    return decode_prompt(prompt)


def check_texts(texts: Sequence[str], prompts: Sequence[str], *, max_text: int, max_texts: int) -> None:
    """Refuse more or longer texts than the service takes.

    Raises:
        ApiError: 413.
    """
    if len(texts) > max_texts:
        raise ApiError(413, f"{len(texts)} texts; at most {max_texts} at once")
    longest = max((len(text) for text in (*texts, *prompts)), default=0)
    if longest > max_text:
        raise ApiError(413, f"a text of {longest} characters; at most {max_text}")


def listed(value: object) -> object:
    """Return one value as a list of one."""
    return [value] if isinstance(value, str | dict) else value


OneOrMany: TypeAlias = Annotated[list[object], BeforeValidator(listed)]
