"""What all routes stand on: the log, the engine, who may ask, and the figures."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Annotated, TypeAlias, TypeVar, final

from anyio import to_thread
from attrs import define
from fastapi import Depends, Header, Request

from copl.data.events.evidence import Event
from copl.data.events.log import Appended, Entry, EventLog
from copl.serve.engine import Engine, OverloadedError
from copl.serve.faults import ApiError
from copl.serve.histories import Histories
from copl.serve.identity import Gate, Principal
from copl.serve.loading import Loader
from copl.serve.metrics import Metrics
from copl.serve.served import Asked, History, Rewarded, Served
from copl.serve.settings import ServeOptions
from copl.serve.tokens import Tokens
from copl.serve.writers import Writer

T = TypeVar("T")
_LONGEST_KEY = 200


@final
@define(eq=False)
class Service:
    """A running service.

    Attributes:
        options: how it is run.
        log: the log of events.
        tokens: who may ask.
        gate: lets requests in.
        engine: the thread with the model.
        histories: what users said.
        metrics: the figures.
        writer: who writes candidates; None where nobody does.
        loader: loads the run, and its successors.
    """

    options: ServeOptions
    log: EventLog
    tokens: Tokens
    gate: Gate
    engine: Engine
    histories: Histories
    metrics: Metrics
    loader: Loader
    writer: Writer | None = None

    @property
    def reward_name(self) -> str:
        """What the reward model is called among models."""
        return "copl"

    @property
    def model(self) -> Served:
        """The model in use.

        Raises:
            ApiError: 503, it is being loaded.
        """
        served = self.engine.served
        if served is None:
            raise ApiError(503, "the model is being loaded", {"Retry-After": "1"})
        return served

    async def store(self, function: Callable[..., T], *arguments: object) -> T:
        """Do something with the store, off the event loop."""
        with self.metrics.stage("store"):
            return await to_thread.run_sync(function, *arguments)

    async def history(self, user: str | None) -> History:
        """Return what a user said as of now."""
        return await self.store(self.histories.of, user)

    async def score(
        self, user: str | None, prompts: Sequence[str], texts: Sequence[str], *, average: bool = False
    ) -> Rewarded:
        """Score responses for a user as of now, all by one model.

        Args:
            user: the user; None is the average one.
            prompts: the prompt of each response, in the form of `copl.data.chat`.
            texts: the responses.
            average: whether to score them for the average user as well.
        """
        asked = Asked(await self.history(user), tuple(prompts), tuple(texts), average)
        (rewarded,) = await _wait(self.engine.score([asked]))
        return rewarded

    async def score_each(self, asked: Sequence[tuple[str | None, Sequence[str], Sequence[str]]]) -> list[Rewarded]:
        """Score responses for several users as of now, all by one model.

        Args:
            asked: user, prompts and responses, as for `score`.
        """
        histories = await self.store(lambda: [self.histories.of(user) for user, _, _ in asked])
        jobs = [
            Asked(history, tuple(prompts), tuple(texts))
            for history, (_, prompts, texts) in zip(histories, asked, strict=True)
        ]
        return await _wait(self.engine.score(jobs)) if jobs else []

    async def with_model(self, function: Callable[[Served], T], size: int = 1) -> T:
        """Do something with the model, on its thread."""
        return await _wait(self.engine.call(function, size))

    async def append(
        self, user: str, key: str | None, entries: Sequence[Entry], *, began: float | None = None
    ) -> Appended:
        """Add what a user said to the log.

        Args:
            user: the user.
            key: the idempotency key, if the client gave one.
            entries: what was said.
            began: as for `copl.data.events.log.EventLog.append`.
        """
        if key is not None and not 0 < len(key) <= _LONGEST_KEY:
            raise ApiError(422, f"idempotency key: expected 1 to {_LONGEST_KEY} characters")
        if key is not None and ("\x00" in key or not key.isprintable()):
            raise ApiError(422, "idempotency key: expected printable characters")
        own_key = key or f"own-{secrets.token_hex(16)}"
        appended = await self.store(partial(self.log.append, user, own_key, list(entries), began=began))
        if appended.is_new:
            for event in appended.events:
                if event.kind != "completion":
                    self.metrics.feedback.labels(event.kind).inc()
        return appended

    async def completion(self, principal: Principal, user: str | None, completion_id: str) -> Event:
        """Return a completion that the user was shown.

        Raises:
            ApiError: there is none, or it is another user's.
        """
        event = await self.store(self.log.about, completion_id, "completion")
        if event is None or (principal.scope == "user" and event.user != principal.user):
            raise ApiError(
                404, "there is no completion of that id, or it was made for nobody"
            )  # whose it is, is nobody else's business
        if user is not None and user != event.user:
            raise ApiError(403, "that completion was made for another user")
        return event

    async def forget(self, user: str) -> int:
        """Forget a user: events, tokens and states; return how many events there were."""
        await self.store(self.tokens.revoke_of_user, user)
        count = await self.store(self.log.forget, user)  # last: it empties the write-ahead log of both
        self.histories.forget(user)
        with suppress(OverloadedError):  # what is kept of the state is of a version that is never asked for again
            await self.with_model(lambda served: served.forget(user))
        return count


async def _wait(future: Future[T]) -> T:
    return await asyncio.wrap_future(future)


async def get_service(request: Request) -> Service:  # what is not async takes a thread for each request
    """Return the service that an application belongs to."""
    service: Service = request.app.state.service
    return service


ServiceOf: TypeAlias = Annotated[Service, Depends(get_service)]


async def get_principal(
    service: ServiceOf, authorization: Annotated[str | None, Header(include_in_schema=False)] = None
) -> Principal:
    """Return who asks.

    Raises:
        ApiError: 401 or 429.
    """
    return await service.store(service.gate.enter, authorization)


PrincipalOf: TypeAlias = Annotated[Principal, Depends(get_principal)]


async def get_named_user(request: Request, service: ServiceOf) -> str | None:
    """Return the user that the trusted header names."""
    name = service.options.user_header.lower().encode("latin-1", "replace")
    value = next((value for key, value in request.scope["headers"] if key == name), None)
    if value is None:
        return None
    try:
        return str(value.decode("utf-8"))  # as everywhere else; frameworks take headers for Latin-1
    except UnicodeDecodeError:
        return str(value.decode("latin-1"))


NamedUser: TypeAlias = Annotated[str | None, Depends(get_named_user)]
IdempotencyKey: TypeAlias = Annotated[
    str | None,
    Header(description="A text of your own for this request: sent again with the same one, it counts once."),
]
