"""For people with a browser: the log-in link, a start page, the API's documentation and Flower, behind one key."""

from __future__ import annotations

from importlib.resources import files

import httpx
from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles
from starlette.background import BackgroundTask
from starlette.responses import StreamingResponse

from gateway.keyed_route import KeyedRoute
from gateway.state import SESSION_COOKIE, MatterReader, Operator, Shared
from services.access import SESSION_SECONDS
from services.errors import Unavailable

router = APIRouter(include_in_schema=False, route_class=KeyedRoute)

# Hop-by-hop headers, and those that must not reach Flower or come back from it.
_DROP = {"host", "authorization", "cookie", "connection", "keep-alive", "transfer-encoding", "upgrade", "te", "trailer"}


@router.get("/login")
def login(token: str, request: Request, gateway: Shared) -> Response:
    """Open a session with a one-time token."""
    session = gateway.access.open_session(token)
    # A script-free page instead of a redirect: a SameSite=Strict cookie does not travel with a redirect that another
    # site or a terminal started.
    page = HTMLResponse('<!doctype html><meta http-equiv="refresh" content="0;url=/"><a href="/">Casemill</a>')
    page.set_cookie(
        SESSION_COOKIE,
        session,
        max_age=SESSION_SECONDS,
        httponly=True,
        samesite="strict",
        secure=request.url.scheme == "https",
    )
    return page


@router.get("/")
def start_page(_: MatterReader) -> HTMLResponse:
    """Links to what runs here."""
    return HTMLResponse((files("gateway") / "console" / "index.html").read_text(encoding="utf-8"))


@router.get("/openapi.json")
def openapi(request: Request, _: MatterReader) -> JSONResponse:
    """The description of the API."""
    app: FastAPI = request.app
    return JSONResponse(app.openapi())


@router.get("/docs")
def documentation(_: MatterReader) -> HTMLResponse:
    """The API with forms to try it; its scripts come from this process, not from the internet."""
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title="Casemill API",
        swagger_js_url="/assets/swagger-ui-bundle.js",
        swagger_css_url="/assets/swagger-ui.css",
        swagger_favicon_url="/assets/favicon.png",
    )


def documentation_assets() -> StaticFiles:
    """Swagger UI's files from the package that carries them."""
    return StaticFiles(packages=[("fastapi_offline", "static")])


@router.get("/flower")
def flower_root(_: Operator) -> RedirectResponse:
    """Flower's pages live below a slash."""
    return RedirectResponse("/flower/")


@router.api_route("/flower/{path:path}", methods=["GET", "POST"])
async def flower(path: str, request: Request, _: Operator) -> Response:
    """Flower, which itself listens on the loopback address only and shows the work of all tenants."""
    client: httpx.AsyncClient = request.app.state.flower
    headers = [(name, value) for name, value in request.headers.items() if name not in _DROP]
    url = httpx.URL(path=f"/flower/{path}", query=request.url.query.encode())
    upstream = client.build_request(request.method, url, headers=headers, content=await request.body())
    try:
        answer = await client.send(upstream, stream=True)
    except httpx.TransportError as error:
        raise Unavailable(
            "Flower does not answer; `casemill up` starts it, or run `casemill flower`", code="flower_away"
        ) from error
    return StreamingResponse(
        answer.aiter_raw(),
        status_code=answer.status_code,
        headers={name: value for name, value in answer.headers.items() if name not in _DROP},
        background=BackgroundTask(answer.aclose),
    )
