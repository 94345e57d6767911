"""OpenAI's ``/v1/embeddings`` and ``/v1/models``."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from gateway import choices
from gateway.keyed_route import KeyedRoute
from gateway.openai_schemas import EmbeddingList, ModelList, ModelView
from gateway.openapi.job_codes import EMBEDDING
from gateway.openapi.raises import raises
from gateway.request_headers import Urgency
from gateway.routes.completions import urgency_of
from gateway.schemas import JobRequest
from gateway.state import Gateway, MatterReader, MatterSubmitter, Shared
from gateway.waiting import Waits
from services import openai_answers
from services.errors import NotFound
from services.openai_requests import EmbeddingsRequest

router = APIRouter(prefix="/v1", tags=["openai"], route_class=KeyedRoute)


@router.post("/embeddings", response_model=EmbeddingList, dependencies=[Waits])
@raises(choices.submit, choices.results, *EMBEDDING)
async def create_embeddings(
    body: EmbeddingsRequest, request: Request, gateway: Shared, principal: MatterSubmitter, priority: Urgency = None
) -> Response:
    """Embeddings of one or many texts, L2-normalised."""
    wanted = JobRequest(
        type="embed", model=body.model, priority=urgency_of(principal, priority), input=body.job_input()
    )
    jobs = await choices.submit(gateway, principal, [wanted], request)
    (result,) = await choices.results(gateway, principal.tenant, jobs, request)
    return JSONResponse(openai_answers.embeddings(body, result))


@router.get("/models", response_model=ModelList)
@raises("catalog_damaged")
def list_models(gateway: Shared, _: MatterReader) -> dict[str, Any]:
    """Models that are installed here or that a live worker can serve."""
    return {"object": "list", "data": list(_all_models(gateway).values())}


@router.get("/models/{model_id}", response_model=ModelView)
@raises(("model_unknown", 404), "catalog_damaged")
def get_model(model_id: str, gateway: Shared, _: MatterReader) -> dict[str, Any]:
    """One model."""
    models = _all_models(gateway)
    if model_id not in models:
        raise NotFound(f"unknown model {model_id!r}", code="model_unknown")
    return models[model_id]


def _all_models(gateway: Gateway) -> dict[str, dict[str, Any]]:
    base: dict[str, Any] = {"object": "model", "created": 0, "owned_by": "casemill"}
    models: dict[str, dict[str, Any]] = {}
    for model in gateway.catalog.list():
        models[model.name] = base | {
            "id": model.name,
            "created": int(model.path.stat().st_mtime) if model.path.is_file() else 0,
            "kind": model.kind,
            "sha256": model.sha256,
            "context_tokens": model.context_tokens,
            "licence": model.licence,
            "loaded": False,
        }
    for model in gateway.fleet.models():
        known = models.get(model.name, base | {"id": model.name, "licence": None})
        live = {"kind": model.kind, "sha256": model.sha256, "context_tokens": model.context_tokens}
        models[model.name] = known | live | {"loaded": model.loaded}
    return models
