"""Every route with every kind of wrong key: who may not is told so, and learns nothing of what is there for others."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute

from gateway.app import create_app
from gateway.stack.valkey import EmbeddedValkey
from services.access import Access
from services.jobs import Completion, Device, JobType, Lane, Submission
from services.lifecycle import Lifecycle
from services.settings import Settings
from tests.integration.test_gateway_alone import announce
from tests.listening import served
from tests.routes import BATCH, FILE, OWN, ROUTES, Route

# What path parameters name, where it is no one's.
NOBODYS = {"path": "tasks", "kind": "cpu", "model_id": "m", "matter": "M-1"}
TEXT = "This Agreement shall be governed by the laws of the State of Ohio."
NAME = "settlement-offer.txt"


@dataclass
class World:
    """A gateway without workers, and what the tenant acme has in its matter M-1."""

    app: FastAPI
    lifecycle: Lifecycle
    http: httpx.Client
    theirs: dict[str, str]
    missing: dict[str, str]
    keys: dict[str, str]

    def ask(self, name: str, route: Route, key: str | None, ids: dict[str, str]) -> httpx.Response:
        announce(self.lifecycle)  # lasts ten seconds
        method, path = name.split(" ")
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        sends: dict[str, Any] = {}
        if isinstance(route.sends, bytes):
            sends["content"] = route.sends
            if route.form:
                headers["Content-Type"] = "multipart/form-data; boundary=B"
        elif route.sends is not None:
            sends["content"] = fill(json.dumps(route.sends), ids)
            headers["Content-Type"] = "application/json"
        query = {what: fill(value, ids) for what, value in route.query.items()}
        request = self.http.build_request(method, fill(path, ids), params=query, headers=headers, **sends)
        answer = self.http.send(request, stream=True)
        if "text/event-stream" not in answer.headers.get("content-type", ""):
            answer.read()
        answer.close()
        return answer


def fill(text: str, ids: dict[str, str]) -> str:
    return re.sub(r"\{(\w+)\}", lambda found: ids.get(found[1], found[0]), text)


def told(answer: httpx.Response, ids: dict[str, str]) -> tuple[int, str, list[str]]:
    """What an answer says, without the ids that were asked for."""
    text = answer.text
    for value in ids.values():
        text = text.replace(value, "ID")
    text = re.sub(r'"(request_id|instance)":\s*"[^"]*"', "", text)
    kept = [f"{name}: {value}" for name, value in answer.headers.items() if name not in ("x-request-id", "date")]
    return answer.status_code, text, sorted(kept)


def changed(value: str) -> str:
    """An id of the same form that nothing has."""
    return value[:-6] + ("abcdef" if not value.endswith("abcdef") else "fedcba")


@pytest.fixture(scope="module")
def world(server: EmbeddedValkey, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    values = {"REDIS_URL": server.url, "prefix": "walk:", "data_dir": tmp_path_factory.mktemp("walk"), "engine": "fake"}
    settings = Settings.model_validate(values)
    lifecycle = Lifecycle(settings)
    access = Access(lifecycle.client, lifecycle.keys)
    keys = {
        "all": access.create("all", tenant="acme"),
        "revoked": access.create("revoked", tenant="acme"),
        "expired": access.create("expired", tenant="acme"),
        "rotated": access.create("rotated", tenant="acme"),
        "unknown": "cm_" + "0" * 12 + "_" + "1" * 48,
        "malformed": "sk-hello",
        "rival": access.create("rival", tenant="rival", scopes=("submit", "read", "admin")),
        "other matter": access.create("m", tenant="acme", scopes=("submit", "read"), matters=["M-2"]),
        "own matter": access.create("m", tenant="acme", scopes=("submit", "read"), matters=["M-1"]),
    }
    for scope in ("submit", "read", "admin", "operator"):
        others = [other for other in ("submit", "read", "admin", "operator") if other != scope]
        keys[f"without {scope}"] = access.create("less", tenant="acme", scopes=others)
    access.revoke(keys["revoked"].split("_")[1])
    access.rotate(keys["rotated"].split("_")[1], grace_seconds=0)
    raw: Any = lifecycle.client
    raw.hset(lifecycle.keys("apikey", id=keys["expired"].split("_")[1]), "expires", "1")

    app = create_app(settings)
    with served(app) as url, httpx.Client(base_url=url, timeout=30, trust_env=False) as http:
        theirs = make(http, {"Authorization": f"Bearer {keys['all']}"}, lifecycle)
        missing = {name: changed(value) for name, value in theirs.items()} | NOBODYS
        yield World(app, lifecycle, http, theirs, missing, keys)
    raw.delete(*raw.scan_iter("walk:*"))
    lifecycle.client.close()


def make(http: httpx.Client, headers: dict[str, str], lifecycle: Lifecycle) -> dict[str, str]:
    """One of everything, in the matter M-1; the job has failed for good."""
    announce(lifecycle)

    def post(path: str, body: dict[str, Any]) -> str:
        answer = http.post(path, json=body, headers=headers)
        assert answer.is_success, answer.text
        return str(answer.json()["id"])

    query = {"name": NAME, "matter": "M-1", "read": "false"}
    document = http.post("/v1/documents", params=query, content=TEXT.encode(), headers=headers).json()["id"]
    job, _ = lifecycle.submit(Submission("acme", JobType.GENERATE, {"prompt": TEXT}, matter="M-1"))
    (held,) = lifecycle.work([], lane=Lane.GENERATE, devices=(Device.ANY,), worker="w1", n=1)[1]
    problem = {"type": "urn:x", "title": "x", "status": 500, "code": "broken", "detail": "x", "retryable": False}
    failed = Completion(held, "failed", problem=problem)
    lifecycle.work([failed], lane=Lane.GENERATE, devices=(Device.ANY,), worker="w1", n=0)
    own = OWN.replace(b"walked", b"secretbook")
    assert http.post("/v1/playbooks", content=own, headers=headers).is_success
    form = headers | {"Content-Type": "multipart/form-data; boundary=B"}
    file = http.post("/v1/files", content=FILE, headers=form).json()["id"]
    webhook = post("/v1/webhooks", {"url": "http://127.0.0.1:9/theirs"})
    return NOBODYS | {
        "document_id": document,
        "job_id": job.id,
        "run_id": post("/v1/runs", {"matter": "M-1", "open": True, "model": "none"}),
        "schedule_id": post(
            "/v1/schedules", {"name": "s", "cron": "0 22 * * 5", "run": {"matter": "M-1", "model": "none"}}
        ),
        "playbook": "secretbook",
        "file_id": file,
        "batch_id": post("/v1/batches", BATCH | {"input_file_id": file}),
        "key_id": post("/v1/keys", {"name": "theirs"}),
        "webhook_id": webhook,
        "delivery_id": post(f"/v1/webhooks/{webhook}/test", {}),
    }


def declared(app: FastAPI) -> set[str]:
    routes: list[APIRoute] = []
    pending: list[Any] = list(app.routes)
    while pending:
        route = pending.pop()
        if isinstance(route, APIRoute):
            routes.append(route)
        elif included := getattr(route, "original_router", None):
            pending += included.routes
    found = {
        f"{method} {re.sub(':path', '', route.path)}"
        for route in routes
        for method in route.methods or ()
        if method != "HEAD"
    }
    described = {f"{method.upper()} {path}" for path, item in app.openapi()["paths"].items() for method in item}
    assert described <= found
    return found


def test_every_route_says_what_it_needs_and_what_its_path_names(world: World) -> None:
    routes = declared(world.app)
    assert routes - ROUTES.keys() == set(), "add them to tests/routes.py with the scope that they need"
    assert ROUTES.keys() - routes == set(), "tests/routes.py names routes that are no more"
    parameters = {name for route in routes for name in re.findall(r"\{(\w+)\}", route)}
    assert parameters - world.theirs.keys() == set(), "make one in `make`, so that others can be asked for it"


@pytest.mark.parametrize("kind", [None, "unknown", "malformed", "revoked", "expired", "rotated"])
def test_no_route_opens_to_a_key_that_is_none(world: World, kind: str | None) -> None:
    for name, route in ROUTES.items():
        if route.scope is not None:
            answer = world.ask(name, route, kind and world.keys[kind], world.theirs)
            assert (answer.status_code, answer.json()["status"]) == (401, 401), (name, answer.text)
            assert told(answer, world.theirs) == told(
                world.ask(name, route, kind and world.keys[kind], world.missing), world.missing
            ), name


def test_no_route_opens_without_its_scope(world: World) -> None:
    for name, route in ROUTES.items():
        if route.scope is not None:
            answer = world.ask(name, route, world.keys[f"without {route.scope}"], world.theirs)
            assert (answer.status_code, answer.json()["code"]) == (403, "forbidden"), (name, answer.text)


def learnt(world: World, answer: httpx.Response) -> list[str]:
    """What of the tenant's own an answer shows."""
    own = [value for name, value in world.theirs.items() if name not in NOBODYS] + [NAME, TEXT]
    return [value for value in own if value in answer.text]


