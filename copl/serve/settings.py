"""The options of the service."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import final

import attrs

from copl.options import option


@final
@attrs.frozen(kw_only=True)
class ServeOptions:
    """How a run is served; the defaults of `copl serve`."""

    store: str | None = option(
        None, help="where events are kept: a SQLite file or postgresql+psycopg://…; RUN.serve.sqlite unless given"
    )
    host: str = option("127.0.0.1", help="address to listen on; one that others reach needs tokens")
    port: int = option(8199, help="port to listen on; 0 takes a free one")
    upstream: str | None = option(
        None, help="address of an OpenAI-compatible server that writes answers; its key is taken from COPL_UPSTREAM_KEY"
    )
    upstream_model: str | None = option(None, help="model there, whatever model a client names")
    generator: str | None = option(
        None, help="generators that write where there is no upstream, the first that can; none has nobody write"
    )
    candidates: int = option(4, help="answers written for each question, of which the user gets the best")
    refresh: float = option(0.0, help="seconds between looks for a newly trained RUN; 0 does not look by itself")
    origins: tuple[str, ...] = option((), help="pages of other hosts that may ask, such as https://chat.example")
    user_header: str = option("X-OpenWebUI-User-Id", help="header that names the user; believed of services alone")
    queue: int = option(512, help="requests that may wait for the model; more are asked to come again")
    batch: int = option(256, help="texts the model reads at once")
    max_body: int = option(4 << 20, help="bytes a request may have")
    max_text: int = option(200_000, help="characters a text may have")
    max_texts: int = option(1024, help="texts a request may have")
    rate: float = option(100.0, help="requests a second for each token, on average; 0 is no limit")

    @property
    def is_loopback(self) -> bool:
        """Whether nobody but this machine can reach the service."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def default_store(run: Path) -> Path:
    """Return where the events of a run are kept unless told otherwise: beside it, so that they outlive it."""
    place = run.absolute()
    return place.with_name(f"{place.name}.serve.sqlite")
