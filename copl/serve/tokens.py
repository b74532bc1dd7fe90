"""Bearer tokens: kept as hashes, with a scope each."""

from __future__ import annotations

import hashlib
import secrets
import time
from typing import Any, Literal, TypeAlias, final, get_args

import sqlalchemy as sql
from attrs import frozen

from copl.data.events.log import TOKENS, DamagedError, EventLog
from copl.errors import OptionsError, quoted

Scope: TypeAlias = Literal["user", "service", "admin"]
SCOPES: tuple[Scope, ...] = get_args(Scope)
_PREFIX = "copl_"


@final
@frozen
class Token:
    """What is kept of a token.

    Attributes:
        id: its number.
        name: what a person calls it.
        scope: ``user`` speaks for one user, ``service`` for any, ``admin`` sees and does everything.
        user: the user it speaks for, with scope ``user``.
        created: seconds since 1970.
        is_revoked: whether it is of no use any more.
    """

    id: int
    name: str
    scope: Scope
    user: str | None
    created: float
    is_revoked: bool


@final
class Tokens:
    """The tokens of a store."""

    def __init__(self, log: EventLog) -> None:
        self._log = log

    def new(self, scope: str, *, user: str | None = None, name: str = "") -> str:
        """Make a token and return it; it is shown this once and cannot be read back.

        Raises:
            OptionsError: there is no such scope, or the user does not go with it.
        """
        check_scope(scope, user)
        secret = _PREFIX + secrets.token_urlsafe(32)
        row = {"name": name, "digest": _digest(secret), "scope": scope, "user_id": user, "created": time.time()}
        with self._log.writing() as connection:
            connection.execute(sql.insert(TOKENS).values(row))
        return secret

    def find(self, secret: str) -> Token | None:
        """Return the token that is in force by this secret."""
        # Comparing hashes of 256 random bits leaks nothing that would help to guess one.
        asked = sql.select(TOKENS).where(TOKENS.c.digest == _digest(secret), TOKENS.c.revoked.is_(None))
        with self._log.engine.connect() as connection:
            row = connection.execute(asked).first()
        return None if row is None else _token(row)

    def any(self) -> bool:
        """Return whether there was ever a token; a service without one is open to its own machine."""
        with self._log.engine.connect() as connection:
            return connection.execute(sql.select(TOKENS.c.id).limit(1)).first() is not None

    def all(self) -> list[Token]:
        """Return all tokens, the oldest first."""
        with self._log.engine.connect() as connection:
            return [_token(row) for row in connection.execute(sql.select(TOKENS).order_by(TOKENS.c.id))]

    def revoke(self, number: int) -> None:
        """Make a token useless.

        Raises:
            OptionsError: there is no such token.
        """
        change = sql.update(TOKENS).where(TOKENS.c.id == number, TOKENS.c.revoked.is_(None))
        with self._log.writing() as connection:
            count = connection.execute(change.values(revoked=time.time())).rowcount
        if not count:
            raise OptionsError(f"token {number}: there is none in force; `copl serve token list` shows all")

    def revoke_of_user(self, user: str) -> None:
        """Make the tokens that speak for a user useless, and remove what names the user.

        Their rows stay, for a service that had a token is not open again.
        """
        gone = {"user_id": None, "name": "", "revoked": time.time()}
        with self._log.writing() as connection:
            connection.execute(sql.update(TOKENS).where(TOKENS.c.user_id == user).values(gone))


def check_scope(scope: str, user: str | None) -> None:
    """Refuse a scope that there is not, or a user that does not go with it.

    Raises:
        OptionsError: it is so.
    """
    if scope not in SCOPES:
        raise OptionsError(f"scope {quoted(scope)}: expected {', '.join(SCOPES)}")
    if (scope == "user") != (user is not None):
        raise OptionsError("a token of scope user speaks for one user, and no other token for one: check --user")


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).hexdigest()


def _token(row: Any) -> Token:
    if row.scope not in SCOPES or not isinstance(row.created, float):
        raise DamagedError(f"the store: token {row.id} is damaged; put back a copy of the store")
    return Token(row.id, row.name, row.scope, row.user_id, row.created, row.revoked is not None)