def test_another_tenant_cannot_tell_what_is_there_from_what_is_not(world: World) -> None:
    for name, route in ROUTES.items():
        if route.waits:
            continue
        mine = world.ask(name, route, world.keys["rival"], world.theirs)
        none = world.ask(name, route, world.keys["rival"], world.missing)
        own_named = any(f"{{{what}}}" in name + json.dumps(route.sends, default=str) for what in own_names(world))
        if route.scope == "operator":
            assert mine.status_code == 403, (name, mine.text)
        elif own_named:
            assert mine.status_code == 404 or mine.json()["code"].endswith("_unknown"), (name, mine.text)
            assert told(mine, world.theirs) == told(none, world.missing), name
        if mine.is_success:
            assert learnt(world, mine) == [], name


def test_a_key_for_another_matter_cannot_tell_either(world: World) -> None:
    for name, route in ROUTES.items():
        if route.waits or route.scope is None:
            continue
        mine = world.ask(name, route, world.keys["other matter"], world.theirs)
        none = world.ask(name, route, world.keys["other matter"], world.missing)
        if not route.of_no_matter:
            assert mine.status_code in (403, 404), (name, mine.text)
            assert told(mine, world.theirs) == told(none, world.missing), name
        assert set(learnt(world, mine)) <= {"secretbook"} | set(asked(name, route, world)), (name, mine.text)


