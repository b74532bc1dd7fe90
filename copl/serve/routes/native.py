"""The native dialect: users and what they say, score and ask."""

from __future__ import annotations

from typing import Annotated, Any, Literal, final

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from copl.data.events.evidence import Event, in_force, pair_subject, rating_subject, words
from copl.data.events.log import Entry
from copl.data.requests import Pair
from copl.errors import CoplError
from copl.serve.faults import REFUSALS, ApiError
from copl.serve.fields import PromptField, Strict, Text, check_texts, prompt_of, shown_prompt
from copl.serve.identity import Principal, user_id
from copl.serve.links import ANSWER, SCORE, WITHDRAW, link, links
from copl.serve.service import IdempotencyKey, PrincipalOf, Service, ServiceOf

router = APIRouter(prefix="/v1/users", tags=["users"], responses=REFUSALS)

UserPath = Annotated[str, Path(description="The user's id.", min_length=1, examples=["ann"])]


@final
class ScoreRequest(Strict):
    """Responses to one prompt."""

    prompt: PromptField
    responses: list[Text] = Field(description="The responses to score.", min_length=1)


@final
class ScoreAnswer(BaseModel):
    """Rewards; only differences between responses have a meaning."""

    user: str
    rewards: list[float] = Field(description="The reward of each response, in their order.")
    average: list[float] = Field(description="What each is worth to the average user.")
    best: int = Field(description="The response with the highest reward.")
    known: bool = Field(description="Whether the user is trained or has said something; else the average user's.")
    run: str = Field(description="Fingerprint of the run that scored.")


@final
class Comparison(Strict):
    """One response preferred to another."""

    prompt: PromptField
    chosen: Text
    rejected: Text
    tie: bool = Field(default=False, description="Neither is better, whatever was said of the pair before.")


@final
class ComparisonsRequest(Strict):
    """Comparisons of one user; a pair that was compared before is decided anew."""

    comparisons: list[Comparison] = Field(min_length=1)


@final
class Rating(Strict):
    """A number for a response, on the user's own scale; responses are compared by it."""

    prompt: PromptField
    response: Text
    rating: float = Field(allow_inf_nan=False, strict=True, description="The higher the better.")


@final
class RatingsRequest(Strict):
    """Ratings of one user; a response that was rated before is rated anew."""

    ratings: list[Rating] = Field(min_length=1)


@final
class SaidAnswer(BaseModel):
    """What was stored; the user's scores follow at once."""

    user: str
    events: list[int] = Field(description="Ids of the events, to withdraw them by.")
    new: bool = Field(description="False where the same request was stored before.")


@final
class Candidate(Strict):
    """A pair to ask about."""

    prompt: PromptField
    first: Text
    second: Text


@final
class QuestionRequest(Strict):
    """Pairs to choose a question from."""

    candidates: list[Candidate] = Field(min_length=1)


@final
class QuestionAnswer(BaseModel):
    """The pair whose answer tells most."""

    user: str
    index: int = Field(description="Its place among the candidates.")
    prompt: str | list[dict[str, str]]
    first: str
    second: str
    information: float = Field(description="What the answer is expected to tell, in bits, from 0 to 1.")
    confidence: float = Field(description="How sure the system is of the user, from 0 to 1.")


@final
class UserAnswer(BaseModel):
    """What is known of a user."""

    user: str
    known: bool = Field(description="Whether the user is trained or has said something.")
    how: str = Field(description="How the user's embedding was found.")
    confidence: float = Field(description="From 0, nothing known, to 1.")
    num_events: int
    num_comparisons: int = Field(description="Comparisons, ties, ratings and thumbs that follow from what is in force.")
    forgotten: bool = Field(description="Whether the user asked to be forgotten, and what training knew is not used.")
    run: str


@final
class EventAnswer(BaseModel):
    """Something that a user said or was shown."""

    id: int
    kind: str
    subject: str
    said: dict[str, Any]
    created: float = Field(description="Seconds since 1970.")
    in_force: bool


@final
class EventsAnswer(BaseModel):
    """Everything a user said or was shown, the last first."""

    user: str
    events: list[EventAnswer]


@final
class ForgottenAnswer(BaseModel):
    """A user was forgotten."""

    user: str
    status: Literal["forgotten"] = "forgotten"
    num_events: int = Field(description="Events that were removed.")


def _own(principal: Principal, user: str) -> str:
    named = user_id(user)
    principal.speaks_for(named)
    return named


