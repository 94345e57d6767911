"""The gateway's ASGI application: builds the shared state, installs guards, problems and routes."""

from __future__ import annotations

import importlib.metadata
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import httpx
from fastapi import FastAPI
from starlette.middleware.trustedhost import TrustedHostMiddleware

from gateway.limits import RequestGuard
from gateway.problems import install_problem_handlers
from gateway.routes import (
    browser,
    completions,
    dead_letters,
    document_sets,
    documents,
    events,
    jobs,
    openai,
    playbooks,
    runs,
    schedules,
    system,
)
from gateway.state import Gateway
from services.access import Access
from services.blobs import Blobs
from services.caretaker import Caretaker
from services.documents import Documents
from services.fleet import Fleet
from services.job_index import JobIndex
from services.lifecycle import Lifecycle
from services.models import Catalog
from services.playbook_store import PlaybookStore
from services.runs import Runs
from services.schedules import Schedules
from services.settings import Settings
from services.streams import Streams


def create_app(settings: Settings) -> FastAPI:
    """The application of one gateway process; connections open when it starts."""
    lifecycle = Lifecycle(settings)
    blobs = Blobs(settings.data_dir)
    gateway = Gateway(
        settings=settings,
        lifecycle=lifecycle,
        jobs=JobIndex(lifecycle.client, lifecycle.keys),
        runs=Runs(lifecycle),
        schedules=Schedules(lifecycle),
        access=Access(lifecycle.client, lifecycle.keys),
        blobs=blobs,
        documents=Documents(lifecycle.client, lifecycle.keys, blobs),
        playbooks=PlaybookStore(lifecycle.client, lifecycle.keys, blobs),
        fleet=Fleet(lifecycle.client, lifecycle.keys),
        catalog=Catalog(settings.models_folder),
        events=Streams(settings),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        caretaker = Caretaker(lifecycle, blobs)
        caretaker.start()
        flower = settings.flower_url or f"http://127.0.0.1:{settings.flower_port}"
        auth = ("casemill", settings.flower_password) if settings.flower_password else None
        async with httpx.AsyncClient(base_url=flower, auth=auth, timeout=60, trust_env=False) as client:
            app.state.flower = client
            yield
        caretaker.stop()
        await gateway.events.aclose()
        lifecycle.client.close()

    app = FastAPI(
        title="Casemill",
        version=importlib.metadata.version("casemill"),
        description="A law firm's documents through local AI. Results are screening, not advice.",
        lifespan=lifespan,
        openapi_url=None,  # served with the documentation, behind the key
    )
    app.state.gateway = gateway
    install_problem_handlers(app)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=settings.trusted_hosts)
    app.add_middleware(RequestGuard, upload_bytes=settings.max_upload_bytes)
    app.mount("/assets", browser.documentation_assets())
    for module in (
        jobs,  # first, as they are asked for most and routes are tried in order
        system,
        documents,
        events,
        document_sets,
        dead_letters,
        runs,
        schedules,
        playbooks,
        completions,
        openai,
        browser,
    ):
        app.include_router(module.router)
    return app
