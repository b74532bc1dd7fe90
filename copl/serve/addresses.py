"""What an address names: users whose ids may hold a slash, and every resource without its body."""

from __future__ import annotations

import re
from typing import final
from urllib.parse import unquote

from starlette.convertors import Convertor, register_url_convertor

from copl.serve.limits import App, Message, Receive, Send

_KEPT = re.compile(r"%(2F|25)", flags=re.IGNORECASE)


@final
class _OneSegment(Convertor[str]):
    """A segment of a path as it was sent: ``ann%2Fevents`` is a user, ``ann/events`` the events of one."""

    regex = r"[^/\n]+"

    def convert(self, value: str) -> str:
        return _KEPT.sub(lambda kept: unquote(kept.group()), value)

    def to_string(self, value: str) -> str:
        return value.replace("%", "%25").replace("/", "%2F")


register_url_convertor("segment", _OneSegment())


@final
class Addresses:
    """Keeps slashes inside a segment apart from those between segments, and answers HEAD as GET without the body.

    Servers hand over paths with both decoded, and ``DELETE /v1/users/ann/events`` would forget a user ``ann/events``.
    """

    def __init__(self, app: App) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        raw: bytes = scope.get("raw_path") or b""
        path = unquote(_KEPT.sub(lambda kept: f"%25{kept.group(1)}", raw.decode("utf-8"))) if raw else scope["path"]
        is_head = scope["method"] == "HEAD"
        method = "GET" if is_head else scope["method"]
        asked = {**scope, "path": path, "method": method}
        try:
            await self._app(asked, receive, _without_body(send) if is_head else send)
        finally:
            scope["route"] = asked.get("route")  # for whoever counts requests by their routes


def _without_body(send: Send) -> Send:
    async def bare(message: Message) -> None:
        body: dict[str, object] = {"body": b""} if message["type"] == "http.response.body" else {}
        await send({**message, **body})

    return bare