def _limited(service: Service, texts: list[str], prompts: list[str]) -> None:
    options = service.options
    check_texts(texts, prompts, max_text=options.max_text, max_texts=options.max_texts)


@router.post("/{user:segment}/score", summary="Score responses for a user")
async def score(service: ServiceOf, principal: PrincipalOf, user: UserPath, body: ScoreRequest) -> ScoreAnswer:
    name, prompt = _own(principal, user), prompt_of(body.prompt)
    _limited(service, body.responses, [prompt])
    answer = await service.score(name, [prompt] * len(body.responses), body.responses, average=True)
    return ScoreAnswer(
        user=name,
        rewards=list(answer.rewards),
        average=list(answer.average),
        best=max(range(len(answer.rewards)), key=answer.rewards.__getitem__),
        known=answer.known,
        run=answer.run,
    )


@router.post(
    "/{user:segment}/comparisons",
    summary="Say which of two responses is better",
    responses=links(withdraw=WITHDRAW, score=SCORE),
)
async def compare(
    service: ServiceOf,
    principal: PrincipalOf,
    user: UserPath,
    body: ComparisonsRequest,
    idempotency_key: IdempotencyKey = None,
) -> SaidAnswer:
    name = _own(principal, user)
    entries = []
    for place, one in enumerate(body.comparisons):
        prompt = prompt_of(one.prompt)
        if one.chosen == one.rejected:
            raise ApiError(422, f"comparisons.{place}: chosen and rejected are the same text")
        said = {"prompt": prompt, "chosen": one.chosen, "rejected": one.rejected, **({"tie": True} if one.tie else {})}
        entries.append(Entry("comparison", pair_subject(prompt, one.chosen, one.rejected), said))
    texts = [text for one in body.comparisons for text in (one.chosen, one.rejected)]
    _limited(service, texts, [entry.body["prompt"] for entry in entries])
    return await _said(service, name, idempotency_key, entries)


@router.post("/{user:segment}/ratings", summary="Give responses a number each", responses=links(withdraw=WITHDRAW))
async def rate(
    service: ServiceOf,
    principal: PrincipalOf,
    user: UserPath,
    body: RatingsRequest,
    idempotency_key: IdempotencyKey = None,
) -> SaidAnswer:
    name = _own(principal, user)
    entries = []
    for one in body.ratings:
        prompt = prompt_of(one.prompt)
        said = {"prompt": prompt, "response": one.response, "rating": one.rating}
        entries.append(Entry("rating", rating_subject(prompt, one.response), said))
    _limited(service, [one.response for one in body.ratings], [entry.body["prompt"] for entry in entries])
    return await _said(service, name, idempotency_key, entries)


async def _said(service: Service, user: str, key: str | None, entries: list[Entry]) -> SaidAnswer:
    appended = await service.append(user, key, entries)
    return SaidAnswer(user=user, events=[event.id for event in appended.events], new=appended.is_new)


@router.post(
    "/{user:segment}/question", summary="Which of these pairs to ask the user about", responses=links(answer=ANSWER)
)
async def choose_question(
    service: ServiceOf, principal: PrincipalOf, user: UserPath, body: QuestionRequest
) -> QuestionAnswer:
    name = _own(principal, user)
    pairs: list[Pair] = [(prompt_of(one.prompt), one.first, one.second) for one in body.candidates]
    for place, (_, first, second) in enumerate(pairs):
        if first == second:
            raise ApiError(422, f"candidates.{place}: the same response twice")
    _limited(service, [text for _, *texts in pairs for text in texts], [pair[0] for pair in pairs])  # type: ignore[misc]  # encoded prompts are text
    return await _question(service, name, pairs)


@router.get(
    "/{user:segment}/question",
    summary="What to ask the user next, about answers written now or texts of the run",
    responses=links(answer=ANSWER),
)
async def next_question(
    service: ServiceOf,
    principal: PrincipalOf,
    user: UserPath,
    prompt: Annotated[
        str | None, Query(description="Have answers to this written and ask about two of them.", min_length=1)
    ] = None,
) -> QuestionAnswer:
    name = _own(principal, user)
    if prompt is not None:
        return await _question(service, name, await _written(service, prompt_of(prompt)))
    pool = list(service.model.pool)
    if not pool:
        raise ApiError(404, "there is nothing to ask about: the run's data set is gone; give candidates or a prompt")
    return await _question(service, name, pool)


