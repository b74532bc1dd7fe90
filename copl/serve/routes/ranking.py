"""Rerankers' dialects: vLLM's score, and the rerank of Cohere, Jina and vLLM."""

from __future__ import annotations

import math
import secrets
import time
from typing import Any, Literal, final

from fastapi import APIRouter
from pydantic import AliasChoices, BaseModel, ConfigDict, Field

from copl.data.canonical import ValueFaultError
from copl.data.reading import values
from copl.serve.faults import REFUSALS, ApiError
from copl.serve.fields import OneOrMany, UserField, check_texts, prompt_of
from copl.serve.service import NamedUser, PrincipalOf, Service, ServiceOf

router = APIRouter(tags=["rerank and score"], responses=REFUSALS)


@final
class RankUsage(BaseModel):
    """What was read, in words: tokens are the business of the model."""

    prompt_tokens: int
    total_tokens: int


@final
class PairsRequest(BaseModel):
    """Prompts and responses: one prompt for all responses, or as many as there are responses."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(default="", max_length=500)
    text_1: OneOrMany = Field(validation_alias=AliasChoices("text_1", "queries", "data_1"), min_length=1)
    text_2: OneOrMany = Field(validation_alias=AliasChoices("text_2", "documents", "data_2"), min_length=1)
    use_activation: bool = Field(default=False, description="Give chances from 0 to 1 instead of rewards.")
    user: UserField = None


@final
class PairScore(BaseModel):
    """The reward of a response."""

    index: int
    object: Literal["score"] = "score"
    score: float


@final
class ScoresAnswer(BaseModel):
    """Rewards in the order of the responses."""

    id: str
    object: Literal["list"] = "list"
    created: int
    model: str
    data: list[PairScore]
    usage: RankUsage


@final
class Document(BaseModel):
    """A response as an object."""

    text: str


@final
class RerankRequest(BaseModel):
    """A prompt and the responses to put in order."""

    model_config = ConfigDict(extra="ignore")

    model: str = Field(default="", max_length=500)
    query: str = Field(min_length=1)
    documents: list[str | Document] = Field(min_length=1)
    top_n: int | None = Field(default=None, ge=1, description="How many to return; all unless given.")
    return_documents: bool = Field(default=True)
    use_activation: bool = Field(default=True, description="False gives rewards instead of chances from 0 to 1.")
    raw_scores: bool = Field(default=False, description="The same as use_activation false.")
    user: UserField = None


@final
class RankedText(BaseModel):
    """The response."""

    text: str


@final
class Ranked(BaseModel):
    """A response in its place."""

    index: int = Field(description="Its place in the request.")
    document: RankedText | None = None
    relevance_score: float


@final
class RerankAnswer(BaseModel):
    """The responses, the best for the user first."""

    id: str
    model: str
    results: list[Ranked]
    usage: RankUsage
    meta: dict[str, Any] = Field(default_factory=dict)


def _response(value: object, where: str) -> str:
    text = value.get("text", value.get("content")) if isinstance(value, dict) else value
    try:
        return str(values.response(text))
    except ValueFaultError as fault:
        raise ApiError(422, f"{where}: {fault}") from None


async def _rewards(service: Service, user: str | None, prompts: list[str], texts: list[str]) -> list[float]:
    options = service.options
    check_texts(texts, prompts, max_text=options.max_text, max_texts=options.max_texts)
    return list((await service.score(user, prompts, texts)).rewards)


def chance(reward: float) -> float:
    """Return the logistic function of a reward: the chance to be preferred to a response of reward 0.

    >>> chance(0.0), chance(-1000.0), chance(1000.0)
    (0.5, 0.0, 1.0)
    """
    if reward >= 0:
        return 1.0 / (1.0 + math.exp(-reward))
    return (e := math.exp(max(reward, -745.0))) / (1.0 + e) if reward > -745 else 0.0


def _usage(prompts: list[str], texts: list[str]) -> RankUsage:
    count = sum(len(text.split()) for text in (*set(prompts), *texts))
    return RankUsage(prompt_tokens=count, total_tokens=count)


@router.post("/v1/score", summary="Rewards of prompts with responses (vLLM)")
@router.post("/score", include_in_schema=False)
async def score_pairs(service: ServiceOf, principal: PrincipalOf, named: NamedUser, body: PairsRequest) -> ScoresAnswer:
    user = principal.user_of(named, body.user)
    if len(body.text_1) not in (1, len(body.text_2)):
        raise ApiError(
            400, f"{len(body.text_1)} prompts and {len(body.text_2)} responses; expected 1 prompt, or as many of both"
        )
    texts = [_response(one, f"text_2.{place}") for place, one in enumerate(body.text_2)]
    prompts = [prompt_of(_response(one, f"text_1.{place}")) for place, one in enumerate(body.text_1)]
    prompts = prompts * len(texts) if len(prompts) == 1 else prompts
    rewards = await _rewards(service, user, prompts, texts)
    given = [chance(one) for one in rewards] if body.use_activation else rewards
    return ScoresAnswer(
        id=f"score-{secrets.token_hex(16)}",
        created=int(time.time()),
        model=body.model or service.reward_name,
        data=[PairScore(index=place, score=one) for place, one in enumerate(given)],
        usage=_usage(prompts, texts),
    )


@router.post("/v1/rerank", summary="Responses in the user's order (Cohere, Jina, vLLM)")
@router.post("/v2/rerank", include_in_schema=False)
@router.post("/rerank", include_in_schema=False)
async def rerank(service: ServiceOf, principal: PrincipalOf, named: NamedUser, body: RerankRequest) -> RerankAnswer:
    user = principal.user_of(named, body.user)
    prompt = prompt_of(body.query)
    given = [one if isinstance(one, str) else one.text for one in body.documents]
    texts = [_response(one, f"documents.{place}") for place, one in enumerate(given)]
    rewards = await _rewards(service, user, [prompt] * len(texts), texts)
    raw = body.raw_scores or not body.use_activation
    order = sorted(range(len(texts)), key=lambda place: -rewards[place])
    return RerankAnswer(
        id=f"rerank-{secrets.token_hex(16)}",
        model=body.model or service.reward_name,
        results=[
            Ranked(
                index=place,
                document=RankedText(text=given[place]) if body.return_documents else None,
                relevance_score=rewards[place] if raw else chance(rewards[place]),
            )
            for place in order[: body.top_n]
        ],
        usage=_usage([prompt], texts),
        meta={"api_version": {"version": "2"}, "billed_units": {"search_units": 1}},
    )
