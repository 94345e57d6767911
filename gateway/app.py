"""The gateway's ASGI application: builds the shared state, installs guards, problems and routes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial

import httpx
from fastapi import FastAPI
from starlette.concurrency import run_in_threadpool
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gateway.accepting import submit_each
from gateway.external_ids import ExternalIds
from gateway.limits import RequestGuard
from gateway.openapi.describe import describe
from gateway.problems import install_problem_handlers
from gateway.rates import RateHeaders
from gateway.refusals import Refusals
from gateway.routes import (
    audit,
    batches,
    browser,
    completions,
    dead_letters,
    document_sets,
    documents,
    events,
    files,
    jobs,
    keys,
    matters,
    openai,
    playbooks,
    runs,
    schedules,
    system,
    webhooks,
)
from gateway.state import Gateway
from gateway.together import Together
from gateway.waiting import Waiting
from services.access import Access
from services.audit import Audit
from services.batches import Batches
from services.blobs import Blobs
from services.caretaker import Caretaker
from services.deliveries import Deliveries
from services.documents import Documents
from services.erasure import Erasures
from services.errors import ModelError, Unavailable
from services.events import read_external_ids
from services.files import Files
from services.fleet import Fleet
from services.job_index import JobIndex
from services.known_models import KnownModels
from services.lifecycle import Lifecycle
from services.model_notes import note_models
from services.models import Catalog
from services.playbook_store import PlaybookStore
from services.principal import Limits
from services.rates import Rates
from services.revocations import Revocations
from services.runs import Runs
from services.schedules import Schedules
from services.settings import Settings
from services.streams import Streams
from services.webhooks import Webhooks


def create_app(settings: Settings) -> FastAPI:
    """The application of one gateway process; connections open when it starts."""
    lifecycle = Lifecycle(settings)
    blobs = Blobs(settings.data_dir, lifecycle.records.seals)
    client, names = lifecycle.client, lifecycle.keys
    limits = Limits(
        settings.tenant_requests_per_minute, settings.tenant_tokens_per_minute, settings.tenant_stored_bytes
    )
    refusals = Refusals(Audit(client, names))
    access, endpoints = Access(client, names, limits, Revocations(settings.data_dir)), Webhooks(lifecycle)
    fleet, catalog = Fleet(client, names), Catalog(settings.models_folder)
    documents_kept = Documents(client, names, blobs, tenant_limit=limits.stored_bytes)
    gateway = Gateway(
        settings=settings,
        lifecycle=lifecycle,
        jobs=JobIndex(lifecycle.client, lifecycle.keys, lifecycle.records),
        runs=Runs(lifecycle),
        schedules=Schedules(lifecycle),
        access=access,
        admitting=Together(access.check_each),
        rates=Rates(client, names, limits),
        audit=refusals.audit,
        blobs=blobs,
        documents=documents_kept,
        erasures=Erasures(lifecycle, documents_kept),
        playbooks=PlaybookStore(client, names, blobs),
        webhooks=endpoints,
        deliveries=Deliveries(lifecycle, endpoints),
        fleet=fleet,
        catalog=catalog,
        models=KnownModels(catalog, fleet),
        files=Files(lifecycle, blobs, tenant_limit=limits.stored_bytes),
        batches=Batches(lifecycle),
        events=Streams(settings),
        submitting=Together(partial(submit_each, lifecycle)),
        external_ids=ExternalIds(partial(read_external_ids, client, names, lifecycle.records)),
        waiting=Waiting(settings.tenant_waiting),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        caretaker = Caretaker(lifecycle, blobs)
        caretaker.start()
        with suppress(Unavailable, ModelError):  # then the next start notes them; /v1/models says what is damaged
            await run_in_threadpool(note_models, client, names, gateway.catalog)
        flower = settings.flower_url or f"http://127.0.0.1:{settings.flower_port}"
        auth = ("casemill", settings.flower_password) if settings.flower_password else None
        async with httpx.AsyncClient(base_url=flower, auth=auth, timeout=60, trust_env=False) as http:
            app.state.flower = http
            yield
        caretaker.stop()
        with suppress(Unavailable):
            await run_in_threadpool(refusals.close)
        await gateway.events.aclose()
        lifecycle.client.close()

    app = FastAPI(
        title="Casemill",
        version=importlib.metadata.version("casemill"),
        lifespan=lifespan,
        openapi_url=None,  # served with the documentation, behind the key
        # Who called what is in our own metrics and audit log; no exporter of the machine's is told of it.
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.openapi = partial(describe, app)
    app.state.gateway = gateway
    install_problem_handlers(app, refusals)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=settings.trusted_hosts)
    app.add_middleware(RateHeaders)
    app.add_middleware(RequestGuard, upload_bytes=settings.max_upload_bytes, file_bytes=settings.max_file_bytes)
    app.mount("/assets", browser.documentation_assets())
    for module in (
        jobs,  # first, as they are asked for most and routes are tried in order
        system,
        documents,
        matters,
        events,
        document_sets,
        dead_letters,
        runs,
        schedules,
        playbooks,
        webhooks,
        completions,
        openai,
        files,
        batches,
        keys,
        audit,
        browser,
    ):
        app.include_router(module.router)
    return app