async def _written(service: Service, prompt: str) -> list[Pair]:
    if service.writer is None:
        raise ApiError(400, "nobody writes answers here: start with --upstream, or give candidates")
    written = await service.writer.write(prompt, max(service.options.candidates, 2), {})
    texts = list(dict.fromkeys(written.texts))
    if len(texts) < 2:
        raise ApiError(502, "the language model wrote the same answer again and again; ask with another prompt")
    return [(prompt, first, second) for place, first in enumerate(texts) for second in texts[place + 1 :]]


async def _question(service: Service, user: str, pairs: list[Pair]) -> QuestionAnswer:
    history = await service.history(user)
    events = await service.store(service.log.of_user, user)
    answered = {event.subject for event in in_force(events) if event.kind == "comparison"}
    places = [n for n, (prompt, *two) in enumerate(pairs) if pair_subject(prompt_of(prompt), *two) not in answered]

    def best(served: Any) -> tuple[Any, float]:
        asked = served.questions(history, [pairs[place] for place in places]) if places else []
        return next(iter(asked), None), served.state(history).confidence

    try:
        question, confidence = await service.with_model(best, max(2 * len(places), 1))
    except CoplError as error:
        raise ApiError(422, "; ".join(error.faults)) from None
    if question is None:
        raise ApiError(404, f"the user has answered all {len(pairs)} candidates")
    prompt = question.prompt
    return QuestionAnswer(
        user=user,
        index=places[question.index],
        prompt=shown_prompt(prompt) if isinstance(prompt, str) else [dict(message) for message in prompt],
        first=question.first,
        second=question.second,
        information=question.information,
        confidence=confidence,
    )


@router.get(
    "/{user:segment}/events",
    summary="Everything a user said or was shown",
    responses=links(
        withdraw=link(
            "withdraw", "Take back the last of it.", user="$response.body#/user", event="$response.body#/events/0/id"
        )
    ),
)
async def events(service: ServiceOf, principal: PrincipalOf, user: UserPath) -> EventsAnswer:
    name = _own(principal, user)
    held = await service.store(service.log.of_user, name)
    standing = {event.id for event in in_force(held)}
    return EventsAnswer(user=name, events=[_shown(event, event.id in standing) for event in reversed(held)])


def _shown(event: Event, is_in_force: bool) -> EventAnswer:
    said = dict(event.body)
    if isinstance(said.get("prompt"), str):
        said["prompt"] = shown_prompt(said["prompt"])
    return EventAnswer(
        id=event.id,
        kind=event.kind,
        subject=event.subject,
        said=said,
        created=event.created,
        in_force=is_in_force or event.kind == "completion",
    )


@router.delete("/{user:segment}/events/{event}", summary="Withdraw an answer")
async def withdraw(
    service: ServiceOf,
    principal: PrincipalOf,
    user: UserPath,
    event: Annotated[int, Path(ge=1, lt=2**63)],
    idempotency_key: IdempotencyKey = None,
) -> SaidAnswer:
    name = _own(principal, user)
    held = await service.store(service.log.of_user, name)
    said = next((one for one in held if one.id == event), None)
    if said is None or said.kind in ("completion", "withdrawal"):
        raise ApiError(404, f"user has no answer {event}")
    if event not in {one.id for one in in_force(held)}:
        return SaidAnswer(user=name, events=[event], new=False)  # it is of no force any more
    return await _said(service, name, idempotency_key, [Entry("withdrawal", said.subject, {"kind": said.kind})])


@router.get("/{user:segment}", summary="What is known of a user")
async def see(service: ServiceOf, principal: PrincipalOf, user: UserPath) -> UserAnswer:
    name = _own(principal, user)
    history = await service.history(name)
    held = await service.store(service.log.of_user, name)
    state, run = await service.with_model(lambda served: (served.state(history), served.run))
    return UserAnswer(
        user=name,
        known=state.known,
        how=state.how,
        confidence=state.confidence,
        num_events=len(held),
        num_comparisons=len(words(held)),
        forgotten=history.is_forgotten,
        run=run,
    )


@router.delete(
    "/{user:segment}",
    summary="Forget a user",
    responses=links(see=link("see", "What is known of a user who was forgotten.", user="$response.body#/user")),
)
async def forget(service: ServiceOf, principal: PrincipalOf, user: UserPath) -> ForgottenAnswer:
    """Removes everything the user said, what is known of them, and their tokens.

    What training knew of them is not used any more, and data sets made by `copl data make events` are without them.
    """
    name = _own(principal, user)
    return ForgottenAnswer(user=name, num_events=await service.forget(name))
