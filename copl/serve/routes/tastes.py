"""What a user may see of what is believed of them: who they are here, examples, and the map of users."""

from __future__ import annotations

from typing import Annotated, final

from fastapi import APIRouter, Path
from pydantic import BaseModel, Field

from copl.serve.faults import REFUSALS
from copl.serve.fields import shown_prompt
from copl.serve.identity import user_id
from copl.serve.service import NamedUser, PrincipalOf, ServiceOf

router = APIRouter(prefix="/v1", tags=["users"], responses=REFUSALS)

_NUM_PAIRS = 60
_NUM_EXAMPLES = 5


@final
class MeAnswer(BaseModel):
    """Who asks."""

    scope: str = Field(description="`user`, `service` or `admin`.")
    user: str | None = Field(description="The user the token speaks for, with scope `user`.")
    open: bool = Field(description="Whether the service has no tokens and is open to its own machine.")
    writes: bool = Field(description="Whether there is somebody who writes answers.")


@final
class Example(BaseModel):
    """Two responses between which the user chooses otherwise than the average user, or more decidedly."""

    prompt: str | list[dict[str, str]]
    liked: str
    disliked: str
    difference: float = Field(description="By how much the margin differs from that of the average user.")


@final
class ExamplesAnswer(BaseModel):
    """What the user is believed to like, more than others do."""

    user: str
    examples: list[Example]


@final
class MapAnswer(BaseModel):
    """Trained users as points, and the user among them; between -1 and 1."""

    user: str
    points: list[tuple[float, float]]
    groups: list[str | None]
    place: tuple[float, float] | None = Field(description="Where the user lies; null where there is no map.")
    confidence: float


@router.get("/me", summary="Who asks")
async def me(service: ServiceOf, principal: PrincipalOf, named: NamedUser) -> MeAnswer:
    return MeAnswer(
        scope=principal.scope,
        user=principal.user_of(named),
        open=principal.token == 0,
        writes=service.writer is not None,
    )


UserPath = Annotated[str, Path(description="The user's id.", min_length=1, examples=["ann"])]


@router.get("/users/{user:segment}/examples", summary="What the user is believed to like, in examples")
async def examples(service: ServiceOf, principal: PrincipalOf, user: UserPath) -> ExamplesAnswer:
    name = user_id(user)
    principal.speaks_for(name)
    pairs = list(service.model.pool)[:_NUM_PAIRS]
    if not pairs:
        return ExamplesAnswer(user=name, examples=[])
    prompts = [str(prompt) for prompt, *_ in pairs for _ in range(2)]
    texts = [text for _, *two in pairs for text in two]
    answer = await service.score(name, prompts, texts, average=True)
    shown = []
    for place, (prompt, first, second) in enumerate(pairs):
        one, other = 2 * place, 2 * place + 1
        margin = answer.rewards[one] - answer.rewards[other]
        difference = margin - (answer.average[one] - answer.average[other])
        liked, disliked = (first, second) if difference > 0 else (second, first)
        if abs(difference) > 1e-6:
            shown.append(
                Example(prompt=shown_prompt(str(prompt)), liked=liked, disliked=disliked, difference=abs(difference))
            )
    shown.sort(key=lambda example: -example.difference)
    return ExamplesAnswer(user=name, examples=shown[:_NUM_EXAMPLES])


@router.get("/users/{user:segment}/map", summary="Where the user lies among the trained users")
async def show_map(service: ServiceOf, principal: PrincipalOf, user: UserPath) -> MapAnswer:
    name = user_id(user)
    principal.speaks_for(name)
    history = await service.history(name)
    drawn, state = await service.with_model(lambda served: (served.map, served.state(history)))  # both of one run
    if drawn is None or state.followed is None:
        return MapAnswer(user=name, points=[], groups=[], place=None, confidence=state.confidence)
    shows_groups = principal.scope == "admin"
    return MapAnswer(
        user=name,
        points=[(float(x), float(y)) for x, y in drawn.points.tolist()],
        groups=list(drawn.groups) if shows_groups else [None] * len(drawn.points),
        place=drawn.place(state.followed.adapted if state.adapted is None else state.adapted),
        confidence=state.confidence,
    )
