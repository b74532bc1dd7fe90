"""Rewards for trainers of policies: OpenRLHF's remote reward, and batches with a column of users for TRL."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Sequence
from typing import Annotated, Any, final

from fastapi import APIRouter, Path
from pydantic import BaseModel, ConfigDict, Field, StrictInt, StrictStr

from copl.data.canonical import ValueFaultError
from copl.data.completions import read_completions, response_in
from copl.data.reading.faults import Faults
from copl.records import NOBODY
from copl.serve.faults import REFUSALS, ApiError
from copl.serve.fields import Strict, UserField, check_texts
from copl.serve.identity import user_id
from copl.serve.routes.ranking import chance
from copl.serve.service import NamedUser, PrincipalOf, Service, ServiceOf

router = APIRouter(prefix="/v1", tags=["trainers"], responses=REFUSALS)


@final
class RemoteRewardRequest(BaseModel):
    """Samples of OpenRLHF: prompts with what was written to them."""

    model_config = ConfigDict(extra="ignore")

    query: list[str] = Field(description="Prompt and response in one text each.", min_length=1)
    prompts: list[str] = Field(description="The prompt that each begins with.", min_length=1)
    labels: list[Any] | None = Field(
        default=None, description="The user of each, as an id or an object with `user_id`; null is the average user."
    )


@final
class RemoteRewardAnswer(BaseModel):
    """Rewards in the order of the samples."""

    rewards: list[float]
    scores: list[float] = Field(description="Each as a chance from 0 to 1, by which samples may be filtered.")
    extra_logs: dict[str, Any] = Field(default_factory=dict)


@final
class RewardsRequest(Strict):
    """Samples as TRL hands them to a reward function: columns of equal length."""

    prompts: list[str | list[dict[str, Any]]] = Field(min_length=1)
    completions: list[str | list[dict[str, Any]]] = Field(min_length=1)
    user_id: list[StrictStr | StrictInt | None] | None = Field(
        default=None, description="The user of each; null is unknown."
    )
    user: UserField = None


@final
class RewardsAnswer(BaseModel):
    """Rewards in the order of the samples; a completion without text has one, too."""

    rewards: list[float]
    unknown: list[str] = Field(
        description="Users of whom nothing is known, an empty one where none is named: these are the average user's."
    )
    run: str


@router.post("/openrlhf", summary="Remote reward (OpenRLHF); users by `labels`")
async def openrlhf(
    service: ServiceOf, principal: PrincipalOf, named: NamedUser, body: RemoteRewardRequest
) -> RemoteRewardAnswer:
    labels = body.labels or [None] * len(body.query)
    users = [principal.user_of(_label(label), named) for label in labels]
    return await _remote(service, body, users)


@router.post("/users/{user:segment}/openrlhf", summary="Remote reward (OpenRLHF) of one user")
async def openrlhf_of_user(
    service: ServiceOf,
    principal: PrincipalOf,
    user: Annotated[str, Path(min_length=1)],
    body: RemoteRewardRequest,
) -> RemoteRewardAnswer:
    name = user_id(user)
    principal.speaks_for(name)
    return await _remote(service, body, [name] * len(body.query))


def _label(label: object) -> str | int | None:
    """Return the user that a label names: an id, an object with one, or either as text."""
    if isinstance(label, str) and label.startswith("{"):
        try:
            label = json.loads(label)
        except (ValueError, RecursionError):
            return str(label)
    if isinstance(label, dict):
        label = label.get("user_id", label.get("user"))
    if label is None or (isinstance(label, str | int) and not isinstance(label, bool)):
        return label
    raise ApiError(422, "labels: expected the id of a user, an object with user_id, or null")


async def _remote(service: Service, body: RemoteRewardRequest, users: list[str | None]) -> RemoteRewardAnswer:
    if not len(body.query) == len(body.prompts) == len(users):
        raise ApiError(422, "query, prompts and labels: expected equally many")
    try:
        texts = [response_in(*pair) for pair in zip(body.query, body.prompts, strict=True)]
    except ValueFaultError as fault:
        raise ApiError(422, str(fault)) from None
    rewards = (await _of_users(service, users, body.prompts, texts)).rewards
    return RemoteRewardAnswer(rewards=rewards, scores=list(map(chance, rewards)))


@router.post("/rewards", summary="Rewards of a batch, each for its own user (TRL)")
async def rewards(service: ServiceOf, principal: PrincipalOf, named: NamedUser, body: RewardsRequest) -> RewardsAnswer:
    count = len(body.prompts)
    columns = body.user_id if body.user_id is not None else [None] * count
    if not count == len(body.completions) == len(columns):
        raise ApiError(422, "prompts, completions and user_id: expected equally many")
    users = [principal.user_of(one, named, body.user) for one in columns]
    return await _of_users(service, users, body.prompts, body.completions)


async def _of_users(
    service: Service, users: Sequence[str | None], prompts: Sequence[object], completions: Sequence[object]
) -> RewardsAnswer:
    """Return the reward of each sample for its user, all by one run."""
    faults = Faults("samples")
    pairs = read_completions(prompts, completions, faults)
    faults.raise_any()
    options = service.options
    check_texts(
        [text for _, text in pairs],
        [prompt for prompt, _ in pairs],
        max_text=options.max_text,
        max_texts=options.max_texts,
    )
    places: dict[str | None, list[int]] = defaultdict(list)
    for place, user in enumerate(users):
        places[user].append(place)
    answers = await service.score_each(
        [(user, [pairs[n][0] for n in own], [pairs[n][1] for n in own]) for user, own in places.items()]
    )
    rewards = {
        place: reward
        for own, answer in zip(places.values(), answers, strict=True)
        for place, reward in zip(own, answer.rewards, strict=True)
    }
    unknown = [user or NOBODY for user, answer in zip(places, answers, strict=True) if not answer.known]
    return RewardsAnswer(rewards=[rewards[place] for place in range(len(pairs))], unknown=unknown, run=answers[0].run)
