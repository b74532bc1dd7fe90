"""What no request may exceed, before anything looks at it: size, time, host and origin."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from ipaddress import ip_address
from typing import Any, TypeAlias, final
from urllib.parse import unquote_to_bytes

from starlette.datastructures import Headers, MutableHeaders

from copl.serve.faults import refusal

Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Message, Receive, Send], Awaitable[None]]

_PATIENCE = 30.0
"""Seconds in which a request has to come."""

_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'self'",
}


@final
class Limits:
    """Refuses requests that are too large, too slow, or sent by a page of another host.

    Args:
        app: what comes after.
        max_body: bytes that a request may have.
        is_open: tells whether the service is for its own machine alone, without tokens; then the host has to be named
            so, for a page of another host can have its own name point here.
        origins: other hosts whose pages may ask.
    """

    def __init__(self, app: App, *, max_body: int, is_open: Callable[[], bool], origins: Collection[str]) -> None:
        self._app = app
        self._max_body, self._is_open, self._origins = max_body, is_open, frozenset(origins)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        answer = self._refused(scope, headers)
        body = b""
        if answer is None:
            try:
                body = await asyncio.wait_for(self._body(receive), _PATIENCE)
            except TimeoutError:
                answer = refusal(408, "the request did not come to its end in time")
            except _GoneError:
                return
            except _TooLargeError:
                answer = refusal(413, f"the body is larger than {self._max_body} bytes")
        if answer is not None:
            await answer(scope, receive, send)
            return
        await self._app(scope, _replay(body, receive), _with_headers(send))

    def _refused(self, scope: Message, headers: Headers) -> Any:
        host = headers.get("host", "")
        if self._is_open() and not _is_own(_name(host)):
            return refusal(421, "this service is for its own machine: ask localhost")
        try:
            unquote_to_bytes(scope.get("raw_path", b"")).decode("utf-8")
        except UnicodeDecodeError:  # read with a stand-in for what is no character, two users would be one
            return refusal(400, "the address is not in UTF-8: write it percent-encoded")
        origin = headers.get("origin")
        if origin and origin not in self._origins and origin.partition("://")[2] != host:
            return refusal(403, "a page of another host may not ask; --allow-origin names those that may")
        length = headers.get("content-length", "0")
        if not length.isdecimal() or len(length) > 15:
            return refusal(400, "Content-Length: expected a number")
        if int(length) > self._max_body:
            return refusal(413, f"the body is larger than {self._max_body} bytes")
        return None

    async def _body(self, receive: Receive) -> bytes:
        parts: list[bytes] = []
        size = 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                raise _GoneError
            parts.append(message.get("body", b""))
            size += len(parts[-1])
            if size > self._max_body:
                raise _TooLargeError
            if not message.get("more_body"):
                return b"".join(parts)


class _TooLargeError(Exception):
    pass


class _GoneError(Exception):
    """The client went away before the request had come to its end."""


def _is_own(name: str) -> bool:
    """Return whether a host is this machine by its address, or by the one name that everybody has for it."""
    if name.lower() == "localhost":
        return True
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False


def _name(host: str) -> str:
    """Return a host without its port."""
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.rpartition(":")[0] if ":" in host else host


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return with_headers
