"""Whether the service lives, whether it is ready, and its figures."""

from __future__ import annotations

from typing import Literal, final

from fastapi import APIRouter, Response
from pydantic import BaseModel

from copl.serve.faults import REFUSALS
from copl.serve.service import PrincipalOf, ServiceOf

router = APIRouter(tags=["health"])


@final
class Alive(BaseModel):
    """The process answers."""

    status: Literal["ok"] = "ok"


@final
class Ready(BaseModel):
    """A model is loaded and the store answers."""

    status: Literal["ready"] = "ready"
    run: str


@router.get("/healthz", summary="Is the process alive? Touches neither model nor store")
async def healthz() -> Alive:
    return Alive()


@router.get("/readyz", summary="Can it answer?", responses={503: REFUSALS[503]})
async def readyz(service: ServiceOf) -> Ready:
    run = service.model.run
    await service.store(service.tokens.any)
    return Ready(run=run)


@router.get(
    "/metrics",
    summary="Figures for Prometheus",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, 401: REFUSALS[401], 403: REFUSALS[403], 429: REFUSALS[429]},
)
async def metrics(service: ServiceOf, principal: PrincipalOf) -> Response:
    principal.require("service")
    return Response(service.metrics.text(service.engine), media_type="text/plain; version=0.0.4")
