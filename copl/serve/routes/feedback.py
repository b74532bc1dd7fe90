"""What users say of completions."""

from __future__ import annotations

from typing import Literal, final

from fastapi import APIRouter
from pydantic import BaseModel, Field, model_validator

from copl.data.events.evidence import Event
from copl.data.events.log import Entry
from copl.serve.faults import REFUSALS, ApiError
from copl.serve.fields import Strict, Text, UserField, check_texts
from copl.serve.links import link, links
from copl.serve.service import IdempotencyKey, NamedUser, PrincipalOf, ServiceOf

router = APIRouter(prefix="/v1", tags=["feedback"], responses=REFUSALS)


@final
class FeedbackRequest(Strict):
    """One of `chosen`, `rating`, `edit` and `withdraw`; a later one of the same kind takes the place of an earlier."""

    completion_id: str = Field(description="Id of a chat completion.", min_length=1, max_length=100)
    chosen: int | None = Field(
        default=None,
        ge=0,
        strict=True,
        description="The best candidate, by its place: it is preferred to every other one.",
    )
    rating: float | None = Field(
        default=None,
        ge=-1,
        le=1,
        allow_inf_nan=False,
        strict=True,
        description="A thumb for the answer shown: 1 up, -1 down.",
    )
    edit: Text | None = Field(default=None, description="A better answer: it is preferred to the one shown.")
    withdraw: Literal[True] | None = Field(default=None, description="Take back all that was said of it.")
    user: UserField = None
    safety_identifier: UserField = None
    idempotency_key: str | None = Field(default=None, description="As the header `Idempotency-Key`.")

    @model_validator(mode="after")
    def _one(self) -> FeedbackRequest:
        given = [one for one in (self.chosen, self.rating, self.edit, self.withdraw) if one is not None]
        if len(given) != 1:
            raise ValueError("expected exactly one of chosen, rating, edit and withdraw")
        return self


@final
class FeedbackAnswer(BaseModel):
    """What was stored; the user's scores follow at once."""

    event: int = Field(description="Id of the event, to withdraw it by.")
    user: str
    completion_id: str
    kind: str
    new: bool = Field(description="False where the same request was stored before.")


@router.post(
    "/feedback",
    summary="Say what a completion is worth",
    responses=links(
        withdraw=link("withdraw", "Take it back.", user="$response.body#/user", event="$response.body#/event")
    ),
)
async def feedback(
    service: ServiceOf,
    principal: PrincipalOf,
    named: NamedUser,
    body: FeedbackRequest,
    idempotency_key: IdempotencyKey = None,
) -> FeedbackAnswer:
    user = principal.user_of(named, body.safety_identifier, body.user)
    completion = await service.completion(principal, user, body.completion_id)
    if body.edit is not None:
        check_texts([body.edit], [], max_text=service.options.max_text, max_texts=1)
    entry = _entry(body, completion)
    appended = await service.append(completion.user, idempotency_key or body.idempotency_key, [entry])
    return FeedbackAnswer(
        event=appended.events[0].id,
        user=completion.user,
        completion_id=body.completion_id,
        kind=entry.kind,
        new=appended.is_new,
    )


def _entry(body: FeedbackRequest, completion: Event) -> Entry:
    said: dict[str, object]
    candidates = completion.body["candidates"]
    if body.chosen is not None:
        if body.chosen >= len(candidates):
            raise ApiError(422, f"chosen: the completion has {len(candidates)} candidates, the first is 0")
        kind, said = "choice", {"chosen": body.chosen}
    elif body.rating is not None:
        kind, said = "thumb", {"thumb": body.rating}
    elif body.edit is not None:
        kind, said = "edit", {"edit": body.edit}
    else:
        kind, said = "withdrawal", {}
    return Entry(kind, completion.subject, said)
