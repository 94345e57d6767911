"""Health, version, metrics, and what is alive: workers, lanes, models."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any, Final

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from gateway.keyed_route import KeyedRoute
from gateway.openapi.answers import answer
from gateway.openapi.raises import raises
from gateway.state import MatterReader, Operator, Shared, credential_of
from gateway.system_schemas import (
    BoundsRequest,
    KindName,
    LaneList,
    LaneView,
    Readiness,
    ScaleView,
    Versions,
    WorkerList,
    WorkerView,
)
from services.audit import SYSTEM
from services.capacity import Capacity
from services.errors import CasemillError, Unavailable
from services.jobs import Lane
from services.metrics import exposition
from services.redis_client import server_info

router = APIRouter(tags=["system"], route_class=KeyedRoute)


_NOT_READY: Final = answer("Retry-After", model=Readiness, description="No work can be accepted now")


@router.get("/livez", response_class=PlainTextResponse)
def get_liveness() -> PlainTextResponse:
    """The process is up."""
    return PlainTextResponse("ok\n")


@router.get("/readyz", response_model=Readiness, responses={503: _NOT_READY})
def get_readiness(request: Request, gateway: Shared) -> Response:
    """Whether work can be accepted; with a key also each dependency by name."""
    checks: dict[str, Any] = {}
    try:
        checks["redis"] = {"ok": True} | server_info(gateway.lifecycle.client)
        workers = gateway.fleet.workers()
        lanes = sorted({lane for worker in workers for lane in worker.lanes})
        checks["workers"] = {"ok": bool(workers), "count": len(workers), "lanes": lanes}
    except Unavailable as error:
        checks["redis"] = {"ok": False, "problem": error.problem()}
    ready = all(check["ok"] for check in checks.values())
    status = 200 if ready else 503
    headers = {} if ready else {"Retry-After": "2"}
    try:
        credential = credential_of(request)
        gateway.access.check(credential.secret, session=credential.session)
    except CasemillError:
        return JSONResponse({"ready": ready}, status_code=status, headers=headers)
    return JSONResponse({"ready": ready, "checks": checks}, status_code=status, headers=headers)


@router.get("/version")
def get_versions(_: MatterReader) -> Versions:
    """Versions of Casemill and of what it runs on."""
    names = ("casemill", "celery", "fastapi", "redis")
    found = {name: importlib.metadata.version(name) for name in names}
    return Versions.model_validate(found | {"python": platform.python_version()})


@router.get("/metrics", response_class=PlainTextResponse)
def get_metrics(gateway: Shared, _: Operator) -> Response:
    """Prometheus metrics of the whole installation, read from Redis at this moment."""
    content_type, body = exposition(gateway.lifecycle, gateway.fleet)
    return Response(body, media_type=content_type)


@router.get("/v1/workers")
def list_workers(gateway: Shared, _: Operator) -> WorkerList:
    """The live workers, as they announce themselves, and how many of each kind there should be."""
    kinds = [ScaleView.of(scale) for scale in Capacity(gateway.lifecycle).scales()]
    return WorkerList(data=[WorkerView.of(worker) for worker in gateway.fleet.workers()], kinds=kinds)


@router.patch("/v1/workers/{kind}")
@raises("kind_unknown", "bounds_invalid", "audit_busy")
def change_worker_bounds(kind: KindName, bounds: BoundsRequest, gateway: Shared, principal: Operator) -> ScaleView:
    """Set the fewest and the most workers of a kind; the count follows within seconds."""
    changed = Capacity(gateway.lifecycle).change_bounds(kind, bounds.min, bounds.max)
    told = {"min": str(changed.min), "max": str(changed.max)}
    gateway.audit.note(SYSTEM, principal.key_id, "scale.changed", kind, **told)
    return ScaleView.of(changed)


@router.get("/v1/lanes")
def list_lanes(gateway: Shared, _: Operator) -> LaneList:
    """Per lane: jobs waiting by device and priority, age of the oldest, slots, busy slots."""
    depths, workers = gateway.lifecycle.depths(), gateway.fleet.workers()
    lanes: list[LaneView] = []
    for lane in Lane:
        waiting = {key: value for key, value in depths.items() if key[0] is lane}
        ages = [age for _, age in waiting.values()]
        serving = [worker for worker in workers if lane in worker.lanes]
        lanes.append(
            LaneView(
                lane=lane,
                waiting=sum(count for count, _ in waiting.values()),
                by_device_and_priority={f"{d}/{p}": count for (_, d, p), (count, _) in waiting.items()},
                oldest_seconds=round(max(ages), 3) if ages else None,
                workers=len(serving),
                slots=sum(worker.slots for worker in serving),
                busy=sum(worker.busy for worker in serving),
            )
        )
    return LaneList(data=lanes)