def test_a_key_for_the_matter_works_in_it(world: World) -> None:
    closed = ["POST /v1/playbooks", "DELETE /v1/playbooks/{playbook}"]  # of all matters
    closed += [name for name in ROUTES if "/v1/files" in name or "/v1/batches" in name]
    for name, route in ROUTES.items():
        if route.scope in ("read", "submit") and not route.waits and name.split(" ")[0] in ("GET", "POST"):
            answer = world.ask(name, route, world.keys["own matter"], world.theirs)
            expected = (403,) if name in closed else (200, 201, 202, 409)
            assert answer.status_code in expected, (name, answer.status_code, answer.headers)


def test_the_walk_asks_for_what_is_good(world: World) -> None:
    """With the right key each request of the walk succeeds, so that what it was refused for is the key."""
    last = [name for name in ROUTES if name.startswith("DELETE")]
    last.sort(key=lambda name: "/matters/" in name)  # it takes the others with it
    away = ("GET /login", "GET /flower/{path}", "POST /flower/{path}", "GET /readyz")
    for name in [name for name in ROUTES if name not in last] + last:
        if not ROUTES[name].waits and name not in away:
            answer = world.ask(name, ROUTES[name], world.keys["all"], world.theirs)
            assert answer.status_code < 400 or answer.status_code == 409, (name, answer.text)


def own_names(world: World) -> list[str]:
    return [name for name in world.theirs if name not in NOBODYS]


def asked(name: str, route: Route, world: World) -> list[str]:
    """What the request itself had in it, and an answer may repeat."""
    text = fill(f"{name} {json.dumps(route.sends, default=str)} {json.dumps(route.query)}", world.theirs)
    return [world.theirs[what] for what in own_names(world) if world.theirs[what] in text]
