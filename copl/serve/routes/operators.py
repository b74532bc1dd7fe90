"""For whoever runs the service: users, feedback, figures, and the runs."""

from __future__ import annotations

from collections import Counter
from typing import final

from fastapi import APIRouter
from pydantic import BaseModel, Field

from copl.data.events.evidence import FEEDBACK
from copl.serve.faults import REFUSALS
from copl.serve.service import PrincipalOf, Service, ServiceOf

router = APIRouter(prefix="/v1/admin", tags=["operators"], responses=REFUSALS)

_MAX_USERS = 1000


@final
class UserCount(BaseModel):
    """How much a user said or was shown."""

    user: str
    num_events: int


@final
class DayCount(BaseModel):
    """Events of a day."""

    day: str = Field(description="In UTC, as 2026-01-31.")
    kind: str
    count: int


@final
class StageLatency(BaseModel):
    """How long a stage takes on average."""

    stage: str
    count: int
    seconds: float


@final
class RunSummary(BaseModel):
    """A run that is or was served, and how it was measured."""

    run: str
    accuracy: dict[str, float] = Field(description="Reward accuracy by split, as far as the run was evaluated.")


@final
class OverviewAnswer(BaseModel):
    """The service at a glance."""

    num_users: int
    users: list[UserCount] = Field(description="Those who said most; at most 1,000.")
    days: list[DayCount]
    groups: dict[str, int] = Field(description="Trained users by group, where the data set has groups.")
    latency: list[StageLatency]
    num_answers: int
    share_differs: float = Field(description="Share of answers that differ from the unpersonalised choice.")
    current: RunSummary | None
    previous: RunSummary | None = Field(description="The run before, where another took its place.")


@final
class RefreshAnswer(BaseModel):
    """The loader was woken."""

    status: str = "looking"


@router.get("/overview", summary="The service at a glance")
async def overview(service: ServiceOf, principal: PrincipalOf) -> OverviewAnswer:
    principal.require("admin")
    counts = await service.store(service.log.count_by_user)
    days = await service.store(service.log.count_by_day)
    counts.pop("", None)
    users = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))[:_MAX_USERS]
    served = service.engine.served
    groups = Counter(group for group in (served.map.groups if served and served.map else ()) if group is not None)
    same, differs = (service.metrics.value("copl_answers_total", differs=one) for one in ("false", "true"))
    return OverviewAnswer(
        num_users=len(counts),
        users=[UserCount(user=user, num_events=count) for user, count in users],
        days=[DayCount(day=day, kind=kind, count=count) for day, kind, count in days if kind in FEEDBACK],
        groups=dict(sorted(groups.items())),
        latency=_latency(service),
        num_answers=int(same + differs),
        share_differs=differs / max(same + differs, 1.0),
        current=None if served is None else RunSummary(**served.summary),
        previous=None if service.loader.previous is None else RunSummary(**service.loader.previous),
    )


def _latency(service: Service) -> list[StageLatency]:
    stages = []
    for stage in ("request", "wait", "model", "store", "upstream"):
        count = service.metrics.value("copl_stage_seconds_count", stage=stage)
        total = service.metrics.value("copl_stage_seconds_sum", stage=stage)
        if count:
            stages.append(StageLatency(stage=stage, count=int(count), seconds=total / count))
    return stages


@router.post("/refresh", summary="Look for a newly trained run now")
async def refresh(service: ServiceOf, principal: PrincipalOf) -> RefreshAnswer:
    principal.require("admin")
    service.loader.look()
    return RefreshAnswer()
