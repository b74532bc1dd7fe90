"""The application: all routes over one service."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from copl import __version__
from copl.data.events.log import EventLog
from copl.errors import OptionsError, RunError
from copl.serve import faults
from copl.serve.addresses import Addresses
from copl.serve.engine import Engine
from copl.serve.histories import Histories
from copl.serve.identity import Gate
from copl.serve.limits import Limits
from copl.serve.loading import Loader
from copl.serve.metrics import Counted, Metrics
from copl.serve.routes import feedback, health, native, openai, operators, pages, ranking, responses, tastes, training
from copl.serve.service import Service
from copl.serve.settings import ServeOptions, default_store
from copl.serve.tokens import Tokens
from copl.serve.writers import Embedded, Upstream, Writer, embedded_defaults

_ABOUT = """
A service that learns what each user prefers while people use it. Ask for answers as you ask OpenAI, have responses put
in order as by a reranker, or score them for a trainer; say what was better, and the next answer to that user follows.

Send `Authorization: Bearer …` where the service has tokens. A token of scope `user` speaks for its user. Others name
the user: in the path, else by the trusted header, else by `safety_identifier`, else by `user`.
"""
_TAGS = {
    "users": "What users say, what is known of them, and scores for them.",
    "feedback": "What users say of completions.",
    "OpenAI": "For clients of OpenAI.",
    "rerank and score": "For rerankers' clients.",
    "trainers": "For trainers of policies.",
    "operators": "For whoever runs the service; needs a token of scope admin.",
    "health": "For monitors.",
}
_ROUTES = (training, tastes, native, feedback, openai, responses, ranking, operators, health, pages)


def create_service(
    run: Path, options: ServeOptions, *, failed: Callable[[BaseException], object] = lambda error: None
) -> Service:
    """Open the store and make everything ready; the model is loaded when the application starts.

    Args:
        run: the run directory.
        options: how it is served.
        failed: is called when the model cannot be loaded.

    Raises:
        CoplError: the store cannot be used, or an option does not fit.
    """
    if not (run / "run.json").is_file():
        raise RunError(f"{run}: not a run directory (it has no run.json); `copl train` makes one")
    _check_origins(options.origins)
    writer = _writer(options)
    log = EventLog(options.store or default_store(run))
    tokens = Tokens(log)
    if not options.is_loopback and not tokens.any():
        raise OptionsError(
            f"--host {options.host}: others reach this address, so the service needs tokens: make one with "
            f"`copl serve token new {run}` and the same --store"
        )
    metrics = Metrics()
    engine = Engine(max_jobs=options.queue, max_texts=options.batch, observe=metrics.observe_batch)
    loader = Loader(run, engine, seconds=options.refresh, loaded=metrics.swaps.inc, failed=failed)
    return Service(options, log, tokens, Gate(tokens, options.rate), engine, Histories(log), metrics, loader, writer)


def _check_origins(origins: Iterable[str]) -> None:
    """Refuse what no page can be of: browsers name scheme, host and port of a page, and nothing else.

    Raises:
        OptionsError: one fault for each.
    """
    faults = [
        f"--allow-origin {origin}: expected scheme and host of a page, such as https://chat.example"
        for origin in origins
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://[^/?#\s*]+", origin)
    ]
    if faults:
        raise OptionsError(faults)


def _writer(options: ServeOptions) -> Writer | None:
    if options.upstream is not None:
        if options.generator is not None:
            raise OptionsError("--upstream and --generator: one writes, choose which")
        return Upstream(options.upstream, options.upstream_model)
    if options.generator == "none":
        return None
    names = embedded_defaults() if options.generator is None else options.generator.split(",")
    return Embedded([name.strip() for name in names])


def create_app(service: Service) -> FastAPI:
    """Return the application of a service."""
    app = FastAPI(
        title="copl",
        version=__version__,
        description=_ABOUT,
        lifespan=lambda _: _running(service),
        docs_url=None,  # the pages of FastAPI load from other hosts
        redoc_url=None,
        generate_unique_id_function=lambda route: route.name,  # links and generated clients name operations so
        openapi_tags=[{"name": name, "description": words} for name, words in _TAGS.items()],
    )
    app.state.service = service
    faults.install(app)
    for module in _ROUTES:
        app.include_router(module.router)
    options = service.options
    app.add_middleware(Addresses)
    if options.origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(options.origins),
            allow_methods=["GET", "POST", "DELETE"],
            allow_headers=["Authorization", "Content-Type", "Idempotency-Key"],
        )
    app.add_middleware(Limits, max_body=options.max_body, is_open=lambda: service.gate.is_open, origins=options.origins)
    app.add_middleware(Counted, metrics=service.metrics)  # the last one sees every request first
    return app


@asynccontextmanager
async def _running(service: Service) -> AsyncIterator[None]:
    service.engine.start()
    service.loader.start()
    yield
    service.loader.stop()
    service.engine.stop()
    if service.writer is not None:
        await service.writer.close()
    service.log.close()
