"""What is wrong with a request: a status and one line, in the shape that OpenAI's clients read, on every route."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, final

from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException

from copl.data.events.log import ConflictError, DamagedError
from copl.errors import CoplError, one_line
from copl.serve.engine import OverloadedError

if TYPE_CHECKING:
    from fastapi import FastAPI, Request

_log = logging.getLogger("copl.serve")
_KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    409: "conflict_error",
    429: "rate_limit_error",
    503: "overloaded_error",
}
_LONGEST = 1000
_WORDS = {
    (404, "Not Found"): "there is nothing at this address; GET /openapi.json lists what there is",
    (405, "Method Not Allowed"): "this address takes other methods; GET /openapi.json lists them",
}
"""What the framework says of addresses, in words that say what to do."""


@final
class ApiError(Exception):
    """A request that is refused.

    Args:
        status: the HTTP status.
        message: what is wrong and what to do, one line.
        headers: headers of the answer.
    """

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.headers = dict(headers or {})


@final
class Fault(BaseModel):
    """What is wrong."""

    message: str = Field(description="What is wrong and what to do, on one line.")
    type: str = Field(description="Kind of fault.")
    param: str | None = Field(default=None, description="The field that is wrong, where it is one.")
    code: int = Field(description="The HTTP status.")


@final
class ErrorAnswer(BaseModel):
    """The answer to a request that is refused."""

    error: Fault


REFUSALS: dict[int | str, dict[str, Any]] = {
    status: {"model": ErrorAnswer, "description": description}
    for status, description in {
        400: "The request cannot be read, or asks for what is not offered.",
        401: "A token is missing, wrong or revoked.",
        403: "The token does not reach that far.",
        404: "There is no such thing.",
        408: "The request did not come to its end in time.",
        409: "The idempotency key was used before, for something else.",
        413: "The request is too large.",
        422: "A field is missing or wrong.",
        429: "Too many requests; `Retry-After` says when to ask again.",
        502: "The language model upstream failed.",
        503: "Too much to do; `Retry-After` says when to ask again.",
    }.items()
}
"""What every route may answer beside success, for the OpenAPI document."""


def refusal(status: int, message: str, headers: Mapping[str, str] | None = None, param: str | None = None) -> Any:
    """Return the answer to a request that is refused."""
    text = one_line(message)
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
    kind = _KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
    fault = Fault(message=text, type=kind, param=param, code=status)
    return JSONResponse(ErrorAnswer(error=fault).model_dump(), status_code=status, headers=dict(headers or {}))


def install(app: FastAPI) -> None:
    """Have every fault of an application answered in one shape."""
    app.add_exception_handler(ApiError, _api)
    app.add_exception_handler(OverloadedError, _overloaded)
    app.add_exception_handler(ConflictError, _conflict)
    app.add_exception_handler(DamagedError, _damaged)
    app.add_exception_handler(CoplError, _copl)
    app.add_exception_handler(RequestValidationError, _fields)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(DBAPIError, _store)
    app.add_exception_handler(PoolTimeoutError, _store)
    app.add_exception_handler(Exception, _bug)


def _api(_: Request, error: Any) -> Any:
    return refusal(error.status, error.message, error.headers)


def _overloaded(_: Request, error: Any) -> Any:
    seconds = str(error.retry_after)
    return refusal(503, f"{error.reason}; ask again in {seconds} s", {"Retry-After": seconds})


def _conflict(_: Request, error: Any) -> Any:
    return refusal(409, "this idempotency key was used before, for something else; use another one")


def _copl(_: Request, error: Any) -> Any:
    return refusal(422, "; ".join(error.faults))


def _http(_: Request, error: Any) -> Any:
    if error.status_code == 400:  # of the framework, about a body that is not even text
        return refusal(400, "the body is no JSON in UTF-8, or goes too deep")
    words = _WORDS.get((error.status_code, str(error.detail)), str(error.detail))
    return refusal(error.status_code, words, error.headers)


def _store(_: Request, error: Any) -> Any:
    _log.error("the store failed: %s", one_line(str(getattr(error, "orig", error))))
    return refusal(503, "the store cannot be reached; ask again in 2 s", {"Retry-After": "2"})


def _damaged(_: Request, error: Any) -> Any:
    _log.error("%s", error)
    return refusal(500, "; ".join(error.faults))


def _bug(_: Request, error: Any) -> Any:
    return refusal(500, "an error of the service; its log says more")


def _fields(_: Request, error: Any) -> Any:
    faults: Sequence[Mapping[str, Any]] = error.errors()
    if any(fault["type"] == "json_invalid" for fault in faults):
        return refusal(400, "the body is no JSON")
    lines = [f"{_place(fault['loc'])}: {_words(fault)}" for fault in faults[:5]]
    more = [f"and {len(faults) - 5} more faults"] if len(faults) > 5 else []
    return refusal(422, "; ".join([*lines, *more]), param=_place(faults[0]["loc"]) if faults else None)


def _place(location: Sequence[Any]) -> str:
    parts = [str(part) for part in location if part not in ("body", "query", "path", "header")]
    return ".".join(parts)[:200] or "body"


def _words(fault: Mapping[str, Any]) -> str:
    if fault["type"] == "extra_forbidden":
        return "no such field"
    if fault["type"] == "missing":
        return "required"
    if fault["type"] == "model_attributes_type":
        return "expected a JSON object, sent with Content-Type: application/json"
    return str(fault["msg"])[:300].removeprefix("Value error, ")
