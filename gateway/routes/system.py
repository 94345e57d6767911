"""Health, version, metrics, and what is alive: workers, lanes, models."""

from __future__ import annotations

import importlib.metadata
import platform
from dataclasses import asdict, replace
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from gateway.schemas import BoundsRequest
from gateway.state import MatterReader, Operator, Shared, credential_of
from services.audit import SYSTEM
from services.capacity import Capacity
from services.errors import CasemillError, Unavailable
from services.fleet import Announcement
from services.jobs import Lane
from services.metrics import exposition
from services.redis_client import server_info

router = APIRouter(tags=["system"])


@router.get("/livez")
def livez() -> PlainTextResponse:
    """The process is up."""
    return PlainTextResponse("ok\n")


@router.get("/readyz")
def readyz(request: Request, gateway: Shared) -> Response:
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
def version(_: MatterReader) -> dict[str, str]:
    """Versions of Casemill and of what it runs on."""
    names = ("casemill", "celery", "fastapi", "redis")
    return {name: importlib.metadata.version(name) for name in names} | {"python": platform.python_version()}


@router.get("/metrics", response_class=PlainTextResponse)
def metrics(gateway: Shared, _: Operator) -> Response:
    """Prometheus metrics of the whole installation, read from Redis at this moment."""
    content_type, body = exposition(gateway.lifecycle, gateway.fleet)
    return Response(body, media_type=content_type)


@router.get("/v1/workers")
def list_workers(gateway: Shared, _: Operator) -> dict[str, Any]:
    """The live workers, as they announce themselves, and how many of each kind there should be."""
    kinds = [asdict(scale) for scale in Capacity(gateway.lifecycle).scales()]
    return {"data": [_worker_view(worker) for worker in gateway.fleet.workers()], "kinds": kinds}


@router.patch("/v1/workers/{kind}")
def change_worker_bounds(kind: str, bounds: BoundsRequest, gateway: Shared, principal: Operator) -> dict[str, Any]:
    """Set the fewest and the most workers of a kind; the count follows within seconds."""
    changed = asdict(Capacity(gateway.lifecycle).change_bounds(kind, bounds.min, bounds.max))
    told = {name: str(changed[name]) for name in ("min", "max")}
    gateway.audit.note(SYSTEM, principal.key_id, "scale.changed", kind, **told)
    return changed


@router.get("/v1/lanes")
def list_lanes(gateway: Shared, _: Operator) -> dict[str, Any]:
    """Per lane: jobs waiting by device and priority, age of the oldest, slots, busy slots."""
    depths, workers = gateway.lifecycle.depths(), gateway.fleet.workers()
    lanes: list[dict[str, Any]] = []
    for lane in Lane:
        waiting = {key: value for key, value in depths.items() if key[0] is lane}
        ages = [age for _, age in waiting.values()]
        serving = [worker for worker in workers if lane in worker.lanes]
        lanes.append(
            {
                "lane": lane,
                "waiting": sum(count for count, _ in waiting.values()),
                "by_device_and_priority": {f"{d}/{p}": count for (_, d, p), (count, _) in waiting.items()},
                "oldest_seconds": round(max(ages), 3) if ages else None,
                "workers": len(serving),
                "slots": sum(worker.slots for worker in serving),
                "busy": sum(worker.busy for worker in serving),
            }
        )
    return {"data": lanes}


def _worker_view(worker: Announcement) -> dict[str, Any]:
    """Without what its engines count, which is in ``/metrics``."""
    return asdict(replace(worker, engines=())) | {"kind": worker.kind}
