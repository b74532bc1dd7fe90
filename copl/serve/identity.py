"""Who asks, and for which user."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from typing import final

from attrs import frozen

from copl.data.canonical import ValueFaultError
from copl.data.reading import values
from copl.serve.faults import ApiError
from copl.serve.tokens import Scope, Tokens

_LONGEST_ID = 256
_BURST_SECONDS = 2.0


@final
@frozen
class Principal:
    """Who asks.

    Attributes:
        scope: how far the token reaches.
        user: the user it speaks for, with scope ``user``.
        token: number of the token; 0 where the service is open.
    """

    scope: Scope
    user: str | None = None
    token: int = 0

    def require(self, scope: Scope) -> None:
        """Refuse what needs a wider scope.

        Raises:
            ApiError: 403.
        """
        order: Sequence[Scope] = ("user", "service", "admin")
        if order.index(self.scope) < order.index(scope):
            raise ApiError(403, f"this needs a token of scope {scope}; yours has scope {self.scope}")

    def speaks_for(self, user: str) -> None:
        """Refuse to speak for somebody else.

        Raises:
            ApiError: 403.
        """
        if self.scope == "user" and user != self.user:
            raise ApiError(403, "this token speaks for another user")

    def user_of(self, *named: str | int | None) -> str | None:
        """Return the user that a request is for.

        Args:
            named: the users that the request names, the one that counts most first.

        Raises:
            ApiError: one of them is no id, or the token may not speak for that user.
        """
        given = [user_id(one) for one in named if one is not None and one != ""]
        if self.scope != "user":
            return given[0] if given else None
        for one in given:
            self.speaks_for(one)
        return self.user


OPEN = Principal("admin")
"""Whoever reaches a service that listens on its own machine and has no tokens."""


def user_id(value: str | int) -> str:
    """Return the id of a user in its one spelling.

    Raises:
        ApiError: 422.
    """
    try:
        user = values.user_id(value)
    except ValueFaultError as fault:
        raise ApiError(422, f"user: {fault}") from None
    if len(user) > _LONGEST_ID:
        raise ApiError(422, f"user: an id of {len(user)} characters; at most {_LONGEST_ID}")
    return user


@final
class Gate:
    """Lets requests in by their tokens, and not too many of each.

    Args:
        tokens: the tokens.
        rate: requests a second for each token, on average; 0 is no limit.
    """

    def __init__(self, tokens: Tokens, rate: float) -> None:
        self._tokens, self._rate = tokens, rate
        self.is_open = not tokens.any()
        """Whether nobody needs a token, as far as is known; the first token ends that for good."""
        self._allowance: dict[int, tuple[float, float]] = {}
        self._lock = threading.Lock()

    def enter(self, authorization: str | None) -> Principal:
        """Return who asks, by the header ``Authorization``.

        Raises:
            ApiError: 401, or 429 with ``Retry-After``.
        """
        kind, _, secret = (authorization or "").partition(" ")
        if kind.lower() == "bearer" and secret.strip():
            token = self._tokens.find(secret.strip())
            if token is not None:
                self.is_open = False
                self._count(token.id)
                return Principal(token.scope, token.user, token.id)
        if self.is_open and not self._tokens.any():
            return OPEN  # clients send some key in any case
        self.is_open = False
        wanted = {"WWW-Authenticate": "Bearer"}
        if secret:
            raise ApiError(401, "the token is wrong or revoked", wanted)
        raise ApiError(401, "a token is needed: Authorization: Bearer …; `copl serve token new` makes one", wanted)

    def _count(self, token: int) -> None:
        if not self._rate:
            return
        most, now = max(1.0, self._rate * _BURST_SECONDS), time.monotonic()
        with self._lock:
            left, since = self._allowance.get(token, (most, now))
            left = min(most, left + (now - since) * self._rate)
            if left < 1:
                seconds = max(1, math.ceil((1 - left) / self._rate))
                self._allowance[token] = (left, now)
                raise ApiError(
                    429, f"more than {self._rate:g} requests a second; wait {seconds} s", {"Retry-After": str(seconds)}
                )
            self._allowance[token] = (left - 1, now)
